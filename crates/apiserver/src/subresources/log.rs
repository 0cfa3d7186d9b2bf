//! `pods/log`: asked of the pod's kubelet, and passed on as it comes.

use api::field::{ErrorList, Path, forbidden, invalid, not_supported};
use axum::body::Body;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt, Limited};

use crate::call::Call;
use crate::connect::find;
use crate::query::Query;
use crate::respond::{self, ApiResponse};
use crate::status::{ApiError, Subject};

/// The parameters a kubelet understands: switches, and what has a value.
const SWITCHES: [&str; 3] = ["follow", "previous", "timestamps"];
const VALUES: [&str; 5] = ["tailLines", "sinceSeconds", "sinceTime", "limitBytes", "stream"];

/// How much of a kubelet's refusal is passed on.
const MAX_REFUSAL_BYTES: usize = 4096;

/// Streams a container's log.
pub(crate) async fn get(call: &Call) -> Result<ApiResponse, ApiError> {
    check(call)?;
    let pod = find::pod(&call.shared, &call.info).await?;
    let container = find::container(&call.query, &pod)?;
    let Some(node) = api::pods::node_name(&pod) else {
        // Upstream answers an empty log: nothing has run yet.
        return Ok(respond::text(StatusCode::OK, ""));
    };
    let node = find::node(&call.shared, node)?;
    let path = path(call, &container);
    let answer = call.shared.kubelets.get(&node, &path).await?;
    if answer.status() == StatusCode::OK {
        let text = HeaderValue::from_static("text/plain");
        return Ok(respond::with_type(StatusCode::OK, text, Body::new(answer.into_body())));
    }
    let code = answer.status();
    let refusal = Limited::new(answer.into_body(), MAX_REFUSAL_BYTES).collect().await;
    let refusal = refusal.map(|b| String::from_utf8_lossy(&b.to_bytes()).into_owned()).unwrap_or_default();
    Err(match code {
        StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => ApiError::BadRequest(refusal.trim().to_owned()),
        _ => ApiError::Internal(format!("the kubelet answered {code}: {}", refusal.trim())),
    })
}

/// Parameters are checked here, where the client can be told in API terms, and before anything is looked up.
fn check(call: &Call) -> Result<(), ApiError> {
    let errors = wrong(&call.query)?;
    if !errors.is_empty() {
        let subject = Subject { group: "".into(), name: call.name().to_owned(), ..Subject::options("PodLogOptions") };
        return Err(ApiError::Invalid(subject, errors));
    }
    Ok(())
}

/// The kubelet's path. Names are DNS labels and need no escaping.
fn path(call: &Call, container: &str) -> String {
    let namespace = call.info.namespace.as_deref().unwrap_or("");
    let on = SWITCHES.iter().filter(|name| call.query.flag(name)).map(|name| format!("{name}=true"));
    let given = VALUES.iter().filter_map(|name| Some((name, call.query.get(name)?)));
    let given = given.map(|(name, value)| format!("{name}={}", value.replace('+', "%2B")));
    let parameters: Vec<String> = on.chain(given).collect();
    let query = if parameters.is_empty() { String::new() } else { format!("?{}", parameters.join("&")) };
    format!("/containerLogs/{namespace}/{}/{container}{query}", call.name())
}

/// What of the options makes no sense (`ValidatePodLogOptions`); what cannot even be read is refused at once.
fn wrong(query: &Query) -> Result<ErrorList, ApiError> {
    let mut errors = ErrorList::new();
    for name in VALUES {
        let Some(value) = query.get(name) else { continue };
        let unreadable = || ApiError::BadRequest(format!("invalid value {value:?} for query parameter {name}"));
        let least = match name {
            "sinceTime" if value.parse::<jiff::Timestamp>().is_ok() => continue,
            "stream" if matches!(value, "All" | "Stdout" | "Stderr") => continue,
            "stream" => {
                errors.push(not_supported(&Path::new(name), value, &["All", "Stderr", "Stdout"]));
                continue;
            }
            "tailLines" => 0,
            "limitBytes" | "sinceSeconds" => 1,
            _ => return Err(unreadable()),
        };
        let detail = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
        let number: i64 = value.parse().map_err(|_| unreadable())?;
        if number < least {
            errors.push(invalid(&Path::new(name), number, detail));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        errors.push(forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if query.get("tailLines").is_some() && query.get("stream").is_some_and(|stream| stream != "All") {
        let detail = "`tailLines` and specific `stream` are mutually exclusive for now";
        errors.push(forbidden(&Path::new(""), detail));
    }
    Ok(errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_that_make_no_sense_are_named() {
        for (query, expected) in [
            ("follow=true&tailLines=0&limitBytes=1&stream=All&sinceTime=2026-01-01T00:00:00Z", vec![]),
            ("tailLines=-1", vec!["tailLines: Invalid value: -1: must be greater than or equal to 0"]),
            ("limitBytes=0", vec!["limitBytes: Invalid value: 0: must be greater than 0"]),
            ("sinceSeconds=0", vec!["sinceSeconds: Invalid value: 0: must be greater than 0"]),
            (
                "stream=out",
                vec!["stream: Unsupported value: \"out\": supported values: \"All\", \"Stderr\", \"Stdout\""],
            ),
            (
                "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z",
                vec![": Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified"],
            ),
            (
                "stream=Stderr&tailLines=1",
                vec![": Forbidden: `tailLines` and specific `stream` are mutually exclusive for now"],
            ),
        ] {
            let errors = wrong(&Query::parse(Some(query))).unwrap();
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{query}");
        }
        for query in ["tailLines=x", "sinceTime=yesterday"] {
            assert!(wrong(&Query::parse(Some(query))).is_err(), "{query}");
        }
    }
}
