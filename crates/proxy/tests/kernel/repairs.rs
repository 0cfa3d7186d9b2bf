//! Rules that somebody else took away come back, and what decides over ours is heeded.

use std::sync::Arc;
use std::time::Duration;

use proxy::routes::Paths;
use proxy::{NftSink, Part, RuleSet, RuleSink};
use serde_json::json;

use super::lab::{Lab, run};
use super::{POD1, POD2, on_node, rules};

#[test]
fn flushed_rules_come_back() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        let rules = rules(&[POD1], json!({}));
        sink.apply_paths(&Paths::default()).await.unwrap();
        for harm in ["nft flush ruleset", "nft delete element ip coracle service_ips '{ 10.96.0.1 . tcp . 80 }'"] {
            sink.apply(&rules).await.unwrap();
            run(harm);
            let there = "nft list map ip coracle service_ips 2>/dev/null | grep -c '10.96.0.1 . tcp . 80' || true";
            repaired(&sink, &rules, || run(there).trim() == "1").await;
            assert!(lab.tcp("node", "10.96.0.1:80").unwrap().starts_with("pod1"), "after {harm}");
        }
    });
}

#[test]
fn our_own_changes_disturb_nobody() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        for endpoints in [&[POD1][..], &[POD1, POD2], &[]] {
            sink.apply(&rules(endpoints, json!({}))).await.unwrap();
        }
        let quiet = tokio::time::timeout(Duration::from_millis(300), sink.disturbed()).await;
        assert!(quiet.is_err(), "own transactions were taken for someone else's");
    });
}

#[test]
fn forwarding_is_accepted_where_docker_drops_it_and_again_after_docker_flushed() {
    let Some(lab) = Lab::new() else { return };
    let docker =
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };
                  add chain ip filter DOCKER-USER; add rule ip filter FORWARD jump DOCKER-USER'";
    on_node(&lab, async |sink| {
        run(docker);
        let rules = rules(&[POD1], json!({}));
        sink.apply(&rules).await.unwrap();
        assert_eq!(accepted(), "3");
        assert!(lab.tcp("out", "192.0.2.1:30080").unwrap().starts_with("pod1"));
        assert!(lab.tcp("pod1", "192.0.2.9:8080").unwrap().starts_with("out"));
        run("nft flush chain ip filter DOCKER-USER");
        repaired(&sink, &rules, || accepted() == "3").await;
        if std::process::Command::new("iptables").arg("--version").output().is_ok() {
            run("iptables -S DOCKER-USER");
        }
    });
}

#[test]
fn a_repair_of_forwarding_is_not_forgotten_when_the_rules_are_refused() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        run("nft 'add table ip filter; add chain ip filter DOCKER-USER'");
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&rules(&[POD1], json!({}))).await.unwrap();
        run("nft flush chain ip filter DOCKER-USER");
        let mut wrong = rules(&[POD1, POD2], json!({}));
        let part = Part { chains: [("x".to_owned(), vec!["goto nowhere".to_owned()])].into(), ..Part::default() };
        wrong.services.insert(("default".to_owned(), "wrong".to_owned()), Arc::new(part));
        repaired(&sink, &wrong, || accepted() == "3").await;
        let error = sink.apply(&wrong).await.unwrap_err().to_string();
        assert!(error.contains("No such file or directory") && error.contains("goto nowhere"), "{error}");
        assert!(lab.tcp("node", "10.96.0.1:80").unwrap().starts_with("pod1"), "what was in force is");
    });
}

#[test]
fn docker_starting_later_is_noticed() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        let rules = rules(&[POD1], json!({}));
        sink.apply(&rules).await.unwrap();
        run(
            "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        );
        repaired(&sink, &rules, || run("nft list chain ip filter FORWARD").contains("coracle: ")).await;
        assert!(lab.tcp("out", "192.0.2.1:30080").unwrap().starts_with("pod1"));
    });
}

/// How many accept rules of ours are in Docker's chain.
fn accepted() -> String {
    run("nft list chain ip filter DOCKER-USER | grep -c 'coracle: ' || true").trim().to_owned()
}

/// Puts `rules` into force whenever the sink notices that someone was there, as the driver does, until it is `so`. What it
/// notices first may be something older.
async fn repaired(sink: &NftSink, rules: &RuleSet, so: impl Fn() -> bool) {
    loop {
        tokio::time::timeout(Duration::from_secs(5), sink.disturbed()).await.expect("the change was not noticed");
        // Some are refused on purpose.
        let _ = sink.apply(rules).await;
        if so() {
            return;
        }
    }
}
