//! Samples, and the table that is printed.

/// Sorted durations, for medians and tails.
#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<std::time::Duration>);

impl Samples {
    /// Takes measurements in any order.
    pub(crate) fn new(mut durations: Vec<std::time::Duration>) -> Samples {
        durations.sort_unstable();
        Samples(durations)
    }

    /// The value below which `share` (0 to 1) of all lie, in milliseconds.
    pub(crate) fn milliseconds(&self, share: f64) -> f64 {
        if self.0.is_empty() {
            return f64::NAN;
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let index = ((self.0.len() - 1) as f64 * share).round() as usize;
        self.0[index].as_secs_f64() * 1000.0
    }
}

/// The figures, in the order they were measured, with what was wanted.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<[String; 3]>,
    /// Whose they are, where not a master's: then nothing is wanted.
    pub(crate) of: Option<&'static str>,
}

impl Report {
    /// Adds a row and shows it at once, on standard error: the table is for standard output.
    #[allow(clippy::print_stderr)]
    pub(crate) fn add(&mut self, what: &str, measured: String, wanted: &str) {
        let (what, wanted) = self.of.map_or((what.to_owned(), wanted), |of| (format!("{of}: {what}"), ""));
        eprintln!("  {what}: {measured}");
        self.rows.push([what, measured, wanted.to_owned()]);
    }

    /// The rows as a Markdown table.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("| figure | measured | wanted |\n| --- | --- | --- |\n");
        for [what, measured, wanted] in &self.rows {
            text.push_str(&format!("| {what} | {measured} | {wanted} |\n"));
        }
        text
    }
}
