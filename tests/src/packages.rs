//! The packages of the programs under test.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::docker::output;

/// The folder this repository is in.
pub fn repository() -> Result<PathBuf> {
    Ok(Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests are in a folder")?.canonicalize()?)
}

/// Puts the programs into a folder, without what only debuggers read. `all` is one program that is each of them by its name.
pub fn programs(all: &Path, folder: &Path) -> Result<()> {
    let master = folder.join("master");
    output("objcopy", &["--strip-all", text(all)?, text(&master)?])?;
    for name in ["minion", "kctl"] {
        std::fs::hard_link(&master, folder.join(name))?;
    }
    Ok(())
}

/// Makes packages of a version from the programs in a folder; the folder they are in.
pub fn make(folder: &Path, version: &str) -> Result<PathBuf> {
    let out = folder.join(version);
    let script = repository()?.join("deploy/package.sh");
    let flags = ["--from", text(folder)?, "--out", text(&out)?, "--version", version, "--compression", "none"];
    output(text(&script)?, &flags)?;
    Ok(out)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("paths of tests are plain")
}
