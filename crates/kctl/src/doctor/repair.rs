//! The repairs that are safe: each can be undone, and takes nothing away that runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What can be done about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Starts the engine that is installed.
    StartDocker,
    /// Lets packets through to pods, now and after the next start.
    Forwarding,
    /// Changes UFW's policy for forwarded packets in this file, and has it read.
    UfwForward(PathBuf),
}

impl Repair {
    /// Does it; says what was done, or why it could not be.
    pub fn run(&self, root: &Path) -> Result<String, String> {
        match self {
            Repair::StartDocker => {
                run(root, "systemctl", &["start", "docker"])?;
                Ok("started Docker".to_owned())
            }
            Repair::Forwarding => {
                let line = "net.ipv4.ip_forward = 1\n";
                write(&root.join("proc/sys/net/ipv4/ip_forward"), "1")?;
                write(&root.join("etc/sysctl.d/99-coracle.conf"), line)?;
                Ok("set net.ipv4.ip_forward to 1, in /etc/sysctl.d/99-coracle.conf too".to_owned())
            }
            Repair::UfwForward(file) => {
                let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
                write(file, &accepting(&text))?;
                run(root, "ufw", &["reload"])?;
                Ok(format!("wrote DEFAULT_FORWARD_POLICY=\"ACCEPT\" into {}", file.display()))
            }
        }
    }
}

/// UFW's defaults with forwarding accepted; all else as it was.
fn accepting(text: &str) -> String {
    const LINE: &str = "DEFAULT_FORWARD_POLICY=\"ACCEPT\"";
    let sets = |line: &str| line.trim_start().starts_with("DEFAULT_FORWARD_POLICY=");
    let mut lines: Vec<&str> = text.lines().map(|line| if sets(line) { LINE } else { line }).collect();
    if !lines.contains(&LINE) {
        lines.push(LINE);
    }
    lines.join("\n") + "\n"
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

/// Programs act on the machine, so a made-up one has none.
fn run(root: &Path, program: &str, arguments: &[&str]) -> Result<(), String> {
    if root != Path::new("/") {
        return Ok(());
    }
    let shown = format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).output().map_err(|error| format!("{shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{shown}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_policy_changes() {
        let before = "# a\nDEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_FORWARD_POLICY=\"DROP\"\nIPV6=yes\n";
        let after = before.replace("FORWARD_POLICY=\"DROP\"", "FORWARD_POLICY=\"ACCEPT\"");
        assert_eq!(accepting(before), after);
        assert_eq!(accepting(&after), after, "a second time changes nothing");
        assert_eq!(accepting("IPV6=yes\n"), "IPV6=yes\nDEFAULT_FORWARD_POLICY=\"ACCEPT\"\n");
    }
}
