//! Which style a string is printed in, so that it is read back as a string.
//!
//! A string that YAML 1.1 would read as something else is double quoted; one whose letters would be read as syntax is
//! single quoted; control characters need double quotes; several lines become a literal block.

/// How a string is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

/// The style of `text`. `block`: a literal block may stand here; not so for keys.
pub(super) fn style(text: &str, block: bool) -> Style {
    let marks = Marks::of(text);
    if text.contains('\n') {
        let literal = block && !marks.special && !marks.space_break && !text.ends_with(' ');
        return if literal { Style::Literal } else { Style::DoubleQuoted };
    }
    // As a key it would stand for what another map holds; kubectl's plain one is not read back.
    let merges = !block && text == "<<";
    if marks.special || merges || reads_as_other(text) {
        Style::DoubleQuoted
    } else if marks.indicator || text.starts_with(' ') || text.ends_with(' ') {
        Style::SingleQuoted
    } else {
        Style::Plain
    }
}

/// What stands in the way of the simpler styles (`yaml_emitter_analyze_scalar`).
#[derive(Default)]
struct Marks {
    /// A character that is only readable escaped.
    special: bool,
    /// A blank at the end of a line, which blocks would lose.
    space_break: bool,
    /// A character that means something to YAML where it stands.
    indicator: bool,
}

impl Marks {
    fn of(text: &str) -> Marks {
        let mut marks = Marks { indicator: text.starts_with("---") || text.starts_with("..."), ..Marks::default() };
        let mut before = None;
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            let blank_follows = chars.peek().is_none_or(|c| matches!(c, ' ' | '\t' | '\r' | '\n'));
            marks.special |= !is_printable(c);
            marks.space_break |= before == Some(' ') && c == '\n';
            marks.indicator |= match (before, c) {
                (None, _) if "#,[]{}&*!|>'\"%@`".contains(c) => true,
                (None, '?' | '-') => blank_follows,
                (_, ':') => blank_follows,
                (Some(' ' | '\t' | '\r' | '\n'), '#') => true,
                _ => false,
            };
            before = Some(c);
        }
        marks
    }
}

/// What Go's YAML library prints unescaped: no tabs, no emoji, and none of Unicode's own line breaks.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
        && !matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')
}

/// The character inside double quotes.
pub(super) fn escape(c: char) -> String {
    let short = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' => '"',
        '\\' => '\\',
        '\u{85}' => 'N',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if is_printable(c) => return c.to_string(),
        c => {
            return match u32::from(c) {
                code @ 0..=0xff => format!("\\x{code:02X}"),
                code @ 0x100..=0xffff => format!("\\u{code:04X}"),
                code => format!("\\U{code:08X}"),
            };
        }
    };
    format!("\\{short}")
}

/// Words that YAML 1.1 reads as booleans, null or special numbers.
const WORDS: &[&str] = &[
    "", "~", "null", "Null", "NULL", "true", "True", "TRUE", "false", "False", "FALSE", "y", "Y", "yes", "Yes", "YES",
    "n", "N", "no", "No", "NO", "on", "On", "ON", "off", "Off", "OFF", ".nan", ".NaN", ".NAN", ".inf", ".Inf", ".INF",
    "+.inf", "+.Inf", "+.INF", "-.inf", "-.Inf", "-.INF",
];

/// Whether the plain text would be read as anything but a string (`resolve`, `isBase60Float`).
fn reads_as_other(text: &str) -> bool {
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    WORDS.contains(&text) || (numeric && (is_number(text) || is_base60(text) || is_timestamp(text)))
}

fn is_number(text: &str) -> bool {
    if text.starts_with('.') {
        return is_float(text);
    }
    let plain = text.replace('_', "");
    is_integer(&plain) || is_float(&plain)
}

/// What `strconv.ParseInt` reads with base 0, within 64 bits.
fn is_integer(text: &str) -> bool {
    let (negative, digits) = match text.as_bytes() {
        [b'-', ..] => (true, &text[1..]),
        [b'+', ..] => (false, &text[1..]),
        _ => (false, text),
    };
    let prefix = digits.get(..2).map(str::to_ascii_lowercase);
    let (radix, digits) = match prefix.as_deref() {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        Some("0b") => (2, &digits[2..]),
        Some(_) if digits.starts_with('0') => (8, &digits[1..]),
        _ => (10, digits),
    };
    let unsigned = !digits.starts_with('+') && !digits.starts_with('-');
    let limit = if negative { i128::from(i64::MAX) + 1 } else { i128::from(u64::MAX) };
    unsigned && i128::from_str_radix(digits, radix).is_ok_and(|value| value <= limit)
}

/// `[-+]?(.digits | digits[.digits])[e[+-]digits]`, within the range of a double.
fn is_float(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let shape = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned.bytes().all(|b| b.is_ascii_digit() || b".eE+-".contains(&b));
    shape && text.parse::<f64>().is_ok_and(f64::is_finite)
}

/// `12:30:45`, which YAML 1.1 counts in sixties.
fn is_base60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let Some((first, rest)) = unsigned.split_once(':') else { return false };
    let (rest, fraction) = rest.split_once('.').unwrap_or((rest, ""));
    let digit = |b: u8| b.is_ascii_digit() || b == b'_';
    let sixty = |part: &str| match part.as_bytes() {
        [one] => one.is_ascii_digit(),
        [ten, one] => (b'0'..=b'5').contains(ten) && one.is_ascii_digit(),
        _ => false,
    };
    first.starts_with(|c: char| c.is_ascii_digit())
        && first.bytes().all(digit)
        && fraction.bytes().all(digit)
        && rest.split(':').all(sixty)
}

/// `2026-1-2`, alone or with a time behind `T`, `t` or a blank; with `T` the zone is required.
fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.find(['T', 't', ' ']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    let parts: Vec<&str> = date.split('-').collect();
    let &[year, month, day] = parts.as_slice() else { return false };
    let number = |t: &str| (1..=2).contains(&t.len()).then(|| t.parse::<i8>().ok()).flatten();
    let valid = year.len() == 4
        && year.bytes().all(|b| b.is_ascii_digit())
        && matches!((year.parse(), number(month), number(day)),
            (Ok(y), Some(m), Some(d)) if jiff::civil::Date::new(y, m, d).is_ok());
    valid
        && time.is_none_or(|(separator, time)| match separator {
            " " => is_time(time),
            _ => time.strip_suffix('Z').is_some_and(is_time) || with_offset(time),
        })
}

fn with_offset(time: &str) -> bool {
    time.rfind(['+', '-']).is_some_and(|at| {
        let offset = &time.as_bytes()[at + 1..];
        let [h1, h2, b':', m1, m2] = offset else { return false };
        [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()) && is_time(&time[..at])
    })
}

/// `15:4:5.999`.
fn is_time(time: &str) -> bool {
    let (clock, fraction) = time.split_once(['.', ',']).unwrap_or((time, "0"));
    let part = |text: Option<&str>, limit: u8| {
        text.is_some_and(|t| (1..=2).contains(&t.len()) && t.parse::<u8>().is_ok_and(|v| v < limit))
    };
    let mut parts = clock.split(':');
    part(parts.next(), 24)
        && part(parts.next(), 60)
        && part(parts.next(), 60)
        && parts.next().is_none()
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b.is_ascii_digit())
}
