//! The query of a request: percent decoding, and the options every verb shares.

use std::num::IntErrorKind;

use crate::status::ApiError;

/// The decoded pairs of a query string, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: Option<&str>) -> Query {
        let pairs = text.unwrap_or("").split('&').filter(|p| !p.is_empty());
        Query(
            pairs
                .filter(|pair| is_well_formed(pair))
                .map(|pair| {
                    let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(key, true), decode(value, true))
                })
                .collect(),
        )
    }

    /// The first value of `key`; `None` when it is not given or empty.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Whether `key` is there, also without a value.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// Every value of `key`.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A switch: given without a value, `true` and `1` are on; upstream treats everything but `false` and `0` so.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0.iter().find(|(k, _)| k == key).is_some_and(|(_, v)| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A whole number, refused in the words of Go's library.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, ApiError> {
        let parse = |text: &str| {
            text.parse::<i64>().map_err(|error| {
                let problem = match error.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                    _ => "invalid syntax",
                };
                ApiError::BadRequest(format!("strconv.ParseInt: parsing {text:?}: {problem}"))
            })
        };
        // Unlike a text, a number that is said to be empty is none.
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| parse(v)).transpose()
    }

    /// A number of which only what is greater than nothing has a meaning.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, ApiError> {
        Ok(self.integer(key)?.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0))
    }

    /// Whether the request must leave everything as it is; only `All` is known.
    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        dry_run(self.all("dryRun").filter(|v| !v.is_empty()))
    }

    /// What to do about fields the server does not know.
    pub(crate) fn field_validation(&self) -> Result<FieldValidation, ApiError> {
        match self.get("fieldValidation") {
            None | Some("Warn") => Ok(FieldValidation::Warn),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some(other) => Err(ApiError::BadRequest(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// Reads `dryRun` values, from a query or from DeleteOptions.
pub(crate) fn dry_run<'a>(mut values: impl Iterator<Item = &'a str>) -> Result<bool, ApiError> {
    match values.next() {
        None => Ok(false),
        Some("All") => values.all(|v| v == "All").then_some(true).ok_or_else(|| invalid_dry_run("All")),
        Some(other) => Err(invalid_dry_run(other)),
    }
}

fn invalid_dry_run(value: &str) -> ApiError {
    ApiError::BadRequest(format!("dryRun: Unsupported value: {value:?}: supported values: \"All\""))
}

/// `fieldValidation`: what happens to unknown and duplicate fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

/// Go's `ParseQuery` leaves out a pair with a broken escape or a semicolon, and goes on.
fn is_well_formed(pair: &str) -> bool {
    let escapes = pair.match_indices('%').all(|(at, _)| pair.as_bytes().get(at + 1..at + 3).and_then(hex).is_some());
    escapes && !pair.contains(';')
}

/// Undoes percent encoding; malformed escapes stay as they are. In queries `+` is a space.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    if !text.bytes().any(|b| b == b'%' || b == b'+') {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let escaped = bytes.get(i + 1..i + 3).filter(|_| bytes[i] == b'%').and_then(hex);
        match (bytes[i], escaped) {
            (_, Some(byte)) => {
                out.push(byte);
                i += 2;
            }
            (b'+', None) if plus_is_space => out.push(b' '),
            (byte, None) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// Escapes everything that means something in a query or path.
pub(crate) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn hex(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok().filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse(Some(
            "labelSelector=app%3Dweb%2Ctier+in+(a)&watch&tty=False&stdin=0&limit=5&bad=%zz&cut=%4&semi=a;b&text=zz%254",
        ));
        assert_eq!(query.get("labelSelector"), Some("app=web,tier in (a)"));
        assert!(query.flag("watch") && !query.flag("absent"));
        assert!(!query.flag("tty") && !query.flag("stdin"), "as Python and Go write it");
        assert_eq!(query.number("limit").unwrap(), Some(5));
        let error = query.number("text").unwrap_err().to_string();
        assert_eq!(error, r#"strconv.ParseInt: parsing "zz%4": invalid syntax"#);
        let far = Query::parse(Some("limit=99999999999999999999&timeoutSeconds=-5"));
        assert!(far.number("limit").unwrap_err().to_string().ends_with("value out of range"));
        assert_eq!(far.number("timeoutSeconds").unwrap(), None);
        let empty = Query::parse(Some("limit=")).number("limit").unwrap_err().to_string();
        assert_eq!(empty, r#"strconv.ParseInt: parsing "": invalid syntax"#);
        for broken in ["bad", "cut", "semi"] {
            assert!(!query.has(broken), "{broken}");
        }
        assert!(query.has("watch"));
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let text = "sh -c 'echo a+b=c&d%41 \u{e9}\n'";
        assert_eq!(decode(&encode(text), true), text);
        assert_eq!(encode("a b/c"), "a%20b%2Fc");
    }

    #[test]
    fn dry_run_knows_only_all() {
        assert!(Query::parse(Some("dryRun=All")).dry_run().unwrap());
        assert!(!Query::parse(Some("dryRun=")).dry_run().unwrap());
        assert!(Query::parse(Some("dryRun=Some")).dry_run().is_err());
    }
}
