//! Texts that are nothing.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

/// What an object's name can never be, whatever its kind.
pub(super) const NAMES: &[&str] = &[
    "a/b",
    "..",
    ".",
    "%",
    "a%2fb",
    "../../etc",
    "a b/",
    "/",
    "//",
    "x%00/",
    "\u{0}/",
    "é/",
    "a\n/b",
    "-/-",
    "💥%",
    "%2e%2e",
    "a/../b",
    "?/",
    "#/",
    "\\/",
];
/// What no label or annotation key, finalizer or resource name is.
pub(super) const KEYS: &[&str] = &[
    "", "/", "a/", "/a", "a/b/c", "-a", "a-", "_", ".a", "a b", "a\tb", "ä", "a//b", "A_/b", "a..b/c", "a=b", "a,b",
    "(a)", "!a", "\u{0}", "💥", "a\nb",
];
/// What no label value is.
pub(super) const LABEL_VALUES: &[&str] =
    &["-a", "a-", "_", ".", "a b", "a/b", "ä", "a\tb", "a,b", "a=b", "a:b", "\u{0}", "💥"];
/// What no label selector is.
pub(super) const SELECTORS: &[&str] = &[
    "a b",
    "a b c",
    "!",
    "!!a",
    "=",
    "==",
    "!=",
    "=a",
    "a=b=c",
    "a in",
    "a in b",
    "a in (",
    "a in ()x",
    "a notin",
    "a,,b",
    ",a",
    "a,",
    "(a)",
    "a)",
    "a>b",
    "a<",
    "a>1.5",
    "a in (b",
    "a in (b,c",
    "a in (b))",
    "-a",
    "a=-",
    "a-=b",
    "/a",
    "a/b/c=d",
    "!a=b",
    "a=b c",
    "ä=b",
    "a=ä",
    "a in (ä)",
    "a\u{0}=b",
    "a;b",
    "a|b",
    "a&b",
    "\"a\"",
    "'a'",
    "{}",
    "[]",
    "a in (-)",
    "!a b",
];
/// What no field selector is, or none of a kind that is served.
pub(super) const FIELD_SELECTORS: &[&str] = &[
    "a",
    "a=b",
    "=",
    "!=",
    "a!",
    "metadata",
    "metadata.name",
    "metadata.uid=x",
    "metadata.labels.a=b",
    "spec=x",
    "x=y",
    "metadata.name=a=b",
    "metadata.name=a\\b",
    "metadata.name=a\\",
    "metadata.name>a",
    "metadata.name in (a)",
    "==b",
    "metadata.name=a,b",
    "metadata..name=a",
    ".metadata.name=a",
    "METADATA.NAME=a",
    "metadata/name=a",
    "ä=b",
    "\u{0}=b",
    "spec.containers=x",
    "spec.nothing=x",
    "status.nothing!=x",
    "metadata.name=a,,spec.nothing=b",
    "spec.nothing==a",
    "metadata.annotations=x",
];
/// What is no whole number of 64 bits.
pub(super) const NUMBERS: &[&str] = &[
    "x",
    "1.5",
    "1e3",
    "0x10",
    "--1",
    "1 ",
    " 1",
    "1,000",
    "9223372036854775808",
    "99999999999999999999",
    "1_000",
    "ten",
    "1m",
    "NaN",
    "∞",
    "true",
    "\u{0}",
    "1;2",
    "1\n",
    "+",
    "-",
];
/// What is no resource version.
pub(super) const REVISIONS: &[&str] = &[
    "x",
    "-1",
    "1.5",
    "1e3",
    "0x10",
    "--1",
    "1 ",
    "99999999999999999999",
    "18446744073709551616",
    "1_0",
    "NaN",
    "latest",
    "1,2",
    "\u{0}",
    "💥",
    "\"1\"",
    "[1]",
    "{}",
    "null",
    "true",
];
/// What no continue token is.
pub(super) const CONTINUES: &[&str] = &[
    "x",
    "!!",
    "e30",
    "bm90IGpzb24",
    "bnVsbA",
    "W10",
    "%%%",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
    "eyJydiI6MX0",
    "MQ",
    "IiI",
    // {"v":"meta.k8s.io/v1","rv":"1","start":"a"}, rv 0, no start, start a number, version 2, a way up
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6IjEiLCJzdGFydCI6ImEifQ",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MX0",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOjd9",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjIiLCJydiI6MSwic3RhcnQiOiJhIn0",
    "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi8uLi9zZWNyZXRzLyJ9",
];
/// Media types nobody here reads or writes.
pub(super) const MEDIA_TYPES: &[&str] = &[
    "text/html",
    "application/xml",
    "application/cbor",
    "image/png",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "application/jsonp",
    "json",
    "application/",
    "/json",
    "application/json-patch",
    "application/octet-stream",
    "a",
    ";;;",
    "x/y;q",
    "application/vnd.kubernetes.protobuff",
];
/// Bodies that are no object in any encoding.
pub(super) fn bodies() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, n: usize| open.repeat(n).into_bytes();
    vec![
        ("nothing", Vec::new()),
        ("a blank", b" ".to_vec()),
        ("a number", b"7".to_vec()),
        ("a string", b"\"x\"".to_vec()),
        ("true", b"true".to_vec()),
        ("an empty list", b"[]".to_vec()),
        ("a list", b"[{}]".to_vec()),
        ("a brace", b"{".to_vec()),
        ("a closing brace", b"}".to_vec()),
        ("two objects", b"{}{}".to_vec()),
        ("something behind", b"{}x".to_vec()),
        ("no value", br#"{"kind":}"#.to_vec()),
        ("no key", br#"{:1}"#.to_vec()),
        ("a key that is none", br#"{kind:"x"}"#.to_vec()),
        ("single quotes", b"{'kind':'x'}".to_vec()),
        ("a comma too many", br#"{"kind":"x",}"#.to_vec()),
        ("a comment", b"{/*x*/}".to_vec()),
        ("half an escape", br#"{"kind":"\u12"#.to_vec()),
        ("half a surrogate", br#"{"kind":"\ud800"}"#.to_vec()),
        ("a control character", b"{\"kind\":\"a\x01b\"}".to_vec()),
        ("a NUL", b"\0".to_vec()),
        ("no UTF-8", vec![0xff, 0xfe, 0xfd]),
        ("no UTF-8 in a string", b"{\"metadata\":{\"name\":\"a\xffb\"}}".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", b"{\0}\0".to_vec()),
        ("a number beyond all", br#"{"spec":1e999}"#.to_vec()),
        ("a long number", format!(r#"{{"spec":{}}}"#, "9".repeat(2000)).into_bytes()),
        ("infinity", br#"{"spec":Infinity}"#.to_vec()),
        ("NaN", br#"{"spec":NaN}"#.to_vec()),
        ("deep lists", deep("[", 20_000)),
        ("deep objects", deep(r#"{"spec":"#, 10_000)),
        ("lists just too deep", [deep("[", 200), deep("]", 200)].concat()),
        ("protobuf", b"k8s\0\n\x0f\n\x02v1".to_vec()),
        ("gzip", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]),
        ("a form", b"kind=Pod&name=x".to_vec()),
        ("HTML", b"<html></html>".to_vec()),
    ]
}

/// Bodies that are no YAML, or too much of it.
pub(super) fn yaml_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (this, before) in "bcdefghi".chars().zip("abcdefgh".chars()) {
        bomb.push_str(&format!("{this}: &{this} [{}]\n", vec![format!("*{before}"); 9].join(",")));
    }
    vec![
        ("an alias bomb", bomb.into_bytes()),
        ("an alias of itself", b"a: &a\n  b: *a\n".to_vec()),
        ("an unknown alias", b"a: *b\n".to_vec()),
        ("a tab", b"metadata:\n\tname: x\n".to_vec()),
        ("an open quote", b"kind: \"x\n".to_vec()),
        ("an open list", b"kind: [a, b\n".to_vec()),
        ("a map in a word", b"kind: a: b\n".to_vec()),
        ("a key twice", b"kind: a\nkind: b\n".to_vec()),
        ("the first of two documents", b"kind: a\n---\n{}\n".to_vec()),
        ("deep flow", "[".repeat(10_000).into_bytes()),
        ("deep blocks", (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect::<String>().into_bytes()),
        ("no UTF-8", b"kind: \xff\xfe\n".to_vec()),
        ("a word", b"x\n".to_vec()),
        ("a list", b"- a\n- b\n".to_vec()),
        ("bad indentation", b"a:\n    b: c\n  d: e\n".to_vec()),
        ("an unknown tag's map key", b"? [a, b]\n: c\n".to_vec()),
        ("a directive", b"%YAML 9.9\n---\n%\n".to_vec()),
    ]
}

/// Seeded chance: the same seed makes the same requests.
pub(super) struct Chance(StdRng);

impl Chance {
    pub(super) fn new(seed: u64) -> Chance {
        Chance(StdRng::seed_from_u64(seed))
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub(super) fn pick<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len())]
    }

    /// A few of many.
    pub(super) fn some<T>(&mut self, mut of: Vec<T>, n: usize) -> Vec<T> {
        while of.len() > n {
            let at = self.below(of.len());
            of.swap_remove(at);
        }
        of
    }

    /// Lower case letters and digits.
    pub(super) fn word(&mut self) -> String {
        (0..8).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[self.below(36)])).collect()
    }

    /// Any value, of any type.
    pub(super) fn value(&mut self) -> Value {
        match self.below(12) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(-1),
            3 => json!(i64::MAX),
            4 => json!(0),
            5 => json!(1.5),
            6 => json!(""),
            7 => json!("x".repeat(300)),
            8 => json!([]),
            9 => json!({}),
            10 => json!([{}]),
            _ => json!(self.pick(KEYS)),
        }
    }

    /// `bytes` damaged in one to three places.
    pub(super) fn damage(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len().max(1));
            let end = (at + self.below(20)).min(bytes.len());
            match self.below(5) {
                0 if !bytes.is_empty() => bytes[at] = u8::try_from(self.below(256)).unwrap(),
                1 => drop(bytes.drain(at.min(end)..end)),
                2 => {
                    let piece = bytes[at.min(end)..end].to_vec();
                    drop(bytes.splice(at..at, piece));
                }
                3 => {
                    let token =
                        self.pick(&["{", "}", "[", "]", "null", ",", "\"", "\\", "1e9", "-", ":", "\0", "\u{ff}"]);
                    drop(bytes.splice(at..at, token.bytes()));
                }
                _ => bytes.truncate(at),
            }
        }
        bytes
    }
}
