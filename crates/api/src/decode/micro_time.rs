//! Times with microseconds. The typed decoder takes any RFC 3339; Go's wants six digits after the second
//! (`MicroTime.UnmarshalJSON`), and says in its own words what is missing (`time.Parse`).

use std::ops::RangeInclusive;

use jiff::civil::Date;

const LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// As it is written in the layout, how many digits are wanted, and what they may be.
type Part = (&'static str, usize, Option<(&'static str, RangeInclusive<u32>)>);

/// What stands before the fraction.
const PARTS: [Part; 11] = [
    ("2006", 4, None),
    ("-", 0, None),
    ("01", 2, Some(("month", 1..=12))),
    ("-", 0, None),
    ("02", 2, None),
    ("T", 0, None),
    ("15", 2, Some(("hour", 0..=23))),
    (":", 0, None),
    ("04", 2, Some(("minute", 0..=59))),
    (":", 0, None),
    ("05", 2, Some(("second", 0..=59))),
];

/// Why a text is no time with microseconds; nothing if it is one.
pub(super) fn error(text: &str) -> Option<String> {
    problem(text).err()
}

fn problem(text: &str) -> Result<(), String> {
    let cannot =
        |rest: &str, part: &str| Err(format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {rest:?} as {part:?}"));
    let out_of_range = |what: &str| Err(format!("parsing time {text:?}: {what} out of range"));
    let (mut rest, mut numbers) = (text, Vec::new());
    for (part, digits, range) in PARTS {
        let taken = match digits {
            0 => rest.strip_prefix(part).map(|left| (0, left)),
            _ => number(rest, digits).or_else(|| number(rest, 1).filter(|_| part == "15")),
        };
        let Some((value, left)) = taken else { return cannot(rest, part) };
        if let Some((what, _)) = range.filter(|(_, range)| !range.contains(&value)) {
            return out_of_range(what);
        }
        rest = left;
        if digits > 0 {
            numbers.push(value);
        }
    }
    let Some((_, zone)) = rest.strip_prefix(['.', ',']).and_then(|rest| number(rest, 6)) else {
        return cannot(rest, ".000000");
    };
    let Some(after) = after_zone(zone) else { return cannot(zone, "Z07:00") };
    if !after.is_empty() {
        return Err(format!("parsing time {text:?}: extra text: {after:?}"));
    }
    let small = |number: u32| i8::try_from(number).unwrap_or(0);
    let is_a_day =
        i16::try_from(numbers[0]).is_ok_and(|year| Date::new(year, small(numbers[1]), small(numbers[2])).is_ok());
    if is_a_day { Ok(()) } else { out_of_range("day") }
}

/// So many digits, and what is left.
fn number(text: &str, digits: usize) -> Option<(u32, &str)> {
    let (number, rest) = text.split_at_checked(digits)?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    Some((number.parse().ok().filter(|_| is_number)?, rest))
}

/// What stands after `Z`, or after hours and minutes.
fn after_zone(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('Z') {
        return Some(rest);
    }
    let (hours, rest) = number(text.strip_prefix(['+', '-'])?, 2)?;
    let (minutes, rest) = number(rest.strip_prefix(':')?, 2)?;
    (hours <= 24 && minutes <= 60).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_write_is_taken() {
        // Go, kube-rs, the Java and the Python client.
        for text in [
            "2026-01-02T03:04:05.000000Z",
            "2026-01-02T03:04:05.678901Z",
            "2026-01-02T03:04:05.678901+00:00",
            "2024-02-29T23:59:59.999999-07:30",
        ] {
            assert_eq!(error(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_told_as_go_tells_it() {
        for (text, why) in [
            ("soon", r#"cannot parse "soon" as "2006""#),
            ("", r#"cannot parse "" as "2006""#),
            ("2026-01-02", r#"cannot parse "" as "T""#),
            ("2026-1-2T03:04:05.000000Z", r#"cannot parse "1-2T03:04:05.000000Z" as "01""#),
            ("2026-01-02T03:04:05Z", r#"cannot parse "Z" as ".000000""#),
            ("2026-01-02T03:04:05.123Z", r#"cannot parse ".123Z" as ".000000""#),
            ("2026-01-02T03:04:05.123456789Z", r#"cannot parse "789Z" as "Z07:00""#),
            ("2026-01-02T03:04:05.123456", r#"cannot parse "" as "Z07:00""#),
        ] {
            assert_eq!(error(text).unwrap(), format!("parsing time {text:?} as {LAYOUT:?}: {why}"));
        }
        for (text, why) in [
            ("2026-13-02T03:04:05.000000Z", "month out of range"),
            ("2026-01-02T24:04:05.000000Z", "hour out of range"),
            ("2026-02-29T03:04:05.000000Z", "day out of range"),
            ("2026-01-02T03:04:05.000000Zx", r#"extra text: "x""#),
        ] {
            assert_eq!(error(text).unwrap(), format!("parsing time {text:?}: {why}"));
        }
    }
}
