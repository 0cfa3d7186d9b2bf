//! JSONPath as kubectl has it: text with expressions in braces, `range`/`end`, filters, unions, slices, recursive descent.
//! It is older than RFC 9535 and differs from it (`k8s.io/client-go/util/jsonpath`).
//!
//! [`Template::parse`] makes nodes of the text ([`parse`]), [`Template::render`] walks an object with them ([`eval`]).

mod eval;
mod parse;

use serde_json::Value;

use eval::Walk;
use parse::Node;

/// Why a template cannot be read or does not fit an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub(crate) String);

/// A template, read.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    nodes: Vec<Node>,
}

impl Template {
    /// Reads text with expressions in braces.
    pub fn parse(text: &str) -> Result<Template, Error> {
        Ok(Template { nodes: parse::template(text)? })
    }

    /// Reads a single path with or without braces and leading dot, as `--sort-by` and custom columns take it.
    pub fn parse_path(text: &str) -> Result<Template, Error> {
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
        if inner.contains(['{', '}']) {
            return Err(Error(format!(
                "unexpected path string, expected a 'name1.name2' or '.name1.name2' or '{{name1.name2}}' or '{{.name1.name2}}', \
                 found {text:?}"
            )));
        }
        let dot = if inner.starts_with(['.', '[', '$', '@']) { "" } else { "." };
        Template::parse(&format!("{{{dot}{inner}}}"))
    }

    /// The text the template gives for an object. Keys that are not there give nothing.
    pub fn render(&self, object: &Value) -> Result<String, Error> {
        let mut text = String::new();
        Walk::new(object).render(&self.nodes, object, &mut text)?;
        Ok(text)
    }

    /// The values the template's expressions find in an object.
    pub fn find(&self, object: &Value) -> Result<Vec<Value>, Error> {
        Walk::new(object).find(&self.nodes, object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn store() -> Value {
        json!({
            "kind": "List",
            "items": [
                {"kind": "None", "metadata": {"name": "127.0.0.1", "labels": {"a.b/c": "dotted"}}, "ready": true, "n": 1},
                {"kind": "None", "metadata": {"name": "127.0.0.2"}, "ready": false, "n": 20, "nothing": null},
            ],
            "users": [{"name": "myself", "user": {}}, {"name": "e2e", "user": {"password": "secret"}}],
            "empty": [],
        })
    }

    #[test]
    fn templates_render_as_in_kubectl() {
        for (template, expected) in [
            ("plain text", "plain text"),
            ("kind is {.kind}", "kind is List"),
            ("{.items[*].metadata.name}", "127.0.0.1 127.0.0.2"),
            ("{.items[0].metadata.name}", "127.0.0.1"),
            ("{.items[-1].metadata.name}", "127.0.0.2"),
            ("{.items[0:1].n}", "1"),
            ("{.items[0:].n}", "1 20"),
            ("{.items[:2:2].n}", "1"),
            ("{.items[0,1].n}", "1 20"),
            ("{..name}", "127.0.0.1 127.0.0.2 myself e2e"),
            ("{.items[*]['metadata.name', 'n']}", "127.0.0.1 127.0.0.2 1 20"),
            (r#"{.users[?(@.name=="e2e")].user.password}"#, "secret"),
            ("{.users[?(@.user.password)].name}", "e2e"),
            ("{.items[?(@.n>1)].metadata.name}", "127.0.0.2"),
            ("{.items[?(@.ready==true)].n}", "1"),
            ("{.items[?(@.n!=1)].n}", "20"),
            (r"{.items[0].metadata.labels.a\.b/c}", "dotted"),
            (r"{.items[0].metadata.labels['a\.b/c']}", "dotted"),
            (r#"{range .items[*]}[{.metadata.name}, {.n}] {end}"#, "[127.0.0.1, 1] [127.0.0.2, 20] "),
            ("{range .items[*]}{.n}{\"\\n\"}{end}", "1\n20\n"),
            ("{range .items[*]}{.n}{'\\t'}{end}", "1\t20\t"),
            ("{range .items[*]}{range .metadata.labels}{@}{end};{end}", "{\"a.b/c\":\"dotted\"};;"),
            ("{range .items[*]}{$.kind}{end}", "ListList"),
            ("{@.kind}{$.kind}", "ListList"),
            ("{.users[1].user}", "{\"password\":\"secret\"}"),
            ("{.absent}{.absent.more}", ""),
            ("{.users[*].user.password}", "secret"),
            ("{.empty[*]}", ""),
            ("{.items[1].nothing}", "null"),
            ("{.users[*].name}{'|'}{.kind}", "myself e2e|List"),
            (
                "{}",
                "{\"empty\":[],\"items\":[{\"kind\":\"None\",\"metadata\":{\"labels\":{\"a.b/c\":\"dotted\"},\"name\":\"127.0.0.1\"},\"n\":1,\"ready\":true},{\"kind\":\"None\",\"metadata\":{\"name\":\"127.0.0.2\"},\"n\":20,\"nothing\":null,\"ready\":false}],\"kind\":\"List\",\"users\":[{\"name\":\"myself\",\"user\":{}},{\"name\":\"e2e\",\"user\":{\"password\":\"secret\"}}]}",
            ),
        ] {
            let rendered = Template::parse(template).and_then(|t| t.render(&store()));
            // Whether serde_json keeps the order of keys depends on its features; ours is not the place to care.
            if template != "{}" {
                assert_eq!(rendered.as_deref(), Ok(expected), "{template}");
            } else {
                assert_eq!(serde_json::from_str::<Value>(&rendered.unwrap()).unwrap(), store());
            }
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (template, expected) in [
            ("{.items", "unclosed action"),
            ("{.items[0}", "unterminated array"),
            ("{end}", "not in range, nothing to end"),
            ("{range .items[*]}x", "unterminated range"),
            ("{.items[x]}", "invalid array index x"),
            ("{.items[::0]}", "step must be > 0"),
            ("{\"open}", "unterminated quoted string"),
            ("{.items[?(@.n==)]}", "unrecognized operand \"\""),
            ("{.empty[0]}", "array index out of bounds: index 0, length 0"),
            ("{.kind[0]}", "\"List\" is not array or slice"),
        ] {
            let error = Template::parse(template).and_then(|t| t.render(&store())).unwrap_err();
            assert_eq!(error.0, expected, "{template}");
        }
    }

    #[test]
    fn single_paths_need_no_braces() {
        for path in [".items[0].n", "items[0].n", "{.items[0].n}", "{items[0].n}"] {
            assert_eq!(Template::parse_path(path).unwrap().find(&store()).unwrap(), [json!(1)], "{path}");
        }
        assert!(Template::parse_path("{.a}{.b}").is_err());
    }

    proptest! {
        #[test]
        fn no_template_panics(text in r#"[{}\[\]().?@$*:,'"\\ a-c0-9<=!|-]{0,40}"#) {
            if let Ok(template) = Template::parse(&text) {
                let _ = template.render(&json!({"a": [1, {"b": "c"}], "b": {"a": null}}));
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = Template::parse_path(&text);
            let _ = Template::parse(&text);
        }
    }
}
