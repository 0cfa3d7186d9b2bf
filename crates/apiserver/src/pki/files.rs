//! Files of the data directory: keys for the owner only, and never half written.

use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use crate::error::Error;

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File { path, source }
}

/// Makes a directory only its owner enters.
pub(super) fn create_directory(path: &Path) -> Result<(), Error> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// A file's text; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Writes what only the owner may read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<(), Error> {
    write(path, text, 0o600)
}

/// Writes what everyone may read, unless it is there already.
pub(super) fn write_public(path: &Path, text: &str) -> Result<(), Error> {
    if read(path)?.as_deref() == Some(text) {
        return Ok(());
    }
    write(path, text, 0o644)
}

/// Writes beside and renames, so that a crash leaves the old file or the new one.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    let beside = path.with_extension("tmp");
    let _ = std::fs::remove_file(&beside);
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed(&beside))?;
    file.write_all(text.as_bytes()).map_err(failed(&beside))?;
    file.sync_all().map_err(failed(&beside))?;
    std::fs::rename(&beside, path).map_err(failed(path))
}
