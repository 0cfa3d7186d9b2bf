//! The printer: indentation, line width and scalar styles of Go's YAML library (`sigs.k8s.io/yaml/goyaml.v2`).

use serde_json::{Map, Number, Value};

use super::scalar::{Style, style};

/// Columns after which a scalar with blanks goes on in the next line.
const BEST_WIDTH: usize = 80;
/// Keys longer than this, in bytes, are printed behind a question mark.
const SIMPLE_KEY_LENGTH: usize = 128;

/// Prints one document the way `sigs.k8s.io/yaml` does: keys in natural order, two spaces, quotes only where needed.
pub fn to_string(value: &Value) -> String {
    let mut printer = Printer::default();
    printer.node(value, 0);
    if printer.column > 0 {
        printer.out.push('\n');
    }
    printer.out
}

#[derive(Default)]
struct Printer {
    out: String,
    column: usize,
}

impl Printer {
    fn put(&mut self, text: &str) {
        self.out.push_str(text);
        self.column += text.chars().count();
    }

    fn put_char(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }

    fn newline(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    /// Goes to column `indent` of a new line; a block scalar may have ended the old one already.
    fn next_line(&mut self, indent: usize) {
        if self.column > 0 {
            self.newline();
        }
        self.put(&" ".repeat(indent));
    }

    /// A value where the cursor is; maps and lists start on this very line, at column `indent`.
    fn node(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => self.map(map, indent),
            Value::Array(list) if !list.is_empty() => self.list(list, indent),
            Value::Object(_) => self.put("{}"),
            Value::Array(_) => self.put("[]"),
            Value::Null => self.put("null"),
            Value::Bool(b) => self.put(if *b { "true" } else { "false" }),
            Value::Number(number) => self.put(&format_number(number)),
            Value::String(text) => self.text(text, indent, true),
        }
    }

    fn map(&mut self, map: &Map<String, Value>, indent: usize) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by(|(a, _), (b, _)| natural_order(a, b));
        for (i, (key, value)) in entries.into_iter().enumerate() {
            if i > 0 {
                self.next_line(indent);
            }
            if key.len() > SIMPLE_KEY_LENGTH || key.contains('\n') {
                self.put("? ");
                self.text(key, indent + 2, true);
                self.next_line(indent);
                self.put(": ");
                self.node(value, indent + 2);
            } else {
                self.text(key, indent, false);
                self.put(":");
                self.value_of_key(value, indent);
            }
        }
    }

    /// The value behind `key:`. Items of a list stand below the key's first letter, entries of a map further right.
    fn value_of_key(&mut self, value: &Value, indent: usize) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                self.next_line(indent + 2);
                self.map(map, indent + 2);
            }
            Value::Array(list) if !list.is_empty() => {
                self.next_line(indent);
                self.list(list, indent);
            }
            other => {
                self.put(" ");
                self.node(other, indent + 2);
            }
        }
    }

    fn list(&mut self, list: &[Value], indent: usize) {
        for (i, item) in list.iter().enumerate() {
            if i > 0 {
                self.next_line(indent);
            }
            self.put("- ");
            self.node(item, indent + 2);
        }
    }

    /// A string. `breaks`: long ones may go on in the next line, at `indent`.
    fn text(&mut self, text: &str, indent: usize, breaks: bool) {
        match style(text, breaks) {
            Style::Plain => self.words(text, indent, breaks),
            Style::SingleQuoted => {
                self.put("'");
                self.words(&text.replace('\'', "''"), indent, breaks);
                self.put("'");
            }
            Style::DoubleQuoted => self.escaped(text, indent, breaks),
            Style::Literal => self.literal(text, indent),
        }
    }

    /// Text whose single blanks may become line breaks.
    fn words(&mut self, text: &str, indent: usize, breaks: bool) {
        let mut after_space = false;
        let mut chars = text.chars().enumerate().peekable();
        while let Some((i, c)) = chars.next() {
            let next = chars.peek().map(|(_, c)| *c);
            let inside = i > 0 && next.is_some_and(|c| c != ' ');
            if c == ' ' && breaks && !after_space && self.column > BEST_WIDTH && inside {
                self.next_line(indent);
            } else {
                self.put_char(c);
            }
            after_space = c == ' ';
        }
    }

    fn escaped(&mut self, text: &str, indent: usize, breaks: bool) {
        self.put("\"");
        let mut after_space = false;
        let mut chars = text.chars().enumerate().peekable();
        while let Some((i, c)) = chars.next() {
            let next = chars.peek().map(|(_, c)| *c);
            if c == ' ' && breaks && !after_space && self.column > BEST_WIDTH && i > 0 && next.is_some() {
                self.next_line(indent);
                if next == Some(' ') {
                    self.put("\\");
                }
            } else {
                self.put(&super::scalar::escape(c));
            }
            after_space = c == ' ';
        }
        self.put("\"");
    }

    /// `|`, a hint where the first line begins with a blank, `-` or `+` for the line breaks at the end, the lines.
    fn literal(&mut self, text: &str, indent: usize) {
        // At the top of a document block scalars are still indented.
        let indent = indent.max(2);
        self.put("|");
        if text.starts_with([' ', '\n']) {
            self.put("2");
        }
        if !text.ends_with('\n') {
            self.put("-");
        } else if text == "\n" || text.ends_with("\n\n") {
            self.put("+");
        }
        self.newline();
        for (i, line) in text.split('\n').enumerate() {
            if i > 0 {
                self.newline();
            }
            if !line.is_empty() {
                self.put(&" ".repeat(indent));
                self.put(line);
            }
        }
    }
}

/// A number as Go prints it after a round through JSON: integers as such, other floats in their shortest form.
fn format_number(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => format_float(float),
        _ => number.to_string(),
    }
}

/// Exponents of ten that are written out (`strconv.FormatFloat`, format `g`, shortest).
const PLAIN_EXPONENTS: std::ops::Range<i32> = -4..6;

fn format_float(float: f64) -> String {
    if float.fract() == 0.0 && float.abs() < 9e18 {
        return format!("{}", float as i64);
    }
    let scientific = format!("{float:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if PLAIN_EXPONENTS.contains(&exponent) {
        return format!("{float}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Order of keys: numbers inside them count as numbers, letters come last (`keyList` in Go's YAML library).
fn natural_order(a: &str, b: &str) -> std::cmp::Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut after_digits = false;
    for i in 0..a.len().min(b.len()) {
        if a[i] == b[i] {
            after_digits = a[i].is_ascii_digit();
            continue;
        }
        return match (a[i].is_alphabetic(), b[i].is_alphabetic()) {
            (true, true) => a[i].cmp(&b[i]),
            // A letter ends a number, and thus comes before more digits; otherwise letters come last.
            (true, false) if after_digits => std::cmp::Ordering::Less,
            (true, false) => std::cmp::Ordering::Greater,
            (false, true) if after_digits => std::cmp::Ordering::Greater,
            (false, true) => std::cmp::Ordering::Less,
            (false, false) => {
                let zero = a[i] == '0' || b[i] == '0';
                let digits = a[..i].iter().rev().take_while(|c| c.is_ascii_digit());
                let inside = zero && digits.into_iter().any(|c| *c != '0');
                number_at(&a, i, inside).cmp(&number_at(&b, i, inside)).then(a[i].cmp(&b[i]))
            }
        };
    }
    a.len().cmp(&b.len())
}

/// The value and end of the digits from `start` on; `inside`: a number other than zero goes on there.
fn number_at(text: &[char], start: usize, inside: bool) -> (i64, usize) {
    let digits = text[start..].iter().map_while(|c| c.to_digit(10));
    let (mut value, mut end) = (i64::from(inside), start);
    for digit in digits {
        value = value.wrapping_mul(10).wrapping_add(i64::from(digit));
        end += 1;
    }
    (value, end)
}
