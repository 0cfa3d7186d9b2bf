//! The text of a quantity: sign, digits, suffix.

use super::{BINARY_SUFFIXES, DECIMAL_SUFFIXES, Format, MAX_NANO, NANO, ParseQuantityError, Quantity};

/// More zeros than this before or behind the digits change nothing: the amount is capped, or rounds to one nano.
const MAX_PADDING: i64 = 64;
/// Upstream's quick parser reads decimal numbers of up to this many digits.
const QUICK_DECIMAL_DIGITS: usize = 18;
/// The same for binary ones, less what the suffix adds.
const QUICK_BINARY_DIGITS: i64 = 14;

/// A quantity taken apart.
pub(super) struct Parts<'a> {
    negative: bool,
    /// Digits before the point, without leading zeros; upstream counts none as `0`.
    whole: &'a str,
    /// Digits behind the point.
    fraction: &'a str,
    /// Power of ten, or of two where the format is binary.
    exponent: i64,
    format: Format,
}

/// Takes `text` apart (`parseQuantityString`). As upstream's parser it is lenient where digits are missing: `.`, `-` and
/// `Ki` are zero.
pub(super) fn split(text: &str) -> Result<Parts<'_>, ParseQuantityError> {
    if text.is_empty() {
        return Err(ParseQuantityError::Format);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (whole, rest) = digits(unsigned.trim_start_matches('0'));
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    let letters = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let number = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if !number.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ParseQuantityError::Format);
    }
    let (exponent, format) = interpret(suffix).ok_or(ParseQuantityError::Suffix)?;
    Ok(Parts { negative: text.starts_with('-'), whole, fraction, exponent, format })
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

/// The power and family a suffix stands for.
fn interpret(suffix: &str) -> Option<(i64, Format)> {
    if let Some(i) = DECIMAL_SUFFIXES.iter().position(|s| *s == suffix) {
        return Some((3 * i as i64 - 9, Format::DecimalSi));
    }
    if let Some(i) = BINARY_SUFFIXES.iter().position(|s| *s == suffix) {
        return Some((10 * i as i64, Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?.parse::<i64>().ok()?;
    // Upstream keeps the lower 32 bits only; beyond them every amount is capped or tiny anyway.
    Some((exponent.clamp(i32::MIN.into(), i32::MAX.into()), Format::DecimalExponent))
}

impl Parts<'_> {
    pub(super) fn quantity(&self) -> Quantity {
        let amount = match self.format {
            Format::BinarySi => amount(self.whole.bytes(), self.fraction.bytes(), NANO << self.exponent),
            _ => self.decimal(),
        };
        let (mut nano, mut format) = (amount.min(MAX_NANO), self.format);
        if format == Format::BinarySi {
            nano = nano.min(i128::from(i64::MAX) * NANO);
            if 0 < nano && nano < NANO {
                format = Format::DecimalSi;
            }
        }
        Quantity { nano: if self.negative { -nano } else { nano }, format }
    }

    /// The digits with the point moved by the exponent.
    fn decimal(&self) -> i128 {
        let digits = || self.whole.bytes().chain(self.fraction.bytes());
        let count = self.whole.len() + self.fraction.len();
        let point = self.whole.len() as i64 + self.exponent;
        let zeros = |n: i64| std::iter::repeat_n(b'0', n.clamp(0, MAX_PADDING) as usize);
        let inside = point.clamp(0, count as i64) as usize;
        let whole = digits().take(inside).chain(zeros(point - count as i64));
        let fraction: Vec<u8> = zeros(-point).chain(digits().skip(inside)).collect();
        amount(whole, fraction.into_iter(), NANO)
    }

    /// Whether upstream's quick parser takes the text for canonical and hands it out unchanged.
    pub(super) fn is_kept_as_written(&self) -> bool {
        let whole = if self.whole.is_empty() { "0" } else { self.whole };
        let shifted = [whole, self.fraction].concat();
        match self.format {
            Format::BinarySi => {
                let quick = QUICK_BINARY_DIGITS - whole.len() as i64 - self.exponent * 3 / 10 >= 0;
                quick && self.fraction.is_empty() && whole.parse::<i64>().is_ok_and(|v| v & 7 != 0)
            }
            _ => {
                let scale = self.exponent - self.fraction.len() as i64;
                let quick = shifted.len() <= QUICK_DECIMAL_DIGITS && scale >= -9;
                quick && scale % 3 == 0 && !shifted.ends_with("000") && !shifted.starts_with('0')
            }
        }
    }
}

/// `whole.fraction` times `factor`, rounded up. Exact for any number of digits: the integer part grows from its first
/// digit on, the fraction is divided by ten from its last digit on, and a rest is remembered.
fn amount(whole: impl Iterator<Item = u8>, fraction: impl DoubleEndedIterator<Item = u8>, factor: i128) -> i128 {
    let value = |digit: u8| i128::from(digit - b'0') * factor;
    let whole = whole.fold(0, |sum: i128, digit| sum.saturating_mul(10).saturating_add(value(digit)));
    let mut rest = false;
    let fraction = fraction.rev().fold(0, |sum: i128, digit| {
        let tenfold = sum + value(digit);
        rest |= tenfold % 10 != 0;
        tenfold / 10
    });
    whole.saturating_add(fraction).saturating_add(i128::from(rest))
}
