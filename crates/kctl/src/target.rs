//! Which objects the arguments name: `pods`, `pods,svc`, `pod web api`, `pod/web rc/api`.

use crate::Error;
use crate::discovery::{Discovery, Resource};

/// One resource and, perhaps, names in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The resource.
    pub resource: Resource,
    /// The objects; empty: all of them.
    pub names: Vec<String>,
}

/// Reads the arguments of a verb.
pub fn parse(discovery: &Discovery, arguments: &[String]) -> Result<Vec<Target>, Error> {
    let Some((first, names)) = arguments.split_first() else { return Ok(Vec::new()) };
    if arguments.iter().any(|a| a.contains('/')) {
        return arguments.iter().map(|argument| slashed(discovery, argument)).collect();
    }
    let mut targets = Vec::new();
    for word in first.split(',').filter(|w| !w.is_empty()) {
        for resource in discovery.resolve_all(word)? {
            if !targets.iter().any(|t: &Target| t.resource == *resource) {
                targets.push(Target { resource: resource.clone(), names: names.to_vec() });
            }
        }
    }
    Ok(targets)
}

fn slashed(discovery: &Discovery, argument: &str) -> Result<Target, Error> {
    let Some((resource, name)) = argument.split_once('/') else {
        return Err(Error::message(
            "there is no need to specify a resource type as a separate argument when passing arguments in resource/name form \
             (e.g. 'kctl get resource/<resource_name>' instead of 'kctl get resource resource/<resource_name>'",
        ));
    };
    if resource.is_empty() || name.is_empty() || name.contains('/') {
        return Err(Error::message("arguments in resource/name form must have a single resource and name"));
    }
    Ok(Target { resource: discovery.resolve(resource)?.clone(), names: vec![name.to_owned()] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_name_resources_and_objects() {
        let discovery = crate::discovery::tests::sample();
        let read = |line: &str| {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let targets = parse(&discovery, &words).map_err(|e| e.to_string())?;
            let shown = targets.iter().map(|t| format!("{}:{}", t.resource.plural, t.names.join("+")));
            Ok::<_, String>(shown.collect::<Vec<_>>().join(" "))
        };
        for (line, expected) in [
            ("pods", "pods:"),
            ("po,svc,pod", "pods: services:"),
            ("pod web api", "pods:web+api"),
            ("pod/web rc/api", "pods:web replicationcontrollers:api"),
            ("all", "pods: replicationcontrollers: services:"),
            ("", ""),
        ] {
            assert_eq!(read(line).as_deref(), Ok(expected), "{line}");
        }
        assert!(read("pod web/api").unwrap_err().starts_with("error: there is no need to specify a resource type"));
        assert!(read("pod/").unwrap_err().contains("single resource and name"));
    }
}
