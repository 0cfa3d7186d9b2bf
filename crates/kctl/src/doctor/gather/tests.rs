use super::super::facts::{Listening, Protocol};
use super::*;

/// A made-up machine.
fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Place) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let place = Place { root: folder.path().to_owned(), docker: folder.path().join("run/docker.sock") };
    (folder, place)
}

#[test]
fn a_machine_is_read() {
    let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
               0: 00000000:192B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1\n   \
               1: 0100007F:2808 0100007F:0001 01 00000000:00000000 00:00000000 00000000     0        0 4243 1\n";
    let udp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
               3: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4244 2 0 0\n\
               4: 00000000:2118 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 0 2 0 0\n";
    let (folder, place) = machine(&[
        ("proc/sys/kernel/osrelease", "6.8.0-31-generic\n"),
        ("proc/sys/net/ipv4/ip_forward", "0\n"),
        ("proc/net/tcp", tcp),
        ("proc/net/udp", udp),
        ("etc/ufw/user.rules", "*filter\n### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in\n-A ufw-user-input\n"),
        ("proc/12/comm", "nginx\n"),
        ("proc/12/fd/.keep", ""),
        ("proc/net/ip_tables_names", "filter\n"),
        ("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory pids\n"),
        ("etc/default/ufw", "# policy\nDEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_FORWARD_POLICY=\"DROP\"\n"),
        ("etc/ufw/ufw.conf", "ENABLED=yes\n"),
        ("etc/resolv.conf", "# stub\nnameserver 127.0.0.53\noptions edns0\n"),
        ("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.53\n"),
        (
            "etc/coracle/minion.yaml",
            "data-dir: /x\nnode-ip: '10.0.0.4' # eth0\nkubelet-port: 11250\n\
          service-cluster-ip-range: 10.99.1.0/16\noverlay: true\n",
        ),
        ("var/lib/x", ""),
    ]);
    std::os::unix::fs::symlink("socket:[4242]", folder.path().join("proc/12/fd/3")).unwrap();
    let facts = gather(&place);
    assert_eq!((facts.kernel.as_str(), facts.ip_forward), ("6.8.0-31-generic", Some(false)));
    let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let (nginx, unseen) = ((Some("nginx".to_owned()), Some(12)), (None, None));
    let ports = [(Protocol::Tcp, 6443, nginx), (Protocol::Udp, 53, unseen)];
    let ports =
        ports.map(|(protocol, port, (program, pid))| Listening { protocol, address: everywhere, port, program, pid });
    assert_eq!(facts.listening, ports, "and the kernel's own are not in the way");
    assert_eq!(facts.cgroups.unwrap().1.len(), 5);
    let ufw = facts.ufw.unwrap();
    assert_eq!((ufw.enabled, ufw.forward_policy.as_str(), ufw.line), (true, "DROP", 3));
    assert_eq!((ufw.input_policy.as_str(), ufw.rules.unwrap()[0].ports[0]), ("DROP", (22, 22)));
    assert_eq!(ufw.file, folder.path().join("etc/default/ufw"));
    assert_eq!(facts.name_servers, ["127.0.0.53".parse::<IpAddr>().unwrap()]);
    assert_eq!(facts.resolved_servers, ["10.0.0.53".parse::<IpAddr>().unwrap()]);
    assert_eq!(facts.node_ip.as_deref(), Some("10.0.0.4"));
    assert_eq!(
        facts.ports,
        Ports { kubelet: 11250, overlay: true, dns: "10.99.0.10".parse().ok(), ..Ports::default() }
    );
    assert!(facts.legacy_rules && facts.docker.unwrap_err().contains("No such file"));
    assert_eq!(facts.disks.len(), 1, "only one of the two is there");
}

#[test]
fn what_the_minion_was_told_counts() {
    let (_folder, place) = machine(&[
        ("etc/resolv.conf", "nameserver 127.0.0.53\n"),
        ("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.53\n"),
        ("etc/pods.conf", "nameserver 10.0.0.99\n"),
        ("etc/coracle/minion.yaml", "resolv-conf: /etc/pods.conf\ncluster-dns: 10.0.0.53\ndata-dir: /data\n"),
        ("data/pki/kubelet-client.pem", "no certificate"),
        ("usr/bin/minion", ""),
    ]);
    let facts = gather(&place);
    assert_eq!(facts.resolv_conf, Path::new("/etc/pods.conf"));
    assert_eq!(facts.name_servers, ["10.0.0.99".parse::<IpAddr>().unwrap()]);
    assert!(facts.ports.dns.is_none(), "pods ask another");
    assert!(facts.resolved_servers.is_empty() && facts.minion_installed && facts.certificates.is_empty());
}

#[test]
fn control_groups_of_the_first_version_count_where_they_are_mounted() {
    let table = "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t3\t40\t1\nmemory\t5\t40\t0\npids\t6\t40\t1\n";
    let (_folder, place) = machine(&[("proc/cgroups", table), ("sys/fs/cgroup/cpu/tasks", "")]);
    assert_eq!(cgroups(&place), Some((1, vec!["cpu".to_owned()])));
    assert_eq!(cgroups(&machine(&[]).1), None);
}

#[test]
fn addresses_of_containers_are_no_addresses_of_the_machine() {
    let shown = r#"[{"ifname":"lo","addr_info":[{"local":"127.0.0.1","scope":"host","label":"lo"},
          {"local":"10.96.0.10","scope":"global","label":"lo:coracle"}]},
        {"ifname":"eth0","addr_info":[{"local":"10.0.0.4","scope":"global"},{"local":"169.254.1.1","scope":"link"}]},
        {"ifname":"docker0","addr_info":[{"local":"172.17.0.1","scope":"global"}]},
        {"ifname":"coracle0","addr_info":[{"local":"10.244.0.1","scope":"global"}]}]"#;
    assert_eq!(addresses(shown), [("eth0".to_owned(), "10.0.0.4".parse::<IpAddr>().unwrap())]);
    assert!(addresses("nonsense").is_empty());
}

#[test]
fn an_engine_is_asked_on_its_socket() {
    use std::os::unix::net::UnixListener;
    let (folder, mut place) = machine(&[]);
    place.docker = folder.path().join("docker.sock");
    let listener = UnixListener::bind(&place.docker).unwrap();
    let engine = std::thread::spawn(move || {
        for body in [
            r#"{"Driver":"overlay2","CgroupDriver":"systemd","DockerRootDir":"/d"}"#,
            r#"{"Version":"28.0.0","ApiVersion":"1.48","MinAPIVersion":"1.24"}"#,
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = [0; 256];
            let _ = stream.read(&mut asked).unwrap();
            write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").unwrap();
        }
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 256]).unwrap();
        write!(stream, "HTTP/1.0 500 Internal Server Error\r\n\r\nno").unwrap();
    });
    let found = docker(&place).unwrap();
    assert_eq!((found.version.as_str(), found.api.as_str(), found.root.to_str().unwrap()), ("28.0.0", "1.48", "/d"));
    assert!(docker(&place).unwrap_err().contains("500"));
    engine.join().unwrap();
}
