//! Routes to other nodes' pods and the overlay; and that nothing of ours is left.

use std::collections::BTreeSet;
use std::time::Duration;

use client::Tasks;
use proxy::overlay::{Overlay, Peer};
use proxy::routes::{Paths, Route, Via};
use proxy::{Config, NftSink, RuleSink};
use serde_json::json;

use super::lab::{Lab, OUTSIDE_IP, run};
use super::{POD1, config, on_node, rules};

#[test]
fn cleanup_leaves_what_was_there_before() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        run("nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };
             add rule ip filter FORWARD ip saddr 198.51.100.0/24 accept'");
        let state = || (run("nft list ruleset"), run("ip route"));
        let before = state();
        sink.apply_paths(&to_another_node()).await.unwrap();
        sink.apply(&rules(&[POD1], json!({"sessionAffinity": "ClientIP"}))).await.unwrap();
        let during = state();
        assert!(
            during.1.contains("10.244.7.0/24 via 192.0.2.9") && during.1.contains("10.96.0.0/12 dev lo"),
            "{}",
            during.1
        );
        proxy::cleanup().await.unwrap();
        assert_eq!(state(), before);
        proxy::cleanup().await.unwrap();
    });
}

/// A node at the client's place.
fn to_another_node() -> Paths {
    let via = Via::Gateway(OUTSIDE_IP.parse().unwrap());
    Paths { routes: BTreeSet::from([Route { destination: "10.244.7.0/24".parse().unwrap(), via }]), overlay: None }
}

#[test]
fn flushed_paths_come_back_and_our_own_disturb_nobody() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        let paths = to_another_node();
        let shown = "ip route show 10.244.7.0/24";
        for harm in ["true", "ip route flush proto 119", "ip link set out down; ip link set out up"] {
            run(harm);
            if harm != "true" {
                let told = tokio::time::timeout(Duration::from_secs(5), sink.paths_disturbed()).await;
                told.unwrap_or_else(|_| panic!("{harm} was not noticed"));
            }
            sink.apply_paths(&paths).await.unwrap();
            assert!(run(shown).contains("via 192.0.2.9"), "after {harm}");
        }
        // What was told of until now may still be on its way.
        while tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await.is_ok() {}
        sink.apply_paths(&paths).await.unwrap();
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply_paths(&paths).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await;
        sink.apply_paths(&paths).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await;
        assert!(quiet.is_err(), "own routes were taken for someone else's");
    });
}

#[test]
fn the_overlay_is_laid_repaired_and_taken_away() {
    let Some(lab) = Lab::new() else { return };
    lab.inside("node", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::new();
            let config = Config { overlay: true, ..config() };
            let sink = NftSink::new(config, &tasks);
            let (end, node) = ("10.244.7.0".parse().unwrap(), OUTSIDE_IP.parse().unwrap());
            let route = Route { destination: "10.244.7.0/24".parse().unwrap(), via: Via::Overlay(end) };
            let overlay = Overlay { end: "10.244.0.0".parse().unwrap(), peers: BTreeSet::from([Peer { end, node }]) };
            let paths = Paths { routes: BTreeSet::from([route]), overlay: Some(overlay) };
            let state = "ip route show 10.244.7.0/24; ip neigh show dev coracle-vxlan nud permanent; \
                         bridge fdb show dev coracle-vxlan | grep dst; ip -o link show coracle-vxlan | grep -o 'mtu [0-9]*'";
            sink.apply_paths(&paths).await.unwrap();
            let laid = run(state);
            for part in ["dev coracle-vxlan", "0a:c0:c0:00:02:09 dst 192.0.2.9", "mtu 1450"] {
                assert!(laid.contains(part), "{part}: {laid}");
            }
            for harm in ["ip link del coracle-vxlan", "ip neigh flush dev coracle-vxlan nud permanent",
                         "bridge fdb del 0a:c0:c0:00:02:09 dev coracle-vxlan dst 192.0.2.9 self"] {
                while tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await.is_ok() {}
                run(harm);
                let told = tokio::time::timeout(Duration::from_secs(5), sink.paths_disturbed()).await;
                told.unwrap_or_else(|_| panic!("{harm} was not noticed"));
                sink.apply_paths(&paths).await.unwrap();
                assert_eq!(run(state), laid, "after {harm}");
            }
            proxy::cleanup().await.unwrap();
            assert_eq!(run("ip link show type vxlan; ip route show proto 119"), "");
            assert!(tasks.stop(Duration::from_secs(5)).await);
        });
    });
}
