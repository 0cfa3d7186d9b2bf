//! Quantities: `100m`, `1.5Gi`, `1e3`. Exact arithmetic, canonical print as `resource.Quantity` does it.

use std::fmt;
use std::str::FromStr;

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

/// An exact amount: `value` times 10⁻⁹ (nano units), with the format it prints in. Amounts finer than nano round up,
/// amounts beyond the range are capped, as upstream.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    format: Format,
}

/// Why a text is not a quantity; the text is upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseQuantityError {
    /// Not of the form.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The suffix is not one of the families'.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    /// The amount zero, decimal.
    pub const ZERO: Quantity = Quantity { nano: 0, format: Format::DecimalSi };

    /// `units` whole units in `format`.
    pub fn from_units(_units: i64, _format: Format) -> Quantity {
        todo!()
    }

    /// `milli` thousandths, decimal.
    pub fn from_milli(_milli: i64) -> Quantity {
        todo!()
    }

    /// Whole units, rounded up (`Quantity.Value()`).
    pub fn units(&self) -> i64 {
        todo!()
    }

    /// Thousandths, rounded up (`Quantity.MilliValue()`).
    pub fn milli(&self) -> i64 {
        todo!()
    }

    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }
}

impl FromStr for Quantity {
    type Err = ParseQuantityError;
    fn from_str(_text: &str) -> Result<Quantity, ParseQuantityError> {
        todo!()
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

/// The canonical text of a quantity as stored: `1024Mi` becomes `1Gi`, `0.5` becomes `500m`; text that is no quantity
/// stays as it is, for validation to name.
pub fn canonicalize(_quantity: &mut k8s_openapi::apimachinery::pkg::api::resource::Quantity) {
    todo!()
}

/// Reads a stored quantity; what is not one counts as zero (validation refused it at the door).
pub fn of(_quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Quantity {
    todo!()
}
