//! The files of an image as a volume (`image`): unpacked once for the pod, and never to be written. The mount here is
//! `noexec` as well, but Docker does not pass that on to containers.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use nix::mount::{MsFlags, mount};
use tokio::sync::mpsc;

use super::tmpfs;
use crate::runtime;

/// Pieces of an archive that wait to be unpacked.
const PIECES: usize = 4;

/// Unpacks the archive `files` at `place`, unless that was done before. Given up halfway, nothing is at `place`.
pub async fn unpack(mut files: BoxStream<'static, runtime::Result<Bytes>>, place: &Path) -> Result<(), String> {
    let (sender, pieces) = mpsc::channel(PIECES);
    let place = place.to_owned();
    let reader = Pieces { pieces, piece: Bytes::new(), ended: false };
    let unpacking = tokio::task::spawn_blocking(move || unpack_blocking(reader, &place));
    while let Some(piece) = files.next().await {
        // Whoever unpacks has stopped, and says why.
        if sender.send(piece.map(Some).map_err(io::Error::other)).await.is_err() {
            break;
        }
    }
    // Said out loud: where this is given up before, the end is not the archive's.
    let _ = sender.send(Ok(None)).await;
    unpacking.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// An archive that comes in pieces, for a thread that waits for them.
struct Pieces {
    pieces: mpsc::Receiver<io::Result<Option<Bytes>>>,
    piece: Bytes,
    ended: bool,
}

impl io::Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(piece) => match piece? {
                    Some(piece) => self.piece = piece,
                    None => self.ended = true,
                },
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// Whether the volume is there.
pub fn is_ready(place: &Path) -> io::Result<bool> {
    tmpfs::is_mounted(place)
}

fn unpack_blocking(files: impl io::Read, place: &Path) -> io::Result<()> {
    let unfinished = unfinished(place);
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let mut archive = tar::Archive::new(files);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_overwrite(true);
    archive.unpack(&unfinished)?;
    if !place.exists() {
        fs::rename(&unfinished, place)?;
    }
    shut(place)
}

fn unfinished(place: &Path) -> PathBuf {
    let mut name = place.file_name().unwrap_or_default().to_owned();
    name.push(".unfinished");
    place.with_file_name(name)
}

/// Makes a mount of the directory, which can neither be written nor give anyone anything to run.
fn shut(place: &Path) -> io::Result<()> {
    let none = None::<&str>;
    mount(Some(place), place, none, MsFlags::MS_BIND, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(none, place, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags, none)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_images_files_can_be_read_and_not_written() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("v");
        let mut archive = tar::Builder::new(Vec::new());
        for (name, mode) in [("etc/motd", 0o640), ("../escape", 0o644)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(5);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            // The builder refuses such names; whoever made the image need not have.
            let bytes = name.as_bytes();
            header.as_gnu_mut().unwrap().name[..bytes.len()].copy_from_slice(bytes);
            header.set_cksum();
            archive.append(&header, &b"hello"[..]).unwrap();
        }
        let archive = Bytes::from(archive.into_inner().unwrap());
        let pieces = futures::stream::iter([Ok(archive.slice(..700)), Ok(archive.slice(700..))]).boxed();
        unpack(pieces, &place).await.unwrap();
        assert!(is_ready(&place).unwrap());
        assert_eq!(fs::read_to_string(place.join("etc/motd")).unwrap(), "hello");
        assert!(!dir.path().join("escape").exists(), "nothing leaves the volume");
        let refused = fs::write(place.join("new"), "x").unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(nix::errno::Errno::EROFS as i32));
        tmpfs::unmount(&place).unwrap();

        // What broke off is not taken for the whole.
        let broken = futures::stream::iter([Ok(archive.slice(..700)), Err(runtime::Error::Refused("gone".into()))]);
        let other = dir.path().join("w");
        assert!(unpack(broken.boxed(), &other).await.is_err());
        assert!(!other.exists());
    }
}
