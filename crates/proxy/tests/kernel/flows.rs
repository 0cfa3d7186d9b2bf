//! Connections that are there already, while rules and proxies change.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proxy::routes::Paths;
use proxy::{RuleSet, RuleSink, ruleset};
use serde_json::json;

use super::lab::{Lab, PORT, ask_udp};
use super::{POD1, POD2, config, on_node, rules, rules_at, sctp, serving};

#[test]
fn a_restart_of_the_proxy_interrupts_nobody() {
    let Some(lab) = Lab::new() else { return };
    let echo = 9090;
    let listener = lab.inside("pod1", || TcpListener::bind(("0.0.0.0", echo)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    let say = |stream: &mut TcpStream, word: &[u8; 4]| {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(word).unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *word);
    };
    let rules = rules_at(echo, &[POD1], json!({}), json!({}));
    on_node(&lab, async |first| {
        first.apply_paths(&Paths::default()).await.unwrap();
        first.apply(&rules).await.unwrap();
        let connect = || TcpStream::connect_timeout(&"10.96.0.1:80".parse().unwrap(), Duration::from_secs(5));
        let mut old = lab.inside("pod2", || connect().unwrap());
        say(&mut old, b"old1");
        let over = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                lab.inside("pod2", || {
                    let mut made = 0;
                    while !over.load(Ordering::SeqCst) {
                        say(&mut connect().expect("a gap"), b"new.");
                        made += 1;
                    }
                    made
                })
            });
            // Each start knows nothing of the one before, and replaces the whole table.
            std::thread::scope(|starts| {
                starts.spawn(|| {
                    for _ in 0..5 {
                        on_node(&lab, async |next| next.apply(&rules).await.unwrap());
                        say(&mut old, b"old2");
                    }
                });
            });
            over.store(true, Ordering::SeqCst);
            others.join().unwrap()
        });
        assert!(made > 5, "{made} connections were made meanwhile");
    });
}

#[test]
fn a_udp_flow_follows_when_its_endpoint_goes() {
    let Some(lab) = serving(&[POD1], json!({})) else { return };
    on_node(&lab, async |sink| {
        sink.apply(&rules(&[POD1], json!({}))).await.unwrap();
        let socket = lab.inside("pod2", || UdpSocket::bind("0.0.0.0:0").unwrap());
        assert!(ask_udp(&socket, "10.96.0.1:80").unwrap().starts_with("pod1"));
        sink.apply(&rules(&[POD2], json!({}))).await.unwrap();
        assert!(ask_udp(&socket, "10.96.0.1:80").unwrap().starts_with("pod2"));
        // It goes while no proxy runs: the next one knows nothing of the change.
        on_node(&lab, async |next| next.apply(&rules(&[POD1], json!({}))).await.unwrap());
        assert!(ask_udp(&socket, "10.96.0.1:80").unwrap().starts_with("pod1"), "after a restart");
    });
}

#[test]
fn connections_live_on_when_their_endpoint_drains() {
    let Some(lab) = Lab::new() else { return };
    let echo = 9091;
    let listener = lab.inside("pod1", || TcpListener::bind(("0.0.0.0", echo)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    on_node(&lab, async |sink| {
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&rules_at(echo, &[POD1], json!({}), json!({}))).await.unwrap();
        let mut old = lab.inside("pod2", || TcpStream::connect("10.96.0.1:80").unwrap());
        for endpoints in [&[POD2][..], &[]] {
            sink.apply(&rules_at(PORT, endpoints, json!({}), json!({}))).await.unwrap();
            old.write_all(b"word").unwrap();
            old.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            old.read_exact(&mut [0; 4]).expect("the connection ended");
        }
        assert_eq!(lab.tcp("pod2", "10.96.0.1:80").unwrap_err().kind(), ErrorKind::ConnectionRefused, "a new one");
    });
}

/// A service `10.96.0.3:2905` in SCTP whose endpoint is pod 1 at port 2906.
fn signal() -> RuleSet {
    let service = json!({"metadata": {"namespace": "default", "name": "signal"},
        "spec": {"clusterIP": "10.96.0.3", "ports": [{"port": 2905, "protocol": "SCTP"}]}});
    let slice = json!({
        "metadata": {"namespace": "default", "name": "signal-1", "labels": {"kubernetes.io/service-name": "signal"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 2906, "protocol": "SCTP"}],
        "endpoints": [{"addresses": [POD1], "nodeName": "node"}],
    });
    let (service, slice) = (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap());
    ruleset([&service], [&slice], &config())
}

#[test]
fn sctp_is_led_to_its_endpoint_and_back() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&signal()).await.unwrap();
        match lab.inside("pod1", || sctp::listen(2906)) {
            Ok(listener) => {
                let answer = std::thread::spawn(move || sctp::accept_and_say(&listener, b"here"));
                assert_eq!(lab.inside("pod2", || sctp::connect_and_hear("10.96.0.3:2905")), b"here");
                answer.join().unwrap();
            }
            Err(error) => {
                println!("no SCTP sockets in this kernel ({error}): its packets are made by hand");
                let (server, client) = (lab.inside("pod1", sctp::raw), lab.inside("pod2", sctp::raw));
                sctp::send_init(&client, "10.96.0.3", 40_000, 2905);
                assert_eq!(sctp::hear(&server), (POD2.to_owned(), 40_000, 2906), "translated");
                sctp::send_init_ack(&server, POD2, 2906, 40_000);
                assert_eq!(sctp::hear(&client), ("10.96.0.3".to_owned(), 2905, 40_000), "translated back");
            }
        }
    });
}
