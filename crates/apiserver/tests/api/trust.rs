//! The config map that says by which CA clients are believed.

use serde_json::{Value, json};

use crate::common::*;

const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const NAME: &str = "extension-apiserver-authentication";

/// The first version after `known` that says nothing but this of the CA.
async fn until(server: &Server, known: &Value, ca: &str) -> Value {
    let since = known["metadata"]["resourceVersion"].as_str().unwrap();
    let path = format!("{MAPS}?watch=1&fieldSelector=metadata.name%3D{NAME}&resourceVersion={since}");
    let mut watch = server.watch(&path).await;
    loop {
        let event = watch.next().await.unwrap();
        if event["type"] != "DELETED" && event["object"]["data"] == json!({"client-ca-file": ca}) {
            return event["object"].clone();
        }
    }
}

#[tokio::test]
async fn other_servers_are_told_by_which_ca_clients_are_believed_whoever_changes_it() {
    let server = Server::start().await;
    let (path, ca) = (format!("{MAPS}/{NAME}"), server.api.ca_certificate().replace("\r\n", "\n"));
    let first = server.get(&path).await.json();
    assert_eq!(first["data"], json!({"client-ca-file": ca}), "nothing of a proxy's headers");
    assert_eq!(first["metadata"]["managedFields"][0]["manager"], "kube-apiserver");
    let changed = server.patch(&path, &json!({"data": {"client-ca-file": null, "a": "b"}})).await.json();
    let mended = until(&server, &changed, &ca).await;
    assert_eq!(server.delete(&path).await.code, 200);
    let anew = until(&server, &mended, &ca).await;
    assert_ne!(anew["metadata"]["uid"], first["metadata"]["uid"]);

    // Another master with a CA of its own: both are believed.
    let other = Server::start_on(server.store.clone(), |_| {}).await;
    let both = format!("{ca}{}", other.api.ca_certificate().replace("\r\n", "\n"));
    assert_eq!(other.get(&path).await.json()["data"], json!({"client-ca-file": both}));
}
