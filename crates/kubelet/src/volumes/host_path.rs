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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_what_its_type_says_or_becomes_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        fs::create_dir(path("dir")).unwrap();
        fs::write(path("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        std::os::unix::fs::symlink(path("dir"), path("link")).unwrap();
        let null = "/dev/null".to_owned();
        let not = |path: &str, what: &str| Err(format!("hostPath type check failed: {path} is not {what}"));
        let of = |type_: Option<&str>, path: &str| {
            check(&HostPathVolumeSource { path: path.to_owned(), type_: type_.map(str::to_owned) })
        };
        for (type_, good, wrong, what) in [
            ("Directory", vec![path("dir"), path("link")], vec![path("file"), path("none")], "a directory"),
            ("DirectoryOrCreate", vec![path("dir"), path("made/dir")], vec![path("file")], "a directory"),
            ("File", vec![path("file")], vec![path("dir"), path("none"), path("socket")], "a file"),
            ("FileOrCreate", vec![path("file"), path("made-file")], vec![path("dir")], "a file"),
            ("Socket", vec![path("socket")], vec![path("file"), path("none")], "a socket file"),
            ("CharDevice", vec![null.clone()], vec![path("file"), path("none")], "a character device"),
            ("BlockDevice", vec![], vec![null, path("none")], "a block device"),
        ] {
            good.iter().for_each(|path| assert_eq!(of(Some(type_), path), Ok(()), "{type_} {path}"));
            wrong.iter().for_each(|path| assert_eq!(of(Some(type_), path), not(path, what), "{type_} {path}"));
        }
        assert_eq!(of(None, &path("file")).and(of(Some(""), &path("made"))), Ok(()));
        assert_eq!(of(Some("Door"), &path("dir")), Err("Door is an invalid volume type".to_owned()));
        let mode = |name: &str| fs::metadata(path(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("made/dir"), mode("made-file")), (0o755, 0o644), "whatever the umask");
        assert!(
            of(Some("FileOrCreate"), &path("no/such/dir/file")).is_err(),
            "files are made, their directories are not"
        );
    }
}
