//! The packages: what is in them, and a box they are installed on, configured, upgraded, removed from and installed on
//! again, with a Docker Engine of its own and without systemd.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::path::Path;
use std::process::Command;

use harness::docker::{self, output};
use harness::kubectl::nothing_may_be_missing;
use harness::packages::{self, repository};

fn archive(folder: &Path, name: &str) -> String {
    let found = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut found = found.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&format!("{name}_")));
    found.next().unwrap().to_str().unwrap().to_owned()
}

fn the_packages_have_what_they_should(packages: &Path, folder: &Path) {
    let root = folder.join("root");
    for (name, expected) in [
        (
            "coracle-master",
            &["/etc/coracle/master.yaml", "/usr/bin/master", "/usr/lib/systemd/system/coracle-master.service"][..],
        ),
        (
            "coracle-minion",
            &["/etc/coracle/minion.yaml", "/usr/bin/minion", "/usr/lib/systemd/system/coracle-minion.service"],
        ),
        ("coracle-kctl", &["/usr/bin/kctl"]),
    ] {
        let archive = archive(packages, name);
        let listed = output("dpkg-deb", &["-c", &archive]).unwrap();
        let files: Vec<&str> = listed
            .lines()
            .filter(|line| !line.starts_with('d'))
            .filter_map(|line| line.split_whitespace().nth(5)?.strip_prefix('.'))
            .filter(|file| !file.starts_with("/usr/share/doc/"))
            .collect();
        assert_eq!(files, expected, "{name}");
        assert!(listed.lines().all(|line| line.contains(" root/root ")), "{listed}");
        // The C library is asked for by version, so that dpkg refuses an older machine by name.
        let depends = output("dpkg-deb", &["-f", &archive, "Depends"]).unwrap();
        let floor = depends.split("libc6 (>= ").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
        assert!(floor.starts_with("2."), "{depends}");
        output("dpkg-deb", &["-x", &archive, root.to_str().unwrap()]).unwrap();
    }
    for program in ["master", "minion"] {
        let settings = output("dpkg-deb", &["-I", &archive(packages, &format!("coracle-{program}")), "conffiles"]);
        assert_eq!(settings.unwrap().trim(), format!("/etc/coracle/{program}.yaml"));
    }
    for site in ["coracle.conf", "coracle-stream.conf"] {
        assert!(root.join("usr/share/doc/coracle-master/nginx").join(site).is_file(), "{site}: the page offers it");
    }
    if Command::new("systemd-analyze").arg("--version").output().is_ok() {
        the_units_are_sound(&root);
    } else {
        assert!(!nothing_may_be_missing(), "CI needs systemd-analyze");
        eprintln!("skipped: no systemd-analyze to judge the units (deploy/setup.sh test)");
    }
}

/// systemd's own judgement; what it thinks of the exposure, at most.
fn the_units_are_sound(root: &Path) {
    let root = root.to_str().unwrap();
    for (unit, exposure_tenths) in [("coracle-master.service", 20), ("coracle-minion.service", 70)] {
        let file = format!("{root}/usr/lib/systemd/system/{unit}");
        // The program is where it will be, not where it is.
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replace("ExecStart=", &format!("ExecStart={root}"))).unwrap();
        let judged = Command::new("systemd-analyze").args(["verify", "--man=no", &file]).output().unwrap();
        let said = String::from_utf8_lossy(&judged.stderr).into_owned();
        assert!(judged.status.success() && !said.contains(unit), "{said}");
        let threshold = exposure_tenths.to_string();
        let root = format!("--root={root}");
        let judge = ["security", "--offline=true", &root, "--no-pager", "--threshold", &threshold, unit];
        output("systemd-analyze", &judge).unwrap();
    }
}

/// What a minion's removal says and whether it succeeds, where the minion cannot clean up (no engine answers); below
/// `root` is all the script knows of the machine.
fn removed(root: &Path, how: &str) -> (bool, String) {
    let script = std::fs::read_to_string(repository().unwrap().join("deploy/deb/coracle-minion.prerm")).unwrap();
    let moved = |script: String, path: &str| script.replace(path, &format!("{}{path}", root.display()));
    let places = ["/usr/bin/minion", "/etc/coracle", "/var/lib/coracle-minion", "/run/systemd"];
    let script = places.into_iter().fold(script, moved);
    let ran = Command::new("sh").args(["-c", &script, "prerm", how]).output().unwrap();
    (
        ran.status.success(),
        String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).replace(root.to_str().unwrap(), ""),
    )
}

#[test]
fn a_minion_that_cannot_clean_up_is_removed_only_where_it_was_no_node() {
    use std::os::unix::fs::PermissionsExt;
    let usual = "/var/lib/coracle-minion";
    for (case, settings, node, how, expected) in [
        ("it never joined", Some("server: x\n"), None, "remove", (true, usual)),
        ("it was a node", Some("server: x\n"), Some(usual), "remove", (false, usual)),
        ("its settings are gone", None, None, "remove", (true, usual)),
        ("its settings are gone, and it was a node", None, Some(usual), "remove", (false, usual)),
        ("it was a node elsewhere", Some("data-dir: '/data/x' # big\n"), Some("/data/x"), "remove", (false, "/data/x")),
        ("another was one, in the usual place", Some("data-dir: /data/x\n"), Some(usual), "remove", (true, "/data/x")),
        ("it is upgraded", Some("server: x\n"), Some(usual), "upgrade", (true, "")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let write = |path: &str, text: &str| {
            let path = root.join(&path[1..]);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path
        };
        let program = write("/usr/bin/minion", "#!/bin/sh\necho no engine answers\nexit 1\n");
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
        // What the settings name is a path of the machine, which the test moves as well.
        let settings = settings.map(|text| text.replace("/data", &format!("{}/data", root.display())));
        settings.iter().for_each(|text| drop(write("/etc/coracle/minion.yaml", text)));
        node.iter().for_each(|dir| drop(write(&format!("{dir}/node-name"), "box")));
        let (succeeded, said) = removed(root, how);
        let (succeeds, place) = expected;
        assert_eq!(succeeded, succeeds, "{case}: {said}");
        let advice = format!("rm -r {place}\n");
        assert!(if place.is_empty() { said.is_empty() } else { said.ends_with(&advice) }, "{case}: {said}");
    }
}

/// Needs root and Docker; takes as long as the engine does.
#[test]
fn a_box_is_installed_upgraded_and_left_as_it_was() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        assert!(!nothing_may_be_missing(), "CI needs dpkg");
        eprintln!("skipped: no dpkg here");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    packages::programs(Path::new(env!("CARGO_BIN_EXE_programs")), folder.path()).unwrap();
    let (old, new) = (packages::make(folder.path(), "0.1.0").unwrap(), packages::make(folder.path(), "0.2.0").unwrap());
    the_packages_have_what_they_should(&old, folder.path());
    if !docker::available() {
        eprintln!("skipped: not root, or no Docker Engine to be had");
        return;
    }
    let repository = repository().unwrap();
    let scripts = repository.join("tests/install");
    let ran = Command::new(scripts.join("box.sh"))
        .env("BOX_FOLDERS", format!("{} {}", repository.display(), folder.path().display()))
        .arg(scripts.join("scenario.sh"))
        .args([&repository, &old, &new])
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && text.contains("all of it holds"), "{text}");
}
