//! The sandbox's image: the pause program made by `build.rs`, in the one layer of an image made here and loaded into
//! Docker when it is first needed. No registry is asked.

use std::sync::LazyLock;

use bollard::Docker;
use bollard::query_parameters::{ImportImageOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures::StreamExt;
use ring::digest::{SHA256, digest};
use serde_json::json;

use super::super::{Error, Result};
use crate::names::hex;

/// The program.
static PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// Another program is another image: the tag is a hash.
static IMAGE: LazyLock<String> =
    LazyLock::new(|| format!("coracle/pause:{}", &hex(digest(&SHA256, PROGRAM).as_ref())[..12]));

/// The image's name.
pub(super) fn image() -> &'static str {
    &IMAGE
}

/// Sees that Docker has the image.
pub(super) async fn ensure(docker: &Docker) -> Result<()> {
    if super::images::find(docker, image()).await?.is_some() {
        return Ok(());
    }
    let archive =
        archive(image(), &[("pause", PROGRAM)], &["/pause"]).map_err(|error| Error::Refused(error.to_string()))?;
    load(docker, archive).await
}

/// Removes the image, unless it is gone or a container uses it.
pub(super) async fn remove(docker: &Docker) -> Result<()> {
    match docker.remove_image(image(), None::<RemoveImageOptions>, None).await.map_err(super::error) {
        Ok(_) | Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Gives Docker an image.
pub(crate) async fn load(docker: &Docker, archive: Vec<u8>) -> Result<()> {
    let options = ImportImageOptionsBuilder::new().quiet(true).build();
    let mut answers = std::pin::pin!(docker.import_image(options, bollard::body_full(Bytes::from(archive)), None));
    while let Some(answer) = answers.next().await {
        answer.map_err(super::error)?;
    }
    Ok(())
}

/// An image of a few programs, as `docker save` would write it.
pub(crate) fn archive(name: &str, programs: &[(&str, &[u8])], entrypoint: &[&str]) -> std::io::Result<Vec<u8>> {
    let programs: Vec<(&str, &[u8], u32)> = programs.iter().map(|(path, program)| (*path, *program, 0o755)).collect();
    let layer = tar(&programs)?;
    let config = json!({
        "architecture": crate::node::machine::architecture(),
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", hex(digest(&SHA256, &layer).as_ref()))]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "coracle"}],
        "created": "1970-01-01T00:00:00Z",
    });
    let config = config.to_string();
    let manifest = json!([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).to_string();
    tar(&[
        ("layer.tar", &layer, 0o644),
        ("config.json", config.as_bytes(), 0o644),
        ("manifest.json", manifest.as_bytes(), 0o644),
    ])
}

fn tar(files: &[(&str, &[u8], u32)]) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, data, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(data.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_cksum();
        archive.append_data(&mut header, name, *data)?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_small_and_static_and_its_image_is_always_the_same() {
        assert!(PROGRAM.starts_with(b"\x7fELF") && PROGRAM.len() < 16 << 10);
        let made = || archive(image(), &[("pause", PROGRAM)], &["/pause"]).unwrap();
        assert_eq!(made(), made());
    }
}
