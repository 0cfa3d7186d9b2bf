//! Exports of other machines (NFS), mounted by the machine's own `mount` (`pkg/volume/nfs`).

use std::path::Path;
use std::time::Duration;

use tokio::process::Command;

use super::tmpfs;

/// How long a server may take; after that the pod tries again.
const MOUNT_MAX: Duration = Duration::from_secs(123);

/// What is to be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// The server's name or address.
    pub server: String,
    /// The exported path.
    pub path: String,
    /// Whether nothing may be written.
    pub read_only: bool,
    /// Further options of the volume.
    pub options: Vec<String>,
}

impl Export {
    /// The arguments of `mount`.
    fn arguments(&self, place: &Path) -> Vec<String> {
        let mut options = self.options.clone();
        if self.read_only {
            options.push("ro".to_owned());
        }
        let server = if self.server.contains(':') { format!("[{}]", self.server) } else { self.server.clone() };
        let mut arguments = vec!["-t".to_owned(), "nfs".to_owned()];
        if !options.is_empty() {
            arguments.extend(["-o".to_owned(), options.join(",")]);
        }
        arguments.extend([format!("{server}:{}", self.path), place.display().to_string()]);
        arguments
    }
}

/// Mounts the export at `place`, unless something is mounted there. Given up, also halfway, the mount command ends.
pub async fn ensure(export: &Export, place: &Path) -> Result<(), String> {
    tokio::fs::create_dir_all(place).await.map_err(|error| error.to_string())?;
    if tmpfs::is_mounted(place).map_err(|error| error.to_string())? {
        return Ok(());
    }
    let arguments = export.arguments(place);
    let ran = Command::new("mount").args(&arguments).kill_on_drop(true).output();
    let failed = |status: &str, output: &str| {
        let arguments = arguments.join(" ");
        format!("mount failed: {status}\nMounting command: mount\nMounting arguments: {arguments}\nOutput: {output}\n")
    };
    match tokio::time::timeout(MOUNT_MAX, ran).await {
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            let code = output.status.code().map_or_else(|| "killed".to_owned(), |code| format!("exit status {code}"));
            Err(failed(&code, &said))
        }
        Ok(Err(error)) => Err(failed(&error.to_string(), "")),
        Err(_) => Err(failed("timed out", "")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_are_mounted_as_the_volume_says() {
        let export = |server: &str, read_only, options: &[&str]| Export {
            server: server.into(),
            path: "/data".into(),
            read_only,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        };
        for (export, expected) in [
            (export("10.0.0.5", false, &[]), "-t nfs 10.0.0.5:/data /p"),
            (export("nas", true, &["nfsvers=4.2", "hard"]), "-t nfs -o nfsvers=4.2,hard,ro nas:/data /p"),
            (export("fd00::1", true, &[]), "-t nfs -o ro [fd00::1]:/data /p"),
        ] {
            assert_eq!(export.arguments(Path::new("/p")).join(" "), expected);
        }
    }

    #[tokio::test]
    async fn what_mount_says_is_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let export =
            Export { server: "127.0.0.1".into(), path: "/no".into(), read_only: true, options: vec!["bogus=1".into()] };
        let error = ensure(&export, &dir.path().join("place")).await.unwrap_err();
        assert!(error.starts_with("mount failed: "), "{error}");
        assert!(error.contains("Mounting arguments: -t nfs -o bogus=1,ro 127.0.0.1:/no "), "{error}");
    }
}
