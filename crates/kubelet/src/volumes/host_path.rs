//! `hostPath` volumes: a path of the host, checked against the type the pod says it has
//! (`pkg/volume/hostpath/host_path.go`).

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use k8s_openapi::api::core::v1::HostPathVolumeSource;

/// Sees that the path is what its type says, making it where the type says so.
pub fn check(source: &HostPathVolumeSource) -> Result<(), String> {
    let path = Path::new(&source.path);
    let type_ = source.type_.as_deref().unwrap_or_default();
    let found = fs::metadata(path).ok();
    let is = |test: fn(&fs::FileType) -> bool| found.as_ref().is_some_and(|m| test(&m.file_type()));
    let refuse = |what: &str| Err(format!("hostPath type check failed: {} is not {what}", source.path));
    match type_ {
        // Docker would make it, too; this way a mount that names it never fails.
        "" if found.is_none() => make_dir(path),
        "" => Ok(()),
        "DirectoryOrCreate" if found.is_none() => make_dir(path),
        "FileOrCreate" if found.is_none() => make_file(path),
        "Directory" | "DirectoryOrCreate" if !is(fs::FileType::is_dir) => refuse("a directory"),
        "File" | "FileOrCreate" if !is(fs::FileType::is_file) => refuse("a file"),
        "Socket" if !is(fs::FileType::is_socket) => refuse("a socket file"),
        "CharDevice" if !is(fs::FileType::is_char_device) => refuse("a character device"),
        "BlockDevice" if !is(fs::FileType::is_block_device) => refuse("a block device"),
        "Directory" | "DirectoryOrCreate" | "File" | "FileOrCreate" | "Socket" | "CharDevice" | "BlockDevice" => Ok(()),
        _ => Err(format!("{type_} is an invalid volume type")),
    }
}

fn make_dir(path: &Path) -> Result<(), String> {
    let made = fs::create_dir_all(path).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)));
    made.map_err(|error| error.to_string())
}

fn make_file(path: &Path) -> Result<(), String> {
    let made = fs::File::create_new(path).and_then(|file| file.set_permissions(fs::Permissions::from_mode(0o644)));
    made.map_err(|error| error.to_string())
}
