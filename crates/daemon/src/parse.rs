//! Command line over environment over file over default; errors that name the line.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use clap::error::{ContextKind, ContextValue};
use clap::{ArgAction, Command, Parser};

use crate::file::{self, Entry};
use crate::flags::Flags;

/// A daemon's flags.
pub trait Program: Parser {
    /// Flags that make no sense in a file, as they say what the program is to do instead of running.
    const COMMANDS: &[&str] = &[];

    /// Where [`Flags`] are among them.
    fn flags(&mut self) -> &mut Flags;

    /// What is wrong with the flags together. The sentence begins with the flag.
    fn validate(&self) -> Result<()>;
}

/// Reads the command line and the file it names. Asked for help, or told what it cannot understand on the command line,
/// the process ends here, as clap's does.
pub fn parse<P: Program>(arguments: impl IntoIterator<Item = OsString>) -> Result<P> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let command = P::command();
    let entries = match config_file(&arguments) {
        None => Vec::new(),
        Some(path) => known(&command, P::COMMANDS, file::read(&path)?)?,
    };
    let (arguments, from_file) = with_file(&command, &arguments, entries);
    let mut program = P::try_parse_from(arguments).map_err(|error| refused(error, &from_file))?;
    let logged = crate::run::filter(program.flags()).map(drop);
    logged.and_then(|()| program.validate()).map_err(|error| located(error, &from_file))?;
    Ok(program)
}

/// The value of `--config`: the last one, as everywhere.
fn config_file(arguments: &[OsString]) -> Option<PathBuf> {
    let mut found = None;
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if argument == "--config" {
            found = rest.next().map(PathBuf::from);
        } else if let Some(path) = argument.to_str().and_then(|a| a.strip_prefix("--config=")) {
            found = Some(PathBuf::from(path));
        }
    }
    found
}

/// Flags that make sense in a file: not those that end the program or say which file it is, nor `commands`.
fn settable<'a>(command: &'a Command, commands: &[&str]) -> BTreeSet<&'a str> {
    let longs = command.get_arguments().filter_map(clap::Arg::get_long);
    longs.filter(|long| !["config", "help", "version"].contains(long) && !commands.contains(long)).collect()
}

fn known(command: &Command, commands: &[&str], entries: Vec<Entry>) -> Result<Vec<Entry>> {
    let settable = settable(command, commands);
    for entry in &entries {
        if !settable.contains(entry.name.as_str()) {
            let all = settable.iter().copied().collect::<Vec<_>>().join(", ");
            bail!("{}: unknown key {:?}; the keys are {all}", entry.place(), entry.name);
        }
    }
    Ok(entries)
}

/// The command line with the file's flags before it, but for those the command line or the environment has too; and
/// the flags that were put there.
fn with_file(command: &Command, arguments: &[OsString], entries: Vec<Entry>) -> (Vec<OsString>, Vec<Entry>) {
    let given: BTreeSet<&str> = arguments.iter().filter_map(|a| flag_name(a)).collect();
    let in_environment = |arg: &clap::Arg| arg.get_env().is_some_and(|name| std::env::var_os(name).is_some());
    let mut kept = Vec::new();
    let mut all: Vec<OsString> = arguments.first().cloned().into_iter().collect();
    for entry in entries {
        let arg = command.get_arguments().find(|a| a.get_long() == Some(&entry.name));
        if given.contains(entry.name.as_str()) || arg.is_some_and(in_environment) {
            continue;
        }
        let is_switch = arg.is_some_and(|a| matches!(a.get_action(), ArgAction::SetTrue));
        for value in &entry.values {
            match value.as_str() {
                "true" if is_switch => all.push(format!("--{}", entry.name).into()),
                "false" if is_switch => {}
                value => all.push(format!("--{}={value}", entry.name).into()),
            }
        }
        kept.push(entry);
    }
    all.extend(arguments.iter().skip(1).cloned());
    (all, kept)
}

fn flag_name(argument: &OsStr) -> Option<&str> {
    let name = argument.to_str()?.strip_prefix("--")?;
    Some(name.split('=').next().unwrap_or(name))
}

/// What clap refused: with the line, if it is in the file; else in clap's own words, which end the process.
fn refused(error: clap::Error, from_file: &[Entry]) -> anyhow::Error {
    let flag = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(flag)) => flag.clone(),
        Some(ContextValue::Strings(flags)) => flags.first().cloned().unwrap_or_default(),
        _ => String::new(),
    };
    let Some(entry) = entry_in(&flag, from_file) else { error.exit() };
    let text = error.to_string();
    let lines = text.lines().take_while(|l| !l.starts_with("For more") && !l.starts_with("Usage"));
    let said: Vec<&str> = lines.map(str::trim).filter(|l| !l.is_empty()).collect();
    anyhow!("{}: {}", entry.place(), said.join(" ").trim_start_matches("error: "))
}

/// The sentence, after the place of the first flag in it that is in the file.
fn located(error: anyhow::Error, from_file: &[Entry]) -> anyhow::Error {
    match entry_in(&format!("{error:#}"), from_file) {
        Some(entry) => anyhow!("{}: {error:#}", entry.place()),
        None => error,
    }
}

/// The entry of the first flag that a text names, as far as it is in the file.
fn entry_in<'a>(text: &str, from_file: &'a [Entry]) -> Option<&'a Entry> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let names: Vec<&str> = words.filter_map(|word| word.strip_prefix("--")).collect();
    names.iter().find_map(|name| from_file.iter().find(|e| e.name == *name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "cook")]
    struct Cook {
        #[command(flatten)]
        flags: Flags,
        #[arg(long)]
        data_dir: PathBuf,
        #[arg(long, default_value_t = 110)]
        max_pods: u32,
        #[arg(long, value_delimiter = ',')]
        label: Vec<String>,
        #[arg(long, default_value_t = true, action = ArgAction::Set)]
        extend: bool,
        #[arg(long)]
        overlay: bool,
        #[arg(long)]
        token: Option<String>,
        #[arg(long)]
        wash_up: bool,
    }

    impl Program for Cook {
        const COMMANDS: &[&str] = &["wash-up"];

        fn flags(&mut self) -> &mut Flags {
            &mut self.flags
        }

        fn validate(&self) -> Result<()> {
            anyhow::ensure!(self.max_pods > 0, "--max-pods: must be at least 1");
            Ok(())
        }
    }

    /// What a cook makes of a file and a command line: the values as `/configz` has them, or the error.
    fn said(text: &str, arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cook.yaml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let all = ["cook", "--config", &path].into_iter().chain(arguments.iter().copied()).map(OsString::from);
        let told = match parse::<Cook>(all) {
            Ok(mut cook) => cook.flags().shown(&["token"]).to_string(),
            Err(error) => format!("{error:#}"),
        };
        told.replace(folder.path().to_str().unwrap(), "")
    }

    #[test]
    fn the_command_line_counts_more_than_the_file() {
        let file = "data-dir: /x\nmax-pods: 7\nlabel: [a=1, b=2]\nextend: false\noverlay: true\ntoken: secret\n";
        let shown = said(file, &["--max-pods", "9", "--label=c=3"]);
        let expected = r#"{"config":"/cook.yaml","data-dir":"/x","extend":"false","label":"c=3","log":"info","log-format":"text","max-pods":"9","overlay":"true","token":"(hidden)","wash-up":"false"}"#;
        assert_eq!(shown, expected);
        let shown = said(file, &[]);
        assert!(shown.contains(r#""label":["a=1","b=2"],"#) && shown.contains(r#""max-pods":"7""#), "{shown}");
    }

    #[test]
    fn what_is_wrong_in_the_file_is_refused_with_its_line() {
        let table: &[(&str, &[&str], &str)] = &[
            ("data-dir: /x\nmax-pods: many\n", &[], "/cook.yaml:2: invalid value 'many' for '--max-pods <MAX_PODS>'"),
            ("data-dir: /x\n\nmax-pods: 0\n", &[], "/cook.yaml:3: --max-pods: must be at least 1"),
            ("data-dir: /x\nlog: =nonsense=\n", &[], "/cook.yaml:2: --log \"=nonsense=\": "),
            (
                "data-dir: /x\nmax-pots: 7\n",
                &[],
                "/cook.yaml:2: unknown key \"max-pots\"; the keys are data-dir, extend",
            ),
            ("config: /y\n", &[], "/cook.yaml:1: unknown key \"config\""),
            ("wash-up: true\n", &[], "/cook.yaml:1: unknown key \"wash-up\""),
            ("data-dir: [/x, /y]\n", &[], "/cook.yaml:1: the argument '--data-dir <DATA_DIR>' cannot be used multiple"),
            (
                "data-dir: /x\nlog-format: xml\n",
                &[],
                "/cook.yaml:2: invalid value 'xml' for '--log-format <LOG_FORMAT>' [possible values: text, json]",
            ),
            ("data-dir: /x\noverlay: perhaps\n", &[], "/cook.yaml:2: unexpected value 'perhaps'"),
            ("data-dir: /x\nmax-pods: 0\n", &["--max-pods=0"], "--max-pods: must be at least 1"),
            ("data-dir: /x\nmax-pods: 0\n", &["--max-pods=5"], "{"),
        ];
        for (file, arguments, expected) in table {
            let said = said(file, arguments);
            assert!(said.starts_with(expected), "{file:?} {arguments:?}: {said}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let all = ["cook", "--config=/does/not/exist"].map(OsString::from);
        let error = format!("{:#}", parse::<Cook>(all).unwrap_err());
        assert!(error.starts_with("--config /does/not/exist: cannot be read"), "{error}");
    }
}
