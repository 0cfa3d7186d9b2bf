//! `/etc/hosts` and `/etc/resolv.conf` of a pod (`ensureHostsFile` in `pkg/kubelet/kubelet_pods.go`,
//! `pkg/kubelet/network/dns/dns.go`).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{HostAlias, Pod, PodSpec};

/// Names and options a resolver takes at most (`MaxDNSNameservers`, `MaxDNSSearchPaths`).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCH_PATHS: usize = 32;

/// A resolver configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Servers.
    pub nameservers: Vec<String>,
    /// Domains tried for short names.
    pub searches: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// What a pod's resolver is made from.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    /// The cluster's DNS server, if there is one.
    pub dns: Option<IpAddr>,
    /// The domain cluster names end in.
    pub domain: &'a str,
    /// The node's own resolver.
    pub host: Resolver,
}

/// Host name of the pod and, with a subdomain, its full name.
pub fn hostname(pod: &Pod, domain: &str) -> (String, Option<String>) {
    const MAX: usize = 63;
    let spec = pod.spec.as_ref();
    if let Some(name) = spec.and_then(|s| s.hostname_override.clone()).filter(|name| !name.is_empty()) {
        return (name, None);
    }
    let named = spec.and_then(|s| s.hostname.as_deref()).filter(|h| !h.is_empty());
    let name = named.unwrap_or(crate::pod::name(&pod.metadata));
    let short: String = name.chars().take(MAX).collect();
    let short = short.trim_end_matches(['-', '.']).to_owned();
    let subdomain = spec.and_then(|s| s.subdomain.as_deref()).filter(|s| !s.is_empty());
    let full = subdomain.map(|sub| format!("{short}.{sub}.{}.svc.{domain}", crate::pod::namespace(&pod.metadata)));
    (short, full)
}

/// The host name the pod's kernel has: short, or in full where the pod wants that (`GeneratePodHostNameAndDomain`).
pub fn sandbox_hostname(pod: &Pod, domain: &str) -> Result<String, String> {
    const MAX: usize = 64;
    let (short, full) = hostname(pod, domain);
    let in_full = pod.spec.as_ref().is_some_and(|s| s.set_hostname_as_fqdn == Some(true));
    match full.filter(|_| in_full) {
        Some(full) if full.len() > MAX => Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long ({MAX} characters is \
             the max, {} characters requested)",
            full.len()
        )),
        Some(full) => Ok(full),
        None => Ok(short),
    }
}

/// The hosts file of a pod in the pod network.
pub fn hosts(ip: Option<IpAddr>, hostname: &str, full: Option<&str>, aliases: &[HostAlias]) -> String {
    let mut text = String::from(
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
    );
    if let Some(ip) = ip {
        let names = full.map_or_else(|| hostname.to_owned(), |full| format!("{full}\t{hostname}"));
        text.push_str(&format!("{ip}\t{names}\n"));
    }
    text + &alias_lines(aliases)
}

/// The hosts file of a pod on the host's network.
pub fn host_network_hosts(host: &str, aliases: &[HostAlias]) -> String {
    format!("# Kubernetes-managed hosts file (host network).\n{host}{}", alias_lines(aliases))
}

fn alias_lines(aliases: &[HostAlias]) -> String {
    if aliases.is_empty() {
        return String::new();
    }
    let lines = aliases
        .iter()
        .map(|a| format!("{}\t{}\n", a.ip, a.hostnames.iter().flatten().cloned().collect::<Vec<_>>().join("\t")));
    format!("\n# Entries added by HostAliases.\n{}", lines.collect::<String>())
}

/// The resolver of a pod, by its DNS policy.
pub fn resolver(spec: &PodSpec, namespace: &str, cluster: &Cluster<'_>) -> Resolver {
    let host_network = spec.host_network == Some(true);
    let mut resolver = match (spec.dns_policy.as_deref(), cluster.dns) {
        (Some("None"), _) => Resolver::default(),
        (Some("Default"), _) | (_, None) => cluster.host.clone(),
        (Some("ClusterFirst") | None, _) if host_network => cluster.host.clone(),
        (_, Some(dns)) => cluster_first(dns, namespace, cluster),
    };
    if let Some(config) = &spec.dns_config {
        resolver.nameservers.extend(config.nameservers.iter().flatten().cloned());
        resolver.searches.extend(config.searches.iter().flatten().cloned());
        for option in config.options.iter().flatten() {
            let name = option.name.clone().unwrap_or_default();
            resolver.options.retain(|o| o.split(':').next() != Some(&name));
            resolver.options.push(option.value.as_ref().map_or(name.clone(), |value| format!("{name}:{value}")));
        }
    }
    unique(&mut resolver.nameservers);
    unique(&mut resolver.searches);
    resolver.nameservers.truncate(MAX_NAMESERVERS);
    resolver.searches.truncate(MAX_SEARCH_PATHS);
    resolver
}

fn cluster_first(dns: IpAddr, namespace: &str, cluster: &Cluster<'_>) -> Resolver {
    let domain = cluster.domain;
    let mut searches = vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
    searches.extend(cluster.host.searches.clone());
    Resolver { nameservers: vec![dns.to_string()], searches, options: vec!["ndots:5".to_owned()] }
}

fn unique(items: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    items.retain(|item| seen.insert(item.clone()));
}

impl Resolver {
    /// Reads a resolv.conf.
    pub fn parse(text: &str) -> Resolver {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => resolver.nameservers.extend(words.next().map(str::to_owned)),
                Some("search" | "domain") => resolver.searches = words.map(str::to_owned).collect(),
                Some("options") => resolver.options = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolver
    }

    /// The node's own resolver: the file that was named or, where a local stub answers the host only, what that stub asks.
    pub fn of_host(configured: Option<&Path>) -> Resolver {
        let read = |path: &str| Resolver::parse(&fs::read_to_string(path).unwrap_or_default());
        if let Some(path) = configured {
            return Resolver::parse(&fs::read_to_string(path).unwrap_or_default());
        }
        let resolver = read("/etc/resolv.conf");
        let loops = |r: &Resolver| r.nameservers.iter().any(|n| n.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()));
        if !loops(&resolver) {
            return resolver;
        }
        let upstream = read("/run/systemd/resolve/resolv.conf");
        if upstream.nameservers.is_empty() { resolver } else { upstream }
    }
}

impl std::fmt::Display for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.nameservers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            writeln!(f, "options {}", self.options.join(" "))?;
        }
        Ok(())
    }
}

/// Writes `text` to the file `name` of the pod's directory, in place: containers hold the file itself.
pub fn write(pod_dir: &Path, name: &str, text: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(pod_dir)?;
    let path = pod_dir.join(name);
    if fs::read_to_string(&path).is_ok_and(|present| present == text) {
        return Ok(path);
    }
    fs::write(&path, text)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn resolve(spec: serde_json::Value, dns: Option<&str>) -> String {
        let mut spec = spec;
        spec["containers"] = json!([]);
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let host = Resolver::parse("# comment\nnameserver 9.9.9.9\nsearch example.org\noptions edns0\n");
        let cluster = Cluster { dns: dns.map(|ip| ip.parse().unwrap()), domain: "cluster.local", host };
        resolver(&spec, "ns", &cluster).to_string()
    }

    #[test]
    fn resolvers_follow_the_dns_policy() {
        let of_host = "search example.org\nnameserver 9.9.9.9\noptions edns0\n";
        let of_cluster = "search ns.svc.cluster.local svc.cluster.local cluster.local example.org\n\
                          nameserver 10.96.0.10\noptions ndots:5\n";
        let dns = Some("10.96.0.10");
        for (spec, dns, expected) in [
            (json!({}), dns, of_cluster),
            (json!({"dnsPolicy": "ClusterFirst"}), dns, of_cluster),
            (json!({"dnsPolicy": "ClusterFirst"}), None, of_host),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), dns, of_host),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), dns, of_cluster),
            (json!({"dnsPolicy": "Default"}), dns, of_host),
            (
                json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}}),
                dns,
                "nameserver 1.1.1.1\noptions ndots:2\n",
            ),
        ] {
            assert_eq!(resolve(spec.clone(), dns), expected, "{spec}");
        }
    }

    #[test]
    fn host_names_are_short_unless_the_pod_wants_them_in_full() {
        let name = |spec: serde_json::Value| {
            let pod = json!({"metadata": {"name": "web", "namespace": "ns"}, "spec": spec});
            let mut pod: Pod = serde_json::from_value(pod).unwrap();
            pod.spec.as_mut().unwrap().containers = Vec::new();
            sandbox_hostname(&pod, "cluster.local")
        };
        let none = json!([]);
        for (spec, expected) in [
            (json!({"containers": none}), "web"),
            (json!({"containers": none, "hostname": "a", "subdomain": "sub"}), "a"),
            (
                json!({"containers": none, "subdomain": "sub", "setHostnameAsFQDN": true}),
                "web.sub.ns.svc.cluster.local",
            ),
            (json!({"containers": none, "setHostnameAsFQDN": true}), "web"),
            (json!({"containers": none, "hostnameOverride": "db.example.org", "subdomain": "sub"}), "db.example.org"),
        ] {
            assert_eq!(name(spec.clone()).unwrap(), expected, "{spec}");
        }
        let long =
            json!({"containers": none, "hostname": "a".repeat(60), "subdomain": "sub", "setHostnameAsFQDN": true});
        assert!(name(long).unwrap_err().ends_with("is too long (64 characters is the max, 85 characters requested)"));
    }

    #[test]
    fn hosts_file_names_the_pod_and_its_aliases() {
        let aliases = [HostAlias { ip: "1.2.3.4".into(), hostnames: Some(vec!["a".into(), "b".into()]) }];
        let text = hosts(Some("10.244.0.2".parse().unwrap()), "web", Some("web.sub.ns.svc.cluster.local"), &aliases);
        assert!(text.contains("\n10.244.0.2\tweb.sub.ns.svc.cluster.local\tweb\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }
}
