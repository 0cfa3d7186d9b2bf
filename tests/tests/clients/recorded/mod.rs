//! What kube-apiserver 1.20 answers, request by request, and whether a master says the same.
//!
//! ```text
//!  steps/*.yaml ──▶ Step ──ask──▶ kube-apiserver, when recording ──▶ answers/*.jsonl
//!                     └────ask──▶ a master ──▶ compared with those, but for what differences.yaml names
//! ```
//!
//! In reading order: [`steps`] (what is asked), [`answer`] (asking, and what of an answer is kept), [`differences`] (what may
//! differ, and why), [`upstream`] (the real one). Both are API servers alone: no controller changes anything meanwhile, so
//! the same steps have the same answers each time.
//!
//! What nobody has judged yet is in `unsorted.txt`: the places of each step that differ, no more and no less. `UPDATE_GOLDEN=1`
//! writes it anew; it is to become shorter.
//!
//! `UPDATE_RECORDED=1 KUBE_APISERVER=/path/to/kube-apiserver` records anew, to be reviewed as a diff (`deploy/upstream.sh`
//! makes the program).

mod answer;
mod differences;
mod steps;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Parser;
use master::Master;
use serde_json::{Value, json};

use answer::Server;
use differences::Differences;
use steps::Step;

/// How many differences a failure shows.
const MAX_SHOWN: usize = 300;
/// Who asks: the name of each is that of its token, too. The first may do anything, the others nothing yet.
const TOKENS: &str = "admin,admin,1,\"system:masters\"\njoe,joe,2,\"dev\"\nann,ann,3,\"dev,ops\"\n\
    node,system:node:n1,4,\"system:nodes\"\n";

fn folder() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/recorded"))
}

/// Asks all of a file, in a namespace of its own; a line for each answer.
async fn asked(server: &Server, file: &str, steps: &[Step]) -> Vec<Value> {
    let namespace = format!("t-{file}");
    let mut kept = BTreeMap::from([("ns".to_owned(), namespace.clone())]);
    // Nobody else makes the account that pods need; without a token, which differs in kind between the two.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
        "automountServiceAccountToken": false});
    let namespaced = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    for (path, body) in [("", namespaced), ("/{ns}/serviceaccounts", account)] {
        let step = Step::post(&format!("/api/v1/namespaces{path}"), &body);
        let made = server.ask(&step, &mut kept).await;
        assert_eq!(made["code"], 201, "{made}");
    }
    let mut lines = Vec::new();
    for step in steps {
        lines.push(server.ask(step, &mut kept).await);
    }
    lines
}

async fn record(program: &Path, files: &BTreeMap<String, Vec<Step>>) {
    let upstream = upstream::start(program, TOKENS).await.unwrap();
    for (file, steps) in files {
        let mut text = String::new();
        for line in asked(upstream.server(), file, steps).await {
            writeln!(text, "{line}").unwrap();
        }
        std::fs::write(folder().join("answers").join(file).with_extension("jsonl"), text).unwrap();
    }
}

fn recorded(file: &str) -> Vec<Value> {
    let path = folder().join("answers").join(file).with_extension("jsonl");
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

async fn start_master(folder: &Path) -> Master {
    let tokens = folder.join("tokens");
    std::fs::write(&tokens, TOKENS).unwrap();
    let (data, tokens) = (folder.join("data"), tokens.to_str().unwrap().to_owned());
    let flags = ["--bind-address", "127.0.0.1", "--secure-port", "0", "--components", "apiserver"];
    let own = ["master", "--data-dir", data.to_str().unwrap(), "--token-auth-file", &tokens];
    Master::start(master::Options::try_parse_from(own.iter().chain(&flags)).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_those_of_kube_apiserver() {
    let files = steps::read(&folder().join("steps"));
    if std::env::var_os("UPDATE_RECORDED").is_some() {
        let program = std::env::var_os("KUBE_APISERVER").expect("KUBE_APISERVER names the program to be recorded");
        record(Path::new(&program), &files).await;
    }
    let place = tempfile::tempdir().unwrap();
    let master = start_master(place.path()).await;
    let server = Server::at(master.address()).unwrap();
    let mut differences = Differences::read(&folder().join("differences.yaml"));
    let mut found = BTreeMap::new();
    for (file, steps) in &files {
        let recorded = recorded(file);
        let named = |lines: &[Value]| lines.iter().map(|line| line["step"].clone()).collect::<Vec<_>>();
        let ours = asked(&server, file, steps).await;
        assert_eq!(named(&recorded), named(&ours), "{file}: the steps have changed; record them anew");
        for (theirs, ours) in recorded.iter().zip(&ours) {
            for (at, said) in differences.unexplained(file, theirs, ours) {
                found.insert(format!("{file} {} {at}", ours["step"].as_str().unwrap()), said);
            }
        }
    }
    master.stop().await;
    judge(&found);
    let stale = differences.stale();
    assert!(stale.is_empty(), "nothing differs so any more; take these out of differences.yaml:\n{}", stale.join("\n"));
}

/// What no rule explains must be what nobody has judged yet.
fn judge(found: &BTreeMap<String, String>) {
    let path = folder().join("unsorted.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text: String = found.keys().map(|place| format!("{place}\n")).collect();
        std::fs::write(&path, text).unwrap();
    }
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let unsorted: BTreeSet<&str> = text.lines().collect();
    let new: Vec<&str> =
        found.iter().filter(|(at, _)| !unsorted.contains(at.as_str())).map(|(_, said)| said.as_str()).collect();
    let shown = new.iter().take(MAX_SHOWN).copied().collect::<Vec<_>>().join("\n");
    assert!(new.is_empty(), "{} differences that nothing explains\n{shown}", new.len());
    let gone: Vec<&str> = unsorted.into_iter().filter(|at| !found.contains_key(*at)).collect();
    assert!(
        gone.is_empty(),
        "these differ no more; UPDATE_GOLDEN=1 takes them out of unsorted.txt:\n{}",
        gone.join("\n")
    );
}
