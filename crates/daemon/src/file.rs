//! `--config`: the flags of a daemon in a file, YAML of one level. The name of a flag is the key; a list gives a flag
//! several times.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
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
    let options = || serde_saphyr::options! { strict_booleans: true };
    let wrong = |error: serde_saphyr::Error| {
        let line = error.location().map_or(1, |l| l.line());
        let said = error.without_snippet().to_string();
        anyhow::anyhow!("{}:{line}: {}", file.display(), said.lines().next().unwrap_or("not YAML"))
    };
    let pairs: Pairs<Spanned<Shape>> = serde_saphyr::from_str_with_options(text, options()).map_err(wrong)?;
    let mut shapes = Vec::new();
    for (i, (name, shape)) in pairs.0.iter().enumerate() {
        let place = format!("{}:{}", file.display(), name.referenced.line());
        if let Some((first, _)) = pairs.0[..i].iter().find(|(before, _)| before.value == name.value) {
            bail!("{place}: {:?} is there already, on line {}", name.value, first.referenced.line());
        }
        shape.value.check().with_context(|| format!("{place}: {:?}", name.value))?;
        shapes.push(matches!(shape.value, Shape::List(_)));
    }
    // Read again as the text it is: what looks like a number (`007`, `1e3`) reaches the flag as it was written.
    let values =
        serde_saphyr::with_deserializer_from_str_with_options(text, options(), |de| Values(&shapes).deserialize(de));
    let values = values.map_err(wrong)?;
    let entry = |((name, _), values): ((Spanned<String>, Spanned<Shape>), Vec<String>)| {
        let line = name.referenced.line();
        Entry { file: file.to_owned(), line, name: name.value, values }
    };
    Ok(pairs.0.into_iter().zip(values).map(entry).collect())
}

/// What a value is, whatever it says.
enum Shape {
    Nothing,
    Scalar,
    List(Vec<Shape>),
    Nested,
}

impl Shape {
    fn check(&self) -> Result<()> {
        match self {
            Shape::Scalar => Ok(()),
            Shape::Nothing => bail!("no value is given; remove the line to have the default"),
            Shape::Nested => bail!("a value or a list of values is wanted, not something nested"),
            Shape::List(list) => list.iter().try_for_each(|item| match item {
                Shape::List(_) => Shape::Nested.check(),
                item => item.check(),
            }),
        }
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Shape, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Shape;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("a value or a list of values")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
                Ok(Shape::Scalar)
            }

            fn visit_unit<E>(self) -> Result<Shape, E> {
                Ok(Shape::Nothing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Shape, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Shape::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Shape::Nested)
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// A mapping with the places of its keys, in the order of the file.
struct Pairs<T>(Vec<(Spanned<String>, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pairs<T>, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Pairs<T>;

            fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
                to.write_str("lines of the form \"name: value\"")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs<T>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(Reader(std::marker::PhantomData))
    }
}

/// The values of a mapping as text, of which it is known whether each is a list.
struct Values<'a>(&'a [bool]);

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<Vec<String>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<Vec<String>>;

    fn expecting(&self, to: &mut std::fmt::Formatter) -> std::fmt::Result {
        to.write_str("lines of the form \"name: value\"")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        for is_list in self.0 {
            if map.next_key::<IgnoredAny>()?.is_none() {
                break;
            }
            values.push(if *is_list { map.next_value()? } else { vec![map.next_value()?] });
        }
        // The end of the mapping is read, too.
        map.next_key::<IgnoredAny>()?;
        Ok(values)
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
            (
                "a: 007\nb: 1e3\nc: 1.50\nd: 0x1F\ne: 1_000\nf: 123456789012345678901234567890\n",
                "1:a=007 2:b=1e3 3:c=1.50 4:d=0x1F 5:e=1_000 6:f=123456789012345678901234567890",
            ),
            ("a: \"true\"\nb: true\nc: [01, 1.0, yes]\nd: '~'\n", "1:a=true 2:b=true 3:c=01|1.0|yes 4:d=~"),
            ("token: 123e45.0123456789abcdef\nx: +5\n", "1:token=123e45.0123456789abcdef 2:x=+5"),
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
            ("a: 1\nlog: [b, [c]]\n", "m.yaml:2: \"log\": a value or a list"),
            ("a: 1\nlog: [b, ~]\n", "m.yaml:2: \"log\": no value is given"),
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
