//! `sessionAffinity: ClientIP`: a client stays with its endpoint, for as long as the service says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proxy::RuleSink;
use serde_json::{Value, json};

use super::lab::{Lab, run};
use super::{POD1, POD2, on_node, rules, serving};

/// Clients outside. All choose the same of two endpoints once in a billion runs.
const CLIENTS: u8 = 30;

/// Who answers each client at the node's port, over UDP where `udp`.
fn answers(lab: &Lab, udp: bool) -> BTreeMap<u8, String> {
    let ask = |client: u8| {
        let (from, to) = (format!("192.0.2.{}", 100 + client), "192.0.2.1:30080");
        let answer = if udp { lab.udp_as("out", &from, to) } else { lab.tcp_as("out", &from, to) };
        answer.unwrap_or_else(|error| panic!("{from}: {error}"))[..4].to_owned()
    };
    (0..CLIENTS).map(|client| (client, ask(client))).collect()
}

fn chosen(answers: &BTreeMap<u8, String>) -> BTreeSet<&str> {
    answers.values().map(String::as_str).collect()
}

/// A lab whose client has many addresses.
fn lab(extra: Value) -> Option<Lab> {
    let lab = serving(&[POD1, POD2], extra)?;
    (0..CLIENTS).for_each(|i| drop(run(&format!("ip -n {} addr add 192.0.2.{}/24 dev eth0", lab.ns("out"), 100 + i))));
    Some(lab)
}

#[test]
fn each_client_stays_with_its_endpoint_until_that_is_gone() {
    let sticky = json!({"sessionAffinity": "ClientIP"});
    let Some(lab) = lab(sticky.clone()) else { return };
    let first = [answers(&lab, false), answers(&lab, true)];
    assert!(first.iter().all(|of| chosen(of) == BTreeSet::from(["pod1", "pod2"])), "each for itself: {first:?}");
    assert_eq!([answers(&lab, false), answers(&lab, true)], first, "each stays");
    on_node(&lab, async |sink| {
        sink.apply(&rules(&[POD1, POD2], sticky.clone())).await.unwrap();
        let first = answers(&lab, false);
        sink.apply(&rules(&[POD1, POD2, "10.244.0.13"], sticky.clone())).await.unwrap();
        assert_eq!(answers(&lab, false), first, "another endpoint is none of theirs");
        sink.apply(&rules(&[POD2], sticky.clone())).await.unwrap();
        assert_eq!(chosen(&answers(&lab, false)), BTreeSet::from(["pod2"]), "those of the first are led to the second");
    });
}

#[test]
fn a_client_is_free_again_when_the_time_of_its_affinity_is_over() {
    let timeout = Duration::from_secs(1);
    let config = json!({"clientIP": {"timeoutSeconds": timeout.as_secs()}});
    let Some(lab) = lab(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config})) else { return };
    let first = answers(&lab, false);
    // The kernel tells nobody when it forgets a client: the deadline is known. Its clock has ticks of 10 ms at most.
    let forgotten = Instant::now() + timeout + Duration::from_millis(50);
    std::thread::sleep(forgotten.duration_since(Instant::now()));
    let second = answers(&lab, false);
    assert_ne!(first, second, "each chose anew");
    assert_eq!(chosen(&second), BTreeSet::from(["pod1", "pod2"]));
}
