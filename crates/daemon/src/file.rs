//! `--config`: the flags of a daemon in a file, YAML of one level. The name of a flag is the key; a list gives a flag
//! several times.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

/// The largest file that is read.
const BYTES_MAX: u64 = 1 << 20;

/// A flag of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The file.
    pub file: PathBuf,
    /// The line the flag is on, counted from 1.
    pub line: u64,
    /// The flag's name, without dashes.
    pub name: String,
    /// Its value, or values.
    pub values: Vec<String>,
}

impl Entry {
    /// `FILE:LINE`, as editors and compilers write it.
    pub fn place(&self) -> String {
        format!("{}:{}", self.file.display(), self.line)
    }
}

/// Reads a file of flags.
pub fn read(file: &Path) -> Result<Vec<Entry>> {
    let unreadable = || format!("--config {}: cannot be read", file.display());
    let length = std::fs::metadata(file).with_context(unreadable)?.len();
    ensure!(length <= BYTES_MAX, "--config {}: too large, at most {BYTES_MAX} bytes are read", file.display());
    let text = std::fs::read_to_string(file).with_context(unreadable)?;
    parse(file, &text)
}

/// The flags in a text. An empty one has none.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Entry>> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    // Words such as `off` and `yes` stay words: `log: off` is a filter, not a boolean.
    let options = serde_saphyr::options! { strict_booleans: true };
    let pairs: Pairs = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |l| l.line());
        let said = error.without_snippet().to_string();
        anyhow::anyhow!("{}:{line}: {}", file.display(), said.lines().next().unwrap_or("not YAML"))
    })?;
    let mut entries: Vec<Entry> = Vec::new();
    for (name, value) in pairs.0 {
        let line = name.referenced.line();
        let place = format!("{}:{line}", file.display());
        if let Some(first) = entries.iter().find(|e| e.name == name.value) {
            bail!("{place}: {:?} is there already, on line {}", name.value, first.line);
        }
        let values = values(value.value).with_context(|| format!("{place}: {:?}", name.value))?;
        entries.push(Entry { file: file.to_owned(), line, name: name.value, values });
    }
    Ok(entries)
}

fn values(value: Value) -> Result<Vec<String>> {
    match value {
        Value::Array(list) => list.into_iter().map(scalar).collect(),
        one => Ok(vec![scalar(one)?]),
    }
}

fn scalar(value: Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::Null => bail!("no value is given; remove the line to have the default"),
        Value::Array(_) | Value::Object(_) => bail!("a value or a list of values is wanted, not something nested"),
    }
}

/// A mapping with the places of its keys, in the order of the file.
struct Pairs(Vec<(Spanned<String>, Spanned<Value>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Pairs, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pairs;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("lines of the form \"name: value\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        match parse(Path::new("m.yaml"), text) {
            Ok(entries) => {
                let shown = |e: &Entry| format!("{}:{}={}", e.line, e.name, e.values.join("|"));
                entries.iter().map(shown).collect::<Vec<_>>().join(" ")
            }
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn each_flag_has_its_line() {
        let table = [
            ("", ""),
            ("# nothing\n\n", ""),
            ("max-pods: 7\n", "1:max-pods=7"),
            ("# first\nlog: off\n\nextend: true\n", "2:log=off 4:extend=true"),
            ("server: https://10.0.0.1:6443 # the master\n", "1:server=https://10.0.0.1:6443"),
            (
                "etcd-servers:\n- http://a:1\n- http://b:2\nlog: info\n",
                "1:etcd-servers=http://a:1|http://b:2 4:log=info",
            ),
            ("labels: [disk=ssd, rack=1]\n", "1:labels=disk=ssd|rack=1"),
            ("range: \"30000-32767\"\n", "1:range=30000-32767"),
            ("ttl: 5m\n", "1:ttl=5m"),
        ];
        for (text, expected) in table {
            assert_eq!(said(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_file_of_flags_is_refused_with_its_line() {
        let table = [
            ("log: info\nlog: debug\n", "m.yaml:2:"),
            ("a: 1\nlog:\n", "m.yaml:2: \"log\": no value is given"),
            ("a: 1\nlog: {b: 1}\n", "m.yaml:2: \"log\": a value or a list"),
            ("a: 1\nb: [\n", "m.yaml:"),
            ("just words\n", "m.yaml:1:"),
            ("- a\n- b\n", "m.yaml:1:"),
            ("a: 1\n\tb: 2\n", "m.yaml:1:"),
        ];
        for (text, expected) in table {
            assert!(said(text).starts_with(expected), "{text:?}: {}", said(text));
        }
    }
}
