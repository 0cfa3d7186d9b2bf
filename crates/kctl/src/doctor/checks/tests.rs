use client::expiry::Ending;

use super::super::facts::{Disk, Listening, Ports, Protocol, Ufw, UfwRule};
use super::*;

fn good() -> Facts {
    Facts {
        architecture: "x86_64".to_owned(),
        kernel: "6.1.0-18-amd64".to_owned(),
        docker: Ok(Docker {
            version: "20.10.24".to_owned(),
            api: "1.41".to_owned(),
            min_api: "1.12".to_owned(),
            storage_driver: "overlay2".to_owned(),
            cgroup_driver: "systemd".to_owned(),
            root: "/var/lib/docker".into(),
        }),
        docker_endpoint: "/var/run/docker.sock".to_owned(),
        cgroups: Some((2, ["cpu", "io", "memory", "pids"].map(str::to_owned).to_vec())),
        minion_installed: true,
        nft: Some("nftables v1.0.6".to_owned()),
        iptables: Some("iptables v1.8.9 (nf_tables)".to_owned()),
        legacy_rules: false,
        missing_programs: Vec::new(),
        ip_forward: Some(true),
        ufw: None,
        ports: Ports::default(),
        listening: vec![listening(22, "sshd"), listening(6443, "master")],
        clock_ahead: Some(Ok(1)),
        addresses: vec![address("eth0", "10.0.0.1")],
        node_ip: None,
        resolv_conf: "/etc/resolv.conf".into(),
        name_servers: vec!["10.0.0.53".parse().unwrap()],
        resolved_servers: Vec::new(),
        disks: vec![
            Disk { what: "files", path: "/var/lib".into(), free_percent: 60, evicts_below: 10, free_mib: 9000 },
            Disk { what: "images", path: "/var/lib/docker".into(), free_percent: 60, evicts_below: 15, free_mib: 9000 },
        ],
        certificates: vec![("/var/lib/coracle/pki/ca.crt".into(), ending("2039-01-01T00:00:00Z"))],
        now: "2030-01-01T00:00:00Z".parse().unwrap(),
    }
}

fn ending(at: &str) -> Ending {
    Ending::new("it", at.parse().unwrap())
}

fn listening(port: u16, program: &str) -> Listening {
    taken(Protocol::Tcp, "0.0.0.0", port, program)
}

fn taken(protocol: Protocol, address: &str, port: u16, program: &str) -> Listening {
    let address = address.parse().unwrap();
    Listening { protocol, address, port, program: Some(program.to_owned()), pid: Some(7) }
}

fn address(name: &str, ip: &str) -> (String, IpAddr) {
    (name.to_owned(), ip.parse().unwrap())
}

fn ufw(enabled: bool, policy: &str) -> Option<Ufw> {
    let (forward_policy, file, input_policy) = (policy.to_owned(), "/etc/default/ufw".into(), "ACCEPT".to_owned());
    Some(Ufw { enabled, forward_policy, file, line: 19, input_policy, rules: Some(Vec::new()) })
}

/// One that drops what comes in but for these ports.
fn closed(enabled: bool, open: &[(bool, Option<Protocol>, (u16, u16))]) -> Option<Ufw> {
    let rule = |(allows, protocol, ports): &(bool, Option<Protocol>, (u16, u16))| UfwRule {
        allows: *allows,
        protocol: *protocol,
        ports: vec![*ports],
    };
    let rules = Some(open.iter().map(rule).collect());
    Some(Ufw { input_policy: "DROP".to_owned(), rules, ..ufw(enabled, "ACCEPT")? })
}

fn docker(change: impl Fn(&mut Docker)) -> Result<Docker, String> {
    let mut docker = good().docker.unwrap();
    change(&mut docker);
    Ok(docker)
}

/// What is not fine, as text.
fn said(facts: &Facts, role: Role) -> String {
    let found = findings(facts, role);
    let bad = found.iter().filter(|f| f.level > Level::Fine);
    let shown = |f: &Finding| format!("{:?} {}: {} -> {}", f.level, f.item, f.what, f.fix.as_deref().unwrap_or("?"));
    bad.map(shown).collect::<Vec<_>>().join("\n")
}

#[test]
fn nothing_is_said_of_a_good_machine() {
    for role in [Role::All, Role::Master, Role::Minion] {
        assert_eq!(said(&good(), role), "", "{role:?}");
    }
}

type Case = (&'static str, fn(&mut Facts), &'static str);

#[test]
fn each_thing_that_is_wrong_is_named_with_its_fix() {
    let table: &[Case] = &[
        ("32 bit", |f| f.architecture = "i686".to_owned(), "Failure architecture: \"i686\" is not a 64-bit machine"),
        ("ancient", |f| f.kernel = "2.6.32".to_owned(), "Failure kernel: Linux 2.6.32 is older than 3.10"),
        ("3.9", |f| f.kernel = "3.9.11-generic".to_owned(), "Failure kernel: Linux 3.9.11-generic is older than 3.10"),
        ("4.4", |f| f.kernel = "4.4.0".to_owned(), "Failure kernel: Linux 4.4.0 is older than 4.10"),
        ("5.4", |f| f.kernel = "5.4.0".to_owned(), "Warning kernel: Linux 5.4.0 is older than 5.6: pods with subPath"),
        ("no proc", |f| f.kernel = String::new(), "Failure kernel: its version \"\" cannot be read"),
        (
            "no Docker",
            |f| f.docker = Err("no such file".to_owned()),
            "Failure docker: no Docker Engine answers on /var/run/docker.sock: no such file -> apt-get install docker.io",
        ),
        (
            "old Docker",
            |f| f.docker = docker(|d| d.api = "1.40".to_owned()),
            "Failure docker: Engine 20.10.24, API 1.12 to 1.40: too old",
        ),
        (
            "new Docker",
            |f| f.docker = docker(|d| (d.min_api, d.api) = ("1.48".to_owned(), "1.60".to_owned())),
            "too new",
        ),
        ("vfs", |f| f.docker = docker(|d| d.storage_driver = "vfs".to_owned()), "Warning storage driver: \"vfs\""),
        ("no cgroups", |f| f.cgroups = None, "Failure cgroups: none are mounted"),
        (
            "no memory controller",
            |f| f.cgroups = Some((1, vec!["cpu".to_owned(), "pids".to_owned()])),
            "Failure cgroups: version 1, systemd driver: without memory",
        ),
        ("no nft", |f| f.nft = None, "Failure nftables: there is no nft"),
        (
            "no nft before the packages",
            |f| (f.nft, f.minion_installed) = (None, false),
            "Warning nftables: there is no nft yet; it is installed with the package",
        ),
        (
            "old iptables",
            |f| f.iptables = Some("iptables v1.8.9 (legacy)".to_owned()),
            "Warning iptables: iptables v1.8.9 (legacy)",
        ),
        (
            "both iptables",
            |f| f.legacy_rules = true,
            "Warning iptables: iptables v1.8.9 (nf_tables), but there are rules",
        ),
        ("no ip", |f| f.missing_programs = vec!["ip"], "Failure programs: missing: ip"),
        (
            "no ip before the packages",
            |f| (f.missing_programs, f.minion_installed) = (vec!["ip"], false),
            "Warning programs: missing: ip; installed with the package",
        ),
        ("no conntrack", |f| f.missing_programs = vec!["conntrack"], "Warning programs: missing: conntrack"),
        ("no forwarding", |f| f.ip_forward = Some(false), "Failure forwarding: net.ipv4.ip_forward is 0"),
        (
            "UFW drops",
            |f| f.ufw = ufw(true, "DROP"),
            "Failure ufw: DEFAULT_FORWARD_POLICY is DROP (/etc/default/ufw:19): packets between pods are dropped -> \
             /etc/default/ufw:19: write DEFAULT_FORWARD_POLICY=\"ACCEPT\", then: ufw reload",
        ),
        ("UFW would drop", |f| f.ufw = ufw(false, "DROP"), "Warning ufw: DEFAULT_FORWARD_POLICY is DROP"),
        ("UFW accepts", |f| f.ufw = ufw(true, "ACCEPT"), ""),
        (
            "UFW lets nothing in",
            |f| f.ufw = closed(true, &[]),
            "Warning ufw: what comes to 6443/tcp and 10250/tcp is dropped by UFW -> ufw allow 6443/tcp; ufw allow 10250/tcp",
        ),
        (
            "UFW would let nothing in",
            |f| f.ufw = closed(false, &[]),
            "Warning ufw: what comes to 6443/tcp and 10250/tcp is dropped by UFW once it is switched on -> ufw allow",
        ),
        (
            "UFW lets the API in",
            |f| f.ufw = closed(true, &[(true, Some(Protocol::Tcp), (6443, 6443))]),
            "Warning ufw: what comes to 10250/tcp is dropped by UFW -> ufw allow 10250/tcp",
        ),
        ("UFW lets both in", |f| f.ufw = closed(true, &[(true, None, (6443, 10250))]), ""),
        (
            "UFW's first rule counts",
            |f| f.ufw = closed(true, &[(false, None, (6443, 6443)), (true, None, (1, 65535))]),
            "Warning ufw: what comes to 6443/tcp is dropped by UFW -> ufw allow 6443/tcp",
        ),
        (
            "UFW and the overlay",
            |f| {
                f.ports.overlay = true;
                f.ufw = closed(true, &[(true, Some(Protocol::Tcp), (1, 65535))]);
            },
            "Warning ufw: what comes to 8472/udp is dropped by UFW -> ufw allow 8472/udp",
        ),
        (
            "rules of UFW that cannot be read",
            |f| f.ufw = closed(true, &[]).map(|u| Ufw { rules: None, ..u }),
            "is dropped by UFW, unless a rule lets it in, which only root can read -> ufw allow 6443/tcp",
        ),
        (
            "names taken",
            |f| f.listening = vec![taken(Protocol::Udp, "0.0.0.0", 53, "dnsmasq")],
            "Failure ports: 53/udp on 0.0.0.0, for names at 10.96.0.10, is taken by dnsmasq (process 7) -> stop it, or have it",
        ),
        (
            "names taken where we answer",
            |f| f.listening = vec![taken(Protocol::Tcp, "10.96.0.10", 53, "dnsmasq")],
            "Failure ports: 53/tcp on 10.96.0.10, for names",
        ),
        (
            "names on all addresses of IPv6",
            |f| f.listening = vec![taken(Protocol::Udp, "::", 53, "named")],
            "53/udp on ::",
        ),
        (
            "names of systemd-resolved, of a bridge, and ours",
            |f| {
                f.listening = vec![
                    taken(Protocol::Udp, "127.0.0.53", 53, "systemd-resolve"),
                    taken(Protocol::Udp, "192.168.122.1", 53, "dnsmasq"),
                    taken(Protocol::Udp, "10.96.0.10", 53, "minion"),
                ];
            },
            "",
        ),
        (
            "names that pods ask another for",
            |f| {
                f.ports.dns = None;
                f.listening = vec![taken(Protocol::Udp, "0.0.0.0", 53, "dnsmasq")];
            },
            "",
        ),
        ("no overlay", |f| f.listening = vec![taken(Protocol::Udp, "0.0.0.0", 8472, "flanneld")], ""),
        (
            "overlay taken",
            |f| {
                f.ports.overlay = true;
                f.listening = vec![taken(Protocol::Udp, "0.0.0.0", 8472, "flanneld")];
            },
            "Failure ports: 8472/udp, for the overlay, is taken by flanneld (process 7) -> stop it",
        ),
        ("the same number of UDP", |f| f.listening = vec![taken(Protocol::Udp, "0.0.0.0", 10250, "other")], ""),
        (
            "port taken",
            |f| f.listening = vec![listening(10250, "kubelet")],
            "Failure ports: 10250, for the kubelet, is taken by kubelet (process 7) -> stop it, or set kubelet-port in /etc/coracle/minion.yaml",
        ),
        (
            "another port",
            |f| {
                f.listening = vec![listening(10250, "kubelet")];
                f.ports.kubelet = 11250;
            },
            "",
        ),
        (
            "by whom",
            |f| f.listening = vec![Listening { program: None, pid: None, ..listening(6443, "") }],
            "6443, for the API, is taken by another program",
        ),
        ("no address", |f| f.addresses.clear(), "Failure address: this machine has no address"),
        (
            "two addresses",
            |f| f.addresses.push(address("eth1", "192.168.0.5")),
            "Warning address: there are several: 10.0.0.1 (eth0), 192.168.0.5 (eth1); the one that leads to the master is taken -> say which one other machines use: node-ip",
        ),
        (
            "two on one interface",
            |f| f.addresses.push(address("eth0", "10.0.0.2")),
            "Warning address: eth0 has several: 10.0.0.1 (eth0), 10.0.0.2 (eth0); if it leads to the master, the minion does not choose -> say which one other machines use: node-ip",
        ),
        (
            "two, and told which",
            |f| {
                f.addresses.push(address("eth1", "192.168.0.5"));
                f.node_ip = Some("192.168.0.5".to_owned());
            },
            "",
        ),
        (
            "told wrong",
            |f| f.node_ip = Some("10.9.9.9".to_owned()),
            "Failure address: node-ip is 10.9.9.9, which this machine does not have",
        ),
        (
            "stub",
            |f| f.name_servers = vec!["127.0.0.53".parse().unwrap()],
            "Warning resolver: /etc/resolv.conf names 127.0.0.53",
        ),
        (
            "stub of systemd-resolved",
            |f| {
                f.name_servers = vec!["127.0.0.53".parse().unwrap()];
                f.resolved_servers = vec!["10.0.0.53".parse().unwrap()];
            },
            "",
        ),
        ("no resolver", |f| f.name_servers.clear(), "Warning resolver: /etc/resolv.conf names no server"),
        (
            "no master",
            |f| f.clock_ahead = Some(Err("refused".to_owned())),
            "Failure master: it does not answer: refused",
        ),
        ("no master asked", |f| f.clock_ahead = None, ""),
        ("clock", |f| f.clock_ahead = Some(Ok(-90)), "Failure clock: the master's is 90 s behind this one"),
        ("clock a little", |f| f.clock_ahead = Some(Ok(20)), "Warning clock: the master's is 20 s ahead of this one"),
        (
            "full disk",
            |f| f.disks[1].free_percent = 14,
            "Failure disk: 14 % (9000 MiB) free for images in /var/lib/docker: pods will be evicted",
        ),
        ("filling disk", |f| f.disks[1].free_percent = 20, "Warning disk: 20 %"),
        ("as full, but for files", |f| f.disks[0].free_percent = 14, "Warning disk: 14 %"),
        ("full, for files", |f| f.disks[0].free_percent = 9, "Failure disk: 9 %"),
        (
            "a resolver of its own",
            |f| {
                f.resolv_conf = "/etc/pods.conf".into();
                f.name_servers = vec!["127.0.0.1".parse().unwrap()];
            },
            "Warning resolver: /etc/pods.conf names 127.0.0.1",
        ),
        (
            "old CA",
            |f| f.certificates[0].1 = ending("2030-01-11T00:00:00Z"),
            "Warning certificates: it expires in 10 days, at 2030-01-11T00:00:00Z (/var/lib/coracle/pki/ca.crt) -> plan",
        ),
        (
            "old CA of the store's clients",
            |f| f.certificates.push(("/pki/etcd/ca.crt".into(), ending("2030-01-11T00:00:00Z"))),
            "2030-01-11T00:00:00Z (/pki/etcd/ca.crt) -> stop the master, remove that folder",
        ),
        (
            "expired certificate",
            |f| f.certificates.push(("/pki/kubelet-client.pem".into(), ending("2029-12-31T00:00:00Z"))),
            "Failure certificates: it has expired at 2029-12-31T00:00:00Z (/pki/kubelet-client.pem) -> it is renewed",
        ),
    ];
    for (case, change, expected) in table {
        let mut facts = good();
        change(&mut facts);
        let said = said(&facts, Role::All);
        assert!(if expected.is_empty() { said.is_empty() } else { said.contains(expected) }, "{case}: {said}");
        assert!(said.lines().count() <= 1 && !said.ends_with("-> ?"), "{case}: only that, and a fix: {said}");
    }
}

#[test]
fn a_master_needs_no_engine_and_no_packet_filter() {
    let mut facts = good();
    facts.docker = Err("no such file".to_owned());
    (facts.nft, facts.cgroups, facts.ip_forward, facts.ufw) = (None, None, Some(false), ufw(true, "DROP"));
    facts.listening = vec![listening(10250, "kubelet")];
    facts.kernel = "4.4.0".to_owned();
    assert_eq!(said(&facts, Role::Master), "");
    facts.listening = vec![listening(6443, "nginx")];
    assert!(said(&facts, Role::Master).starts_with("Failure ports: 6443"));
    assert!(!said(&facts, Role::Minion).contains("6443"));
}
