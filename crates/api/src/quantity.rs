//! Quantities: `100m`, `1.5Gi`, `1e3`. Exact arithmetic, canonical print as `resource.Quantity` does it
//! (`k8s.io/apimachinery/pkg/api/resource/quantity.go`).

mod parse;

use std::cmp::Ordering;
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

/// The suffix family a quantity was written in, and is printed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `1e3`.
    DecimalExponent,
    /// `1Ki`.
    BinarySi,
    /// `1k`, `100m`.
    DecimalSi,
}

/// Nano units in one unit.
const NANO: i128 = 1_000_000_000;
/// The greatest amount kept: whole units only, about 1.7 × 10²⁹ of them. Upstream has no bound here; nothing real is
/// this large.
const MAX_NANO: i128 = i128::MAX / NANO * NANO;

/// An exact amount: `nano` times 10⁻⁹ units, with the format it prints in. Amounts finer than nano round away from
/// zero, amounts beyond the range are capped. Comparison is by amount: `1Gi` equals `1024Mi`.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is not a quantity; the text is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// Not of the form.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The suffix is not one of the families'.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// The amount zero, decimal.
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::DecimalSi };

    /// `units` whole units in `format`.
    pub fn from_units(units: i64, format: Format) -> Quantity {
        Quantity { nano: i128::from(units) * NANO, format }
    }

    /// `milli` thousandths, decimal.
    pub fn from_milli(milli: i64) -> Quantity {
        Quantity { nano: i128::from(milli) * (NANO / 1000), format: Format::DecimalSi }
    }

    /// Whole units, rounded away from zero and capped (`Quantity.Value()`).
    pub fn units(&self) -> i64 {
        cap_to_i64(divide_up(self.nano, NANO))
    }

    /// Thousandths, rounded away from zero and capped (`Quantity.MilliValue()`).
    pub fn milli(&self) -> i64 {
        cap_to_i64(divide_up(self.nano, NANO / 1000))
    }

    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether the amount is zero.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Whether the amount is a whole number of units, as counts and bytes must be.
    pub fn is_integer(&self) -> bool {
        self.nano % NANO == 0
    }

    /// The suffix family the quantity prints in.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The amount rounded away from zero to thousandths, which is the finest a resource list holds
    /// (`SetDefaults_ResourceList`).
    pub fn rounded_to_milli(self) -> Quantity {
        Quantity { nano: divide_up(self.nano, NANO / 1000) * (NANO / 1000), ..self }
    }

    /// The API's form of the quantity.
    pub fn to_api(&self) -> ApiQuantity {
        ApiQuantity(self.to_string())
    }

    fn combined(self, other: Quantity, nano: i128) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        Quantity { nano: nano.clamp(-MAX_NANO, MAX_NANO), format }
    }
}

/// `value / divisor`, rounded away from zero.
fn divide_up(value: i128, divisor: i128) -> i128 {
    value / divisor + (value % divisor).signum()
}

fn cap_to_i64(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl Add for Quantity {
    type Output = Quantity;
    /// The sum, in the format of the left side, or of the right where the left is zero.
    fn add(self, other: Quantity) -> Quantity {
        self.combined(other, self.nano.saturating_add(other.nano))
    }
}

impl Sub for Quantity {
    type Output = Quantity;
    /// The difference, in the format of the left side, or of the right where the left is zero.
    fn sub(self, other: Quantity) -> Quantity {
        self.combined(other, self.nano.saturating_sub(other.nano))
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

impl Sum for Quantity {
    fn sum<I: Iterator<Item = Quantity>>(quantities: I) -> Quantity {
        quantities.fold(Quantity::ZERO, Add::add)
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;
    fn from_str(text: &str) -> Result<Quantity, ParseQuantityError> {
        Ok(parse::split(text)?.quantity())
    }
}

/// Suffixes of 10⁻⁹, 10⁻⁶ and so on.
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
/// Suffixes of 1024⁰, 1024¹ and so on.
const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

impl fmt::Display for Quantity {
    /// The canonical form: no fraction, and the greatest suffix that loses nothing (`CanonicalizeBytes`).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let binary = self.format == Format::BinarySi && self.is_integer() && self.nano.abs() >= 1024 * NANO;
        if binary {
            let (mantissa, steps) = without_factors(self.nano / NANO, 1024, BINARY_SUFFIXES.len() - 1);
            return write!(f, "{mantissa}{}", BINARY_SUFFIXES[steps]);
        }
        let (mantissa, steps) = without_factors(self.nano, 1000, usize::MAX);
        let exponent = 3 * steps as i64 - 9;
        match DECIMAL_SUFFIXES.get(steps) {
            _ if exponent == 0 => write!(f, "{mantissa}"),
            Some(suffix) if self.format != Format::DecimalExponent => write!(f, "{mantissa}{suffix}"),
            _ => write!(f, "{mantissa}e{exponent}"),
        }
    }
}

/// Divides by `factor` as often as nothing remains, at most `max` times.
fn without_factors(mut value: i128, factor: i128, max: usize) -> (i128, usize) {
    let mut steps = 0;
    while steps < max && value % factor == 0 {
        value /= factor;
        steps += 1;
    }
    (value, steps)
}

/// The canonical text of a quantity as stored: `1024Mi` becomes `1Gi`, `0.5` becomes `500m`; text that is no quantity
/// stays as it is, for validation to name. What upstream's quick parser takes for canonical stays too (`+1`, `1.500`).
pub fn canonicalize(quantity: &mut ApiQuantity) {
    if let Ok(parts) = parse::split(&quantity.0)
        && !parts.is_kept_as_written()
    {
        quantity.0 = parts.quantity().to_string();
    }
}

/// Reads a stored quantity; what is not one counts as zero (validation refused it at the door).
pub fn of(quantity: &ApiQuantity) -> Quantity {
    quantity.0.parse().unwrap_or(Quantity::ZERO)
}

#[cfg(test)]
mod tests;
