//! A part of a volume as a mount of its own (`subPath`). A container may write links into its volume that lead out of
//! it; so the part is opened by the kernel with everything above the volume out of reach (`openat2`), and what was
//! opened is bind-mounted, not its path (`pkg/volume/util/subpath`).

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, fstat, mkdirat};

/// Mounts `sub_path` of `volume` at `place` and gives the place; with `create`, makes directories that are missing.
pub fn bind(volume: &Path, sub_path: &str, place: &Path, create: bool) -> Result<PathBuf, String> {
    if Path::new(sub_path).is_absolute() || sub_path.split('/').any(|part| part == "..") {
        return Err(format!("subPath \"{sub_path}\" must be relative and must not contain '..'"));
    }
    let root = open(volume, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).map_err(text)?;
    if create {
        make_directories(&root, sub_path)?;
    }
    let part = open_below(&root, sub_path).map_err(|error| format!("subPath \"{sub_path}\": {error}"))?;
    super::tmpfs::unmount(place).map_err(|error| error.to_string())?;
    let is_dir = fstat(&part).map_err(text)?.st_mode & nix::libc::S_IFMT == nix::libc::S_IFDIR;
    make_place(place, is_dir).map_err(|error| error.to_string())?;
    let source = format!("/proc/self/fd/{}", part.as_raw_fd());
    mount(Some(source.as_str()), place, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(text)?;
    Ok(place.to_owned())
}

fn text(error: Errno) -> String {
    error.to_string()
}

fn open_below(root: &OwnedFd, path: &str) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_BENEATH);
    openat2(root, path, how)
}

fn make_directories(root: &OwnedFd, sub_path: &str) -> Result<(), String> {
    let mut at = String::new();
    for part in sub_path.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let parent = if at.is_empty() { ".".to_owned() } else { at.clone() };
        at = if at.is_empty() { part.to_owned() } else { format!("{at}/{part}") };
        if matches!(open_below(root, &at), Err(Errno::ENOENT)) {
            let parent = open_below(root, &parent).map_err(text)?;
            match mkdirat(&parent, part, Mode::from_bits_truncate(0o750)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(error) => return Err(text(error)),
            }
        }
    }
    Ok(())
}

fn make_place(place: &Path, is_dir: bool) -> std::io::Result<()> {
    if is_dir {
        return fs::create_dir_all(place);
    }
    if let Some(parent) = place.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().write(true).create(true).truncate(false).open(place).map(drop)
}
