//! Addresses in the answers of what is behind a proxy: those that mean the backend itself lead back through the proxy.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What a page may say of other origins holds for the backend's, not for the API server's.
const CORS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];

/// Which addresses mean the backend, and what they become (`Transport.rewriteURL` in
/// `k8s.io/apimachinery/pkg/util/proxy`). What follows the prefix stays as it was written; upstream decodes and cleans it.
#[derive(Debug)]
pub(super) struct Links {
    /// The path of the proxy, without a slash at its end.
    pub(super) prefix: String,
    /// Whom the server has connected to: `host` or `host:port`, as they may be written.
    pub(super) backend: Vec<String>,
    /// How the client calls this server, which is what the backend is called by.
    pub(super) called: Option<String>,
}

impl Links {
    /// The address through the proxy; `None` where it stays what it is, as it is relative or leads elsewhere.
    pub(super) fn through(&self, address: &str) -> Option<String> {
        let (scheme, rest) = scheme(address);
        let (authority, rest) = match rest.strip_prefix("//") {
            Some(after) if scheme.is_some() || !after.starts_with('/') => {
                after.split_at(after.find(['/', '?', '#']).unwrap_or(after.len()))
            }
            _ => ("", rest),
        };
        if !rest.starts_with('/') {
            return None;
        }
        let host = authority.rsplit('@').next().unwrap_or("");
        let is_called = self.called.as_deref().is_some_and(|called| called == host);
        if !(host.is_empty() || is_called || self.backend.iter().any(|own| own == host)) {
            return None;
        }
        let origin = match scheme {
            _ if host.is_empty() || !is_called => String::new(),
            Some(scheme) => format!("{scheme}://{authority}"),
            None => format!("//{authority}"),
        };
        let prefix = if rest.starts_with(&self.prefix) { "" } else { &*self.prefix };
        Some(format!("{origin}{prefix}{rest}"))
    }

    /// Changes the headers of an answer; whether its body is to be looked at, too.
    pub(super) fn headers(&self, headers: &mut HeaderMap) -> bool {
        for name in CORS {
            headers.remove(name);
        }
        let text = |name: HeaderName, headers: &HeaderMap| {
            let value = headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok());
            value.unwrap_or_default().to_owned()
        };
        let location = text(header::LOCATION, headers);
        if !location.is_empty() {
            let through = self.through(&location).and_then(|through| HeaderValue::try_from(through).ok());
            if let Some(through) = through {
                headers.insert(header::LOCATION, through);
            }
            return false;
        }
        let media = text(header::CONTENT_TYPE, headers);
        media.split(';').next().is_some_and(|media| media.trim() == "text/html")
    }
}

/// What is before the first colon, if that is a scheme, and what comes behind.
fn scheme(address: &str) -> (Option<&str>, &str) {
    let (before, behind) = address.split_once(':').unwrap_or(("", address));
    let is_scheme = before.starts_with(|c: char| c.is_ascii_alphabetic())
        && before.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c));
    if is_scheme { (Some(before), behind) } else { (None, address) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::connect) fn links() -> Links {
        Links {
            prefix: "/p/proxy".into(),
            backend: vec!["10.0.0.1:8080".into(), "10.0.0.1".into()],
            called: Some("api:6443".into()),
        }
    }

    #[test]
    fn addresses_of_the_backend_lead_through_the_proxy() {
        for (address, expected) in [
            ("/a/b?c=/d#e", Some("/p/proxy/a/b?c=/d#e")),
            ("/", Some("/p/proxy/")),
            ("/a%2Fb//c", Some("/p/proxy/a%2Fb//c")),
            ("http://10.0.0.1:8080/a/", Some("/p/proxy/a/")),
            ("https://10.0.0.1/a", Some("/p/proxy/a")),
            ("//10.0.0.1:8080/a", Some("/p/proxy/a")),
            ("http://u@10.0.0.1:8080/a", Some("/p/proxy/a")),
            ("http://api:6443/a", Some("http://api:6443/p/proxy/a")),
            ("//api:6443/a", Some("//api:6443/p/proxy/a")),
            ("/p/proxy/a", Some("/p/proxy/a")),
            ("http://10.0.0.1:8080/p/proxy/a", Some("/p/proxy/a")),
            ("///elsewhere/a", Some("/p/proxy///elsewhere/a")),
            ("http:/a", Some("/p/proxy/a")),
            ("http://10.0.0.2:8080/a", None),
            ("//elsewhere/a", None),
            ("http://10.0.0.1:8080", None),
            ("http://10.0.0.1:8080?a=/b", None),
            ("a/b", None),
            ("../b", None),
            ("?a=/b", None),
            ("#/b", None),
            ("", None),
            ("mailto:a@b/c", None),
            ("javascript:/x/", Some("/p/proxy/x/")),
            (":/a", None),
        ] {
            assert_eq!(links().through(address).as_deref(), expected, "{address}");
        }
    }

    #[test]
    fn only_pages_that_lead_nowhere_else_are_looked_at() {
        for (before, after, is_page) in [
            (vec![("content-type", "text/html")], vec![("content-type", "text/html")], true),
            (vec![("content-type", "text/html ; charset=utf-8")], vec![], true),
            (vec![("content-type", "text/htm")], vec![], false),
            (vec![("location", "/a"), ("etag", "1")], vec![("location", "/p/proxy/a"), ("etag", "1")], false),
            (vec![("location", "a")], vec![("location", "a")], false),
            (vec![("access-control-allow-origin", "*"), ("etag", "1")], vec![("etag", "1")], false),
        ] {
            let pairs = |list: &[(&'static str, &'static str)]| -> HeaderMap {
                list.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
            };
            let mut headers = pairs(&before);
            assert_eq!(links().headers(&mut headers), is_page, "{before:?}");
            assert!(after.is_empty() || headers == pairs(&after), "{before:?}: {headers:?}");
        }
    }
}
