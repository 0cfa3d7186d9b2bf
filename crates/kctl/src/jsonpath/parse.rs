//! From text to nodes.

use serde_json::{Number, Value};

use super::Error;

/// Unions and filters hold expressions that hold unions and filters; deeper than this is a mistake or an attack.
const DEPTH_MAX: usize = 16;

/// One step of an expression or of the template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    /// Text outside braces, or quoted inside.
    Text(String),
    /// An expression in braces: each step starts from what the one before found.
    List(Vec<Node>),
    /// `{range LIST}` … `{end}`.
    Range(Vec<Node>, Vec<Node>),
    /// `.name`.
    Field(String),
    /// `[start:end:step]`.
    Slice(Slice),
    /// `[a,b]`.
    Union(Vec<Vec<Node>>),
    /// `[?(left op right)]`.
    Filter(Operand, Comparison, Operand),
    /// `.*` or `[*]`.
    Wildcard,
    /// `..`.
    Recursive,
    /// `$`: back to the whole object.
    Root,
}

/// Which elements of an array. A single index is a slice of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) step: i64,
    pub(super) single: bool,
}

/// One side of a filter.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    Literal(Value),
    Path(Vec<Node>),
}

/// What a filter asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Exists,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer signs first: `<=` is not `<` before `=`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

fn error<T>(message: impl Into<String>) -> Result<T, Error> {
    Err(Error(message.into()))
}

/// Reads a whole template.
pub(super) fn template(text: &str) -> Result<Vec<Node>, Error> {
    let mut rest = text;
    // The innermost open range is last: its list and, so far, its body.
    let mut open: Vec<(Vec<Node>, Vec<Node>)> = Vec::new();
    let mut nodes = Vec::new();
    while !rest.is_empty() {
        let Some(brace) = rest.find('{') else {
            nodes.push(Node::Text(rest.to_owned()));
            break;
        };
        if brace > 0 {
            nodes.push(Node::Text(rest[..brace].to_owned()));
        }
        let (action, after) = action(&rest[brace + 1..])?;
        rest = after;
        if let Some(list) = keyword(action, "range") {
            open.push((expression(list, 0)?, std::mem::take(&mut nodes)));
        } else if keyword(action, "end").is_some_and(|more| more.trim().is_empty()) {
            let Some((list, outer)) = open.pop() else { return error("not in range, nothing to end") };
            let body = std::mem::replace(&mut nodes, outer);
            nodes.push(Node::Range(list, body));
        } else {
            nodes.push(Node::List(expression(action, 0)?));
        }
    }
    if open.is_empty() { Ok(nodes) } else { error("unterminated range") }
}

/// Splits at the brace that closes the action, minding quotes.
fn action(text: &str) -> Result<(&str, &str), Error> {
    let end = closing(text, '}', false)?.ok_or_else(|| Error("unclosed action".to_owned()))?;
    Ok((&text[..end], &text[end + 1..]))
}

/// What follows `word` at the start of `action`, if it is there as a whole word.
fn keyword<'a>(action: &'a str, word: &str) -> Option<&'a str> {
    let rest = action.trim_start().strip_prefix(word)?;
    (!rest.starts_with(|c: char| c.is_alphanumeric())).then_some(rest)
}

/// Where `close` stands outside quotes (and, with `nested`, outside inner brackets).
fn closing(text: &str, close: char, nested: bool) -> Result<Option<usize>, Error> {
    let (mut quote, mut depth, mut escaped) = (None, 0usize, false);
    for (i, c) in text.char_indices() {
        match quote {
            _ if escaped => escaped = false,
            _ if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == close && depth == 0 => return Ok(Some(i)),
            None if nested && c == '[' => depth += 1,
            None if nested && c == ']' => depth -= 1,
            None => {}
        }
    }
    if quote.is_some() { error("unterminated quoted string") } else { Ok(None) }
}

/// Reads the steps of one expression.
fn expression(text: &str, depth: usize) -> Result<Vec<Node>, Error> {
    if depth > DEPTH_MAX {
        return error("expression is nested too deeply");
    }
    let mut nodes = Vec::new();
    let mut rest = text.trim();
    while let Some(first) = rest.chars().next() {
        let tail = &rest[first.len_utf8()..];
        rest = match first {
            c if c.is_whitespace() => tail,
            '@' => tail,
            '$' => {
                nodes.push(Node::Root);
                tail
            }
            '.' if tail.starts_with('.') => {
                nodes.push(Node::Recursive);
                // `..name` and `..[0]`: the second dot begins the next step.
                if tail[1..].starts_with('[') { &tail[1..] } else { tail }
            }
            '.' => field(tail, &mut nodes)?,
            '[' => {
                let end = closing(tail, ']', true)?.ok_or_else(|| Error("unterminated array".to_owned()))?;
                nodes.extend(bracket(&tail[..end], depth)?);
                &tail[end + 1..]
            }
            '"' | '\'' => {
                let (literal, after) = quoted(rest)?;
                nodes.push(Node::Text(literal));
                after
            }
            '*' => {
                nodes.push(Node::Wildcard);
                tail
            }
            c if is_name(c) => field(rest, &mut nodes)?,
            c => return error(format!("unrecognized character in action: U+{:04X} '{c}'", c as u32)),
        };
    }
    Ok(nodes)
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '\\')
}

/// Reads a name, whose backslashes protect dots and the like; returns what follows.
fn field<'a>(text: &'a str, nodes: &mut Vec<Node>) -> Result<&'a str, Error> {
    if let Some(rest) = text.strip_prefix('*') {
        nodes.push(Node::Wildcard);
        return Ok(rest);
    }
    let (mut name, mut escaped) = (String::new(), false);
    let mut end = text.len();
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => {
                name.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '.' | '[' | '"' | '\'' | '$' | '@' | '=' | '!' | '<' | '>' | '{' | '}' | '(' | ')' | ',' => {
                end = i;
                break;
            }
            c if c.is_whitespace() => {
                end = i;
                break;
            }
            c => name.push(c),
        }
    }
    if !name.is_empty() {
        nodes.push(Node::Field(name));
    }
    Ok(&text[end..])
}

/// What stands between square brackets.
fn bracket(text: &str, depth: usize) -> Result<Vec<Node>, Error> {
    let text = text.trim();
    if let Some(filter) = text.strip_prefix("?(").and_then(|t| t.strip_suffix(')')) {
        return Ok(vec![filter_node(filter, depth + 1)?]);
    }
    if text == "*" {
        return Ok(vec![Node::Wildcard]);
    }
    let parts = split_commas(text);
    if parts.len() > 1 {
        let branches: Result<Vec<_>, _> = parts.iter().map(|part| bracket_part(part.trim(), depth + 1)).collect();
        return Ok(vec![Node::Union(branches?)]);
    }
    bracket_part(text, depth + 1)
}

/// One member of a union, or the only thing in the brackets.
fn bracket_part(text: &str, depth: usize) -> Result<Vec<Node>, Error> {
    if depth > DEPTH_MAX {
        return error("expression is nested too deeply");
    }
    let inner = text.strip_prefix('\'').and_then(|t| t.strip_suffix('\''));
    if let Some(inner) = inner.or_else(|| text.strip_prefix('"').and_then(|t| t.strip_suffix('"'))) {
        // As in kubectl the quotes hold a path: dots separate unless escaped.
        return expression(&format!(".{inner}"), depth);
    }
    if text == "*" {
        return Ok(vec![Node::Wildcard]);
    }
    slice(text).map(|slice| vec![Node::Slice(slice)])
}

fn split_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut quote) = (Vec::new(), 0, None);
    for (i, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn slice(text: &str) -> Result<Slice, Error> {
    let parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let number = |i: usize| match parts.get(i) {
        None | Some(&"") => Ok(None),
        Some(part) => part.parse::<i64>().map(Some).map_err(|_| Error(format!("invalid array index {text}"))),
    };
    let (start, end, step) = (number(0)?, number(1)?, number(2)?.unwrap_or(1));
    if parts.len() > 3 || (parts.len() == 1 && start.is_none()) {
        return error(format!("invalid array index {text}"));
    }
    if step <= 0 {
        return error("step must be > 0");
    }
    Ok(Slice { start, end, step, single: parts.len() == 1 })
}

fn filter_node(text: &str, depth: usize) -> Result<Node, Error> {
    let mut found = None;
    let mut quote = None;
    for (i, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None => found = COMPARISONS.iter().find(|(sign, _)| text[i..].starts_with(sign)).map(|(s, c)| (i, *s, *c)),
            Some(_) => {}
        }
        if found.is_some() {
            break;
        }
    }
    let Some((at, sign, comparison)) = found else {
        return Ok(Node::Filter(operand(text, depth)?, Comparison::Exists, Operand::Literal(Value::Null)));
    };
    Ok(Node::Filter(operand(&text[..at], depth)?, comparison, operand(&text[at + sign.len()..], depth)?))
}

fn operand(text: &str, depth: usize) -> Result<Operand, Error> {
    let text = text.trim();
    let literal = match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if text.starts_with(['"', '\'']) => Value::String(quoted(text)?.0),
        _ if text.starts_with(['@', '$', '.']) => return Ok(Operand::Path(expression(text, depth)?)),
        _ => match (text.parse::<i64>(), text.parse::<f64>().ok().and_then(Number::from_f64)) {
            (Ok(whole), _) => Value::from(whole),
            (_, Some(number)) => Value::Number(number),
            _ => return error(format!("unrecognized operand {text:?}")),
        },
    };
    Ok(Operand::Literal(literal))
}

/// Reads a quoted string with Go's escapes; returns it and what follows.
fn quoted(text: &str) -> Result<(String, &str), Error> {
    let mut chars = text.char_indices();
    let Some((_, quote)) = chars.next() else { return error("unterminated quoted string") };
    let mut value = String::new();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other)) => value.push(other),
                None => break,
            },
            c if c == quote => return Ok((value, &text[i + c.len_utf8()..])),
            c => value.push(c),
        }
    }
    error("unterminated quoted string")
}
