//! The forms of names in volume sources.

/// Whether this is `iqn.2001-04.com.example:disk`, or one of the two forms with nothing but letters and digits.
pub(super) fn is_initiator(name: &str, start: &str) -> bool {
    let plain = |count: usize| name.len() == count + 4 && name.bytes().skip(4).all(|byte| byte.is_ascii_alphanumeric());
    match start {
        "eui" => plain(16),
        "naa" => plain(32),
        _ => name.strip_prefix("iqn.").is_some_and(is_dated),
    }
}

/// `2001-04.com.example:disk`.
fn is_dated(rest: &str) -> bool {
    let Some((date, rest)) = rest.split_once('.') else { return false };
    let Some((authority, disk)) = rest.split_once(':') else { return false };
    let is_date =
        date.len() == 7 && date.bytes().enumerate().all(|(i, b)| if i == 4 { b == b'-' } else { b.is_ascii_digit() });
    is_date
        && !authority.is_empty()
        && authority.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        && !disk.is_empty()
        && !disk.contains([',', ';', '*', '&', '$', '|', ' ', '\t', '\n', '\r', '\u{c}', '\u{b}'])
}

/// As Go's `net.SplitHostPort` sees it: one colon outside of brackets.
pub(super) fn is_host_and_port(pair: &str) -> bool {
    match pair.strip_prefix('[') {
        Some(rest) => rest
            .split_once("]:")
            .is_some_and(|(host, port)| !host.contains(['[', ']']) && !port.contains([':', '[', ']'])),
        None => pair.matches(':').count() == 1 && !pair.contains(['[', ']']),
    }
}
