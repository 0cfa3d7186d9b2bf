//! The flags every daemon has, and what all of its flags came out as.

use std::path::PathBuf;

use clap::{ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use serde_json::{Map, Value, json};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is flattened into a daemon's flags. It must be their first field: those after it take their values out of what
/// was parsed, and this looks at all of them.
#[derive(Clone, Debug)]
pub struct Flags {
    own: Own,
    /// Each flag that has a value, and the value as text.
    effective: Vec<(String, Vec<String>)>,
}

#[derive(Clone, Debug, Args)]
#[group(skip)]
struct Own {
    /// File with flags: one a line, "name: value"; what the command line says counts more
    #[arg(long, value_name = "FILE", display_order = 100)]
    config: Option<PathBuf>,

    /// What to log, as tracing filters: info, debug, apiserver=debug,info
    #[arg(long, value_name = "FILTER", env = "CORACLE_LOG", default_value = "info", display_order = 101)]
    log: String,

    /// How log lines look
    #[arg(long, value_enum, default_value_t, display_order = 102)]
    log_format: LogFormat,
}

impl Flags {
    /// The file with flags.
    pub fn config(&self) -> Option<&PathBuf> {
        self.own.config.as_ref()
    }

    /// What to log, as tracing filters.
    pub fn log(&self) -> &str {
        &self.own.log
    }

    /// How log lines look.
    pub fn log_format(&self) -> LogFormat {
        self.own.log_format
    }

    /// What every flag came out as, for `/configz`. Of those in `secret` only that they are set.
    pub fn shown(&self, secret: &[&str]) -> Value {
        let shown = |(name, values): &(String, Vec<String>)| {
            let value = match values.as_slice() {
                _ if secret.contains(&name.as_str()) => json!("(hidden)"),
                [one] => json!(one),
                many => json!(many),
            };
            (name.clone(), value)
        };
        Value::Object(self.effective.iter().map(shown).collect::<Map<_, _>>())
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        Ok(Flags { own: Own::from_arg_matches(matches)?, effective: effective(matches) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.effective = effective(matches);
        self.own.update_from_arg_matches(matches)
    }
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        Own::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Own::augment_args_for_update(command)
    }
}

/// The name of a flag is that of its field; groups of flags have the name of a type.
fn effective(matches: &ArgMatches) -> Vec<(String, Vec<String>)> {
    let fields = matches.ids().filter(|id| !id.as_str().starts_with(char::is_uppercase));
    let values = |id: &clap::Id| {
        let raw = matches.try_get_raw(id.as_str()).ok().flatten()?;
        Some((id.as_str().replace('_', "-"), raw.map(|v| v.to_string_lossy().into_owned()).collect()))
    };
    let mut effective: Vec<_> = fields.filter_map(values).collect();
    effective.sort();
    effective
}
