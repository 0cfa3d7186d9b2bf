//! What the documents say about the code is true.
#![allow(clippy::unwrap_used, missing_docs)]

use std::fmt::Write;
use std::path::Path;

use api::{Scope, kinds};

/// The kinds as docs/api.md lists them.
fn table() -> String {
    let mut text = String::from(
        "| kind | group and version | resource | verbs | below an object |\n| --- | --- | --- | --- | --- |\n",
    );
    for kind in kinds() {
        let info = kind.info;
        let short = info.short_names.join(", ");
        let resource = if short.is_empty() { info.plural.to_owned() } else { format!("{} ({short})", info.plural) };
        let scope = if info.scope == Scope::Namespaced { "" } else { ", cluster-wide" };
        let verbs: Vec<&str> = info.verbs.iter().map(|verb| verb.as_str()).collect();
        let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
        let verbs = if verbs == all { "all".to_owned() } else { verbs.join(", ") };
        let below: Vec<&str> = info.subresources.iter().map(|sub| sub.as_str()).collect();
        let (name, version, below) = (info.kind, info.api_version(), below.join(", "));
        writeln!(text, "| {name} | {version} | {resource}{scope} | {verbs} | {below} |").unwrap();
    }
    text
}

#[test]
fn the_table_of_kinds_is_the_table_of_kinds() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("--test docs` -->\n").unwrap();
    let (found, after) = rest.split_once("<!-- end of kinds -->").unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let text = format!("{before}--test docs` -->\n{}<!-- end of kinds -->{after}", table());
        std::fs::write(&path, text).unwrap();
        return;
    }
    assert_eq!(found, table(), "run it with UPDATE_DOCS=1");
}
