//! Rules for names, label keys and values, ports and variables, as in `k8s.io/apimachinery/pkg/util/validation`.
//!
//! Every `is_*` function returns what is wrong with a value in upstream's words; an empty list means it is fine. The
//! messages quote upstream's regular expressions because clients show them; the checks themselves are plain byte
//! scans.

/// The longest DNS label, label value and name part of a label key.
pub const LABEL_MAX_LENGTH: usize = 63;
/// The longest DNS subdomain, and thus the longest object name of most kinds.
pub const SUBDOMAIN_MAX_LENGTH: usize = 253;
/// The longest IANA service name.
const PORT_NAME_MAX_LENGTH: usize = 15;

/// The rule a kind's `metadata.name` follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, at most 253 bytes: most kinds.
    Dns1123Subdomain,
    /// RFC 1123 label, at most 63 bytes: namespaces.
    Dns1123Label,
    /// RFC 1035 label, at most 63 bytes: services.
    Dns1035Label,
    /// Anything that is one path segment: RBAC objects and certificate signing requests use looser rules.
    PathSegment,
}

/// What is wrong with `name` under `rule`, in upstream's words; empty when nothing is.
pub fn validate_name(rule: NameRule, name: &str) -> Vec<String> {
    match rule {
        NameRule::Dns1123Subdomain => is_dns1123_subdomain(name),
        NameRule::Dns1123Label => is_dns1123_label(name),
        NameRule::Dns1035Label => is_dns1035_label(name),
        NameRule::PathSegment => is_path_segment(name),
    }
}

/// The same for a `generateName`, which may end in a hyphen because more will follow (`maskTrailingDash`).
pub fn validate_name_prefix(rule: NameRule, prefix: &str) -> Vec<String> {
    match rule {
        NameRule::PathSegment => forbidden_in_path_segment(prefix),
        _ if prefix.len() > 1 && prefix.ends_with('-') && prefix.is_ascii() => {
            validate_name(rule, &format!("{}a", &prefix[..prefix.len() - 2]))
        }
        _ => validate_name(rule, prefix),
    }
}

/// RFC 1123 label: `my-name`.
pub fn is_dns1123_label(value: &str) -> Vec<String> {
    let mut errors = max_length(value, LABEL_MAX_LENGTH);
    if !matches_dns1123_label(value) {
        if matches_dns1123_subdomain(value) {
            errors.push("must not contain dots".to_owned());
        } else {
            errors.push(regex_error(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start \
                 and end with an alphanumeric character",
                DNS1123_LABEL,
                &["my-name", "123-abc"],
            ));
        }
    }
    errors
}

/// RFC 1123 subdomain: `example.com`.
pub fn is_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = max_length(value, SUBDOMAIN_MAX_LENGTH);
    if !matches_dns1123_subdomain(value) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
             start and end with an alphanumeric character",
            DNS1123_SUBDOMAIN,
            &["example.com"],
        ));
    }
    errors
}

/// RFC 1123 subdomain whose first label is a star: `*.example.com`.
pub fn is_wildcard_dns1123_subdomain(value: &str) -> Vec<String> {
    let mut errors = max_length(value, SUBDOMAIN_MAX_LENGTH);
    if !value.strip_prefix("*.").is_some_and(matches_dns1123_subdomain) {
        errors.push(regex_error(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must \
             consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
            r"\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        ));
    }
    errors
}

/// RFC 1035 label: starts with a letter.
pub fn is_dns1035_label(value: &str) -> Vec<String> {
    let mut errors = max_length(value, LABEL_MAX_LENGTH);
    if !(matches_dns1123_label(value) && value.as_bytes()[0].is_ascii_lowercase()) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
             character, and end with an alphanumeric character",
            "[a-z]([-a-z0-9]*[a-z0-9])?",
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// One segment of a URL path: not `.` or `..`, without `/` and `%`.
pub fn is_path_segment(name: &str) -> Vec<String> {
    match name {
        "." | ".." => vec![format!("may not be '{name}'")],
        _ => forbidden_in_path_segment(name),
    }
}

fn forbidden_in_path_segment(name: &str) -> Vec<String> {
    ["/", "%"].iter().filter(|s| name.contains(**s)).map(|s| format!("may not contain '{s}'")).collect()
}

/// A label or annotation key, a finalizer, a condition type: `example.com/my.name` or `my.name`.
pub fn is_qualified_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let form = || regex_error(QUALIFIED_NAME_MESSAGE, QUALIFIED_NAME, &["MyName", "my.name", "123-abc"]);
    let name = match value.split_once('/') {
        None => value,
        Some((_, rest)) if rest.contains('/') => {
            return vec![format!(
                "a qualified name {} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')",
                form()
            )];
        }
        Some(("", name)) => {
            errors.push("prefix part must be non-empty".to_owned());
            name
        }
        Some((prefix, name)) => {
            errors.extend(is_dns1123_subdomain(prefix).into_iter().map(|e| format!("prefix part {e}")));
            name
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    }
    errors.extend(max_length(name, LABEL_MAX_LENGTH).into_iter().map(|e| format!("name part {e}")));
    if !matches_qualified(name) {
        errors.push(format!("name part {}", form()));
    }
    errors
}

/// A label value: empty, or like the name part of a qualified name.
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut errors = max_length(value, LABEL_MAX_LENGTH);
    if !(value.is_empty() || matches_qualified(value)) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
             start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The name of an environment variable, relaxed as Kubernetes 1.35 has it: printable ASCII without `=`
/// (`IsRelaxedEnvVarName`).
pub fn is_env_var_name(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.is_empty() {
        errors.push("environment variable name must be non-empty".to_owned());
    }
    if !value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=') {
        errors.push(
            "a valid environment variable name must consist only of printable ASCII characters other than '='"
                .to_owned(),
        );
    }
    errors
}

/// An identifier of the C language, as `envFrom` wanted for keys before names were relaxed.
pub fn is_c_identifier(value: &str) -> Vec<String> {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let fine = value.bytes().next().is_some_and(letter) && value.bytes().all(|b| letter(b) || b.is_ascii_digit());
    let error = || {
        regex_error(
            "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric \
             characters or '_'",
            "[A-Za-z_][A-Za-z0-9_]*",
            &["my_name", "MY_NAME", "MyName"],
        )
    };
    if fine { Vec::new() } else { vec![error()] }
}

/// A key of a ConfigMap or Secret, which is also a file name in volumes.
pub fn is_config_map_key(value: &str) -> Vec<String> {
    let mut errors = max_length(value, SUBDOMAIN_MAX_LENGTH);
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    match value {
        "." => errors.push("must not be '.'".to_owned()),
        ".." => errors.push("must not be '..'".to_owned()),
        _ if value.starts_with("..") => errors.push("must not start with '..'".to_owned()),
        _ => {}
    }
    errors
}

/// A port name: an IANA service name of RFC 6335.
pub fn is_port_name(value: &str) -> Vec<String> {
    let mut errors = max_length(value, PORT_NAME_MAX_LENGTH);
    let charset = |b: u8| b == b'-' || b.is_ascii_lowercase() || b.is_ascii_digit();
    let rules = [
        (
            value.is_empty() || !value.bytes().all(charset),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (!value.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (value.contains("--"), "must not contain consecutive hyphens"),
        (value.starts_with('-') || value.ends_with('-'), "must not begin or end with a hyphen"),
    ];
    errors.extend(rules.into_iter().filter(|(broken, _)| *broken).map(|(_, message)| message.to_owned()));
    errors
}

/// A port number: 1 to 65535.
pub fn is_port_number(port: i64) -> Vec<String> {
    is_in_range(port, 1, 65535)
}

/// `must be between min and max, inclusive`.
pub fn is_in_range(value: i64, min: i64, max: i64) -> Vec<String> {
    if (min..=max).contains(&value) { Vec::new() } else { vec![format!("must be between {min} and {max}, inclusive")] }
}

/// The name of an HTTP header in probes and hooks.
pub fn is_http_header_name(value: &str) -> Vec<String> {
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// A percentage: `25%`.
pub fn is_percent(value: &str) -> Vec<String> {
    let digits = value.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![regex_error(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// An IPv4 or IPv6 address.
pub fn is_ip(value: &str) -> Vec<String> {
    match value.parse::<std::net::IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// Letters a generated suffix is made of: no vowels and nothing that looks like one, so that no word appears.
const SUFFIX_ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
/// How many of them.
const SUFFIX_LENGTH: usize = 5;
/// What is kept of the base, so that the whole fits a DNS label.
const GENERATE_NAME_MAX_LENGTH: usize = LABEL_MAX_LENGTH - SUFFIX_LENGTH;

/// The name made from a `generateName`: the base, cut to 58 bytes, and five random letters
/// (`k8s.io/apiserver/pkg/storage/names`).
pub fn generate_name(base: &str, rng: &mut (impl rand::Rng + ?Sized)) -> String {
    let mut end = base.len().min(GENERATE_NAME_MAX_LENGTH);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{}", &base[..end], random_suffix(rng))
}

/// Five random letters, as in pod names.
pub fn random_suffix(rng: &mut (impl rand::Rng + ?Sized)) -> String {
    use rand::RngExt as _;
    (0..SUFFIX_LENGTH).map(|_| char::from(SUFFIX_ALPHABET[rng.random_range(0..SUFFIX_ALPHABET.len())])).collect()
}

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1123_SUBDOMAIN: &str = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_NAME_MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end \
                                      with an alphanumeric character";

fn matches_dns1123_label(value: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !value.is_empty() && value.bytes().all(inner) && !value.starts_with('-') && !value.ends_with('-')
}

fn matches_dns1123_subdomain(value: &str) -> bool {
    value.split('.').all(matches_dns1123_label)
}

fn matches_qualified(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends_well(bytes.first())
        && ends_well(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(b))
}

fn max_length(value: &str, max: usize) -> Vec<String> {
    if value.len() > max { vec![format!("must be no more than {max} bytes")] } else { Vec::new() }
}

/// `message (e.g. 'a',  or 'b', regex used for validation is 'regex')`, with upstream's own commas.
fn regex_error(message: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_in_upstreams_words() {
        assert_eq!(
            validate_name(NameRule::Dns1123Subdomain, "Web_1"),
            [
                r"a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
            ]
        );
        assert_eq!(
            validate_name(NameRule::Dns1123Label, "A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(validate_name(NameRule::Dns1123Label, "a.b"), ["must not contain dots"]);
        assert_eq!(validate_name(NameRule::Dns1123Label, &"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(validate_name(NameRule::PathSegment, "a/b%"), ["may not contain '/'", "may not contain '%'"]);
        assert_eq!(validate_name(NameRule::PathSegment, ".."), ["may not be '..'"]);
    }

    #[test]
    fn dns_names_are_told_from_others() {
        for (name, label, subdomain, dns1035) in [
            ("a", true, true, true),
            ("1-a", true, true, false),
            ("a.b-c.0", false, true, false),
            ("", false, false, false),
            ("-a", false, false, false),
            ("a-", false, false, false),
            ("a..b", false, false, false),
            ("ä", false, false, false),
        ] {
            assert_eq!(is_dns1123_label(name).is_empty(), label, "{name}");
            assert_eq!(is_dns1123_subdomain(name).is_empty(), subdomain, "{name}");
            assert_eq!(is_dns1035_label(name).is_empty(), dns1035, "{name}");
        }
    }

    #[test]
    fn prefixes_may_end_in_a_hyphen() {
        assert!(validate_name_prefix(NameRule::Dns1123Subdomain, "web-").is_empty());
        assert!(!validate_name_prefix(NameRule::Dns1123Subdomain, "-").is_empty());
        assert!(!validate_name_prefix(NameRule::Dns1123Subdomain, "ä-").is_empty());
    }

    #[test]
    fn qualified_names_have_an_optional_prefix() {
        for (value, fine) in [
            ("app", true),
            ("example.com/App_1.x", true),
            ("/app", false),
            ("a/", false),
            ("a/b/c", false),
            ("-a", false),
            ("Example.com/a", false),
        ] {
            assert_eq!(is_qualified_name(value).is_empty(), fine, "{value}");
        }
        assert_eq!(is_qualified_name(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert_eq!(is_qualified_name("/a"), ["prefix part must be non-empty"]);
    }

    #[test]
    fn small_rules() {
        assert!(is_label_value("").is_empty() && !is_label_value("a b").is_empty());
        assert!(is_env_var_name("a b").is_empty() && !is_env_var_name("a=b").is_empty());
        assert!(is_c_identifier("_a1").is_empty() && !is_c_identifier("1a").is_empty());
        assert!(is_config_map_key("a..b").is_empty() && !is_config_map_key("..a").is_empty());
        assert!(is_port_name("http-2").is_empty());
        assert_eq!(is_port_name("80"), ["must contain at least one letter (a-z)"]);
        assert_eq!(is_port_number(0), ["must be between 1 and 65535, inclusive"]);
        assert!(is_percent("25%").is_empty() && !is_percent("25").is_empty());
    }

    #[test]
    fn generated_names_fit_a_label() {
        let mut rng = rand::rng();
        let name = generate_name(&"a".repeat(70), &mut rng);
        assert_eq!(name.len(), 63);
        assert!(is_dns1123_label(&name).is_empty());
        assert!(generate_name("web-", &mut rng).starts_with("web-"));
        assert!(generate_name(&"ä".repeat(40), &mut rng).len() <= 63);
    }
}
