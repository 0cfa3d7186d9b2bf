//! LIST and WATCH: freshness, pages, selectors, resumption.

use std::time::Duration;

use crate::common::*;
use apiserver::User;
use serde_json::{Value, json};

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

async fn five(server: &Server) {
    for name in ["a", "b", "c", "d", "e"] {
        server.config_map(name).await;
    }
}

#[tokio::test]
async fn pages_show_the_revision_of_the_first_one() {
    let server = Server::start().await;
    five(&server).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a", "b"], &json!(3)));
    server.delete(&format!("{CONFIG_MAPS}/d")).await;
    server.config_map("bb").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&second), ["c", "d"]);
    assert_eq!(revision(&second), revision(&first));
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!((names(&third), &third["metadata"]["continue"]), (vec!["e"], &Value::Null));
    let exact = format!("{CONFIG_MAPS}?resourceVersion={}&resourceVersionMatch=Exact", revision(&first));
    assert_eq!(names(&server.get(&exact).await.json()), ["a", "b", "c", "d", "e"]);
}

#[tokio::test]
async fn whoever_takes_what_is_at_hand_gets_all_of_it() {
    let server = Server::start().await;
    five(&server).await;
    // Once this is answered, all five are at hand.
    server.get(CONFIG_MAPS).await;
    let list = server.get(&format!("{CONFIG_MAPS}?limit=2&resourceVersion=0")).await.json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["metadata"]["continue"]), (5, &Value::Null));
}

#[tokio::test]
async fn items_of_a_list_leave_out_what_the_list_says() {
    let server = Server::start().await;
    five(&server).await;
    let yaml = server.send("GET", CONFIG_MAPS, &[("accept", "application/yaml")], "").await.text;
    let yaml = api::yaml::parse_all(&yaml).unwrap().remove(0);
    let deleted = server.delete(&format!("{CONFIG_MAPS}?dryRun=All")).await.json();
    for list in [server.get(CONFIG_MAPS).await.json(), yaml, deleted] {
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("ConfigMapList"), &json!("v1")));
        for item in list["items"].as_array().unwrap() {
            let keys: Vec<_> = item.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["data", "metadata"], "{item}");
        }
    }
    for path in ["/api/v1/componentstatuses", "/apis/events.k8s.io/v1/events", "/api/v1/namespaces"] {
        let list = server.get(path).await.json();
        assert!(list["items"].as_array().unwrap().iter().all(|item| item["kind"].is_null()), "{list}");
    }
    let metadata = [("accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")];
    let list = server.send("GET", CONFIG_MAPS, &metadata, "").await.json();
    assert_eq!(list["items"][0]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn a_page_of_forgotten_history_is_gone() {
    let server = Server::start().await;
    five(&server).await;
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    server.delete(&format!("{CONFIG_MAPS}/d")).await;
    let later = server.config_map("f").await;
    server.store.compact(revision(&later)).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let answer = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((answer.code, &answer.json()["reason"]), (410, &json!("Expired")));
    // Whoever does not mind goes on with what there is now.
    let token = answer.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let rest = server.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.json();
    assert_eq!(names(&rest), ["c", "e"]);
    assert!(revision(&rest) >= revision(&later));
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?continue=nonsense")).await.code, 400);
}

#[tokio::test]
async fn selectors_select() {
    let server = Server::start().await;
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n1")] {
        server.pod(name, node).await;
    }
    let cases = [
        ("labelSelector=app%3Da", vec!["a"]),
        ("labelSelector=app+in+(a,b)", vec!["a", "b"]),
        ("labelSelector=!app", vec![]),
        ("fieldSelector=spec.nodeName%3Dn1", vec!["a", "c"]),
        ("fieldSelector=spec.nodeName%3Dn1,metadata.name%3Dc", vec!["c"]),
        ("fieldSelector=spec.nodeName!%3Dn1", vec!["b"]),
        ("fieldSelector=metadata.name%3Db", vec!["b"]),
        ("fieldSelector=spec.host%3Dn2", vec!["b"]),
        ("fieldSelector=status.podIPs%3D10.1.0.1", vec![]),
        ("fieldSelector=status.podIPs!%3D10.1.0.1,spec.nodeName%3Dn2", vec!["b"]),
        ("fieldSelector=status.phase%3DPending&limit=2", vec!["a", "b"]),
    ];
    for (query, expected) in cases {
        assert_eq!(names(&server.get(&format!("{PODS}?{query}")).await.json()), expected, "{query}");
    }
}

#[tokio::test]
async fn a_watch_lasts_as_long_as_it_is_asked_to() {
    let server = Server::start().await;
    tokio::time::pause();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=10000")).await;
    let mut endless = server.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds={}", i64::MAX)).await;
    tokio::time::advance(Duration::from_secs(9999)).await;
    tokio::time::resume();
    server.config_map("late").await;
    assert_eq!(watch.told().await, "ADDED late");
    assert_eq!(endless.told().await, "ADDED late");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_future_revision_is_waited_for_and_then_refused() {
    let server = Server::start().await;
    tokio::time::pause();
    let answer = server.get(&format!("{CONFIG_MAPS}?resourceVersion=99999")).await;
    assert_eq!(answer.code, 504, "{}", answer.text);
    assert_eq!(answer.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

#[tokio::test]
async fn a_watch_tells_everything_after_its_revision_once_and_in_order() {
    let server = Server::start().await;
    let start = revision(&server.config_map("a").await);
    let mut expected = Vec::new();
    for round in 0..50 {
        server.config_map(&format!("b{round}")).await;
        server.patch(&format!("{CONFIG_MAPS}/b{round}"), &json!({"data": {"x": "y"}})).await;
        server.delete(&format!("{CONFIG_MAPS}/b{round}")).await;
        expected.extend(["ADDED", "MODIFIED", "DELETED"].map(|t| format!("{t} b{round}")));
    }
    // Resumed after every event, each of them comes exactly once.
    let mut after = start;
    for (index, told) in expected.iter().enumerate() {
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={after}")).await;
        for later in &expected[index..expected.len().min(index + 3)] {
            let event = watch.next().await.unwrap();
            let text = format!(
                "{} {}",
                event["type"].as_str().unwrap(),
                event["object"]["metadata"]["name"].as_str().unwrap()
            );
            assert_eq!(&text, later);
            if later == told {
                assert!(revision(&event["object"]) > after);
                after = revision(&event["object"]);
            }
        }
    }
}

#[tokio::test]
async fn a_watch_without_revision_begins_with_what_there_is() {
    let server = Server::start().await;
    five(&server).await;
    let mut watch = server.watch("/api/v1/namespaces/default/configmaps?watch=true&resourceVersion=0").await;
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(watch.told().await, format!("ADDED {name}"));
    }
    server.delete(&format!("{CONFIG_MAPS}/c")).await;
    assert_eq!(watch.told().await, "DELETED c");
}

#[tokio::test]
async fn objects_that_start_or_stop_matching_are_added_or_deleted() {
    let server = Server::start().await;
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=x%3Dy")).await;
    let mut metadata = server
        .watch_as(
            User::master("admin"),
            &format!("{CONFIG_MAPS}?watch=1&labelSelector=x%3Dy"),
            &[("accept", "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io")],
        )
        .await;
    for (labels, told, shown) in [
        (json!({"x": "y"}), "ADDED", "y"),
        (json!({"x": "y", "z": "z"}), "MODIFIED", "y"),
        // As it was selected last, at the version at which it was not any more.
        (json!({"x": "other"}), "DELETED", "y"),
        (json!({"x": "y"}), "ADDED", "y"),
    ] {
        let patched = server.patch(&path, &json!({"metadata": {"labels": labels}})).await.json();
        for watch in [&mut watch, &mut metadata] {
            let event = watch.next().await.unwrap();
            assert_eq!((&event["type"], &event["object"]["metadata"]["labels"]["x"]), (&json!(told), &json!(shown)));
            assert_eq!(revision(&event["object"]), revision(&patched), "{event}");
        }
    }
    server.delete(&path).await;
    assert_eq!(watch.told().await, "DELETED a");
}

#[tokio::test]
async fn a_node_is_told_of_its_own_pods_only() {
    let server = Server::start().await;
    let mut watch = server.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dn1").await;
    server.pod("other", "n2").await;
    server.pod("late", "").await;
    server.pod("own", "n1").await;
    assert_eq!(watch.told().await, "ADDED own");
    let binding = json!({"metadata": {"name": "late"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(server.post(&format!("{PODS}/late/binding"), &binding).await.code, 201);
    assert_eq!(watch.told().await, "ADDED late");
    let mut resumed = server.watch("/api/v1/pods?watch=1&resourceVersion=1&fieldSelector=spec.nodeName%3Dn1").await;
    assert_eq!((resumed.told().await, resumed.told().await), ("ADDED own".into(), "ADDED late".into()));
}

#[tokio::test]
async fn a_revision_before_the_cache_is_an_error_event() {
    let server = Server::start().await;
    let first = revision(&server.config_map("a").await);
    server.store.compact(revision(&server.config_map("b").await)).await.unwrap();
    let other = apiserver::ApiServer::start(
        apiserver::Config::new(server.directory.path()),
        server.store.clone(),
        server.stop.clone(),
    )
    .await
    .unwrap();
    let restarted = Server {
        api: other,
        store: server.store.clone(),
        stop: server.stop.clone(),
        directory: tempfile::tempdir().unwrap(),
    };
    let mut watch = restarted.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", first - 1)).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None, "nothing follows an error");
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = Server::start().await;
    five(&server).await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    for name in ["a", "b", "c", "d", "e"] {
        assert_eq!(watch.told().await, format!("ADDED {name}"));
    }
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.config_map("f").await;
    assert_eq!(watch.told().await, "ADDED f");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}?watch=1&sendInitialEvents=true")).await.code, 422);
}

#[tokio::test]
async fn idle_watchers_that_ask_for_it_are_told_how_far_the_world_is() {
    let server = Server::start().await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true")).await;
    let pod = server.pod("p", "").await;
    server.get(PODS).await;
    tokio::time::pause();
    let mut bookmark = Value::Null;
    while bookmark["type"] != "BOOKMARK" || revision(&bookmark["object"]) < revision(&pod) {
        tokio::time::advance(std::time::Duration::from_secs(61)).await;
        bookmark = match futures::FutureExt::now_or_never(watch.next()) {
            Some(event) => event.unwrap(),
            None => Value::Null,
        };
        if !bookmark.is_null() && bookmark["type"] != "BOOKMARK" {
            assert_eq!(bookmark["object"]["metadata"]["name"], "kube-root-ca.crt");
        }
    }
}

#[tokio::test]
async fn the_last_bookmark_comes_just_before_the_end() {
    let server = Server::start().await;
    let query = "watch=1&allowWatchBookmarks=true&timeoutSeconds=8&sendInitialEvents=false";
    let query = format!("{query}&resourceVersionMatch=NotOlderThan");
    let mut watch = server.watch(&format!("/api/v1/namespaces/kube-public/configmaps?{query}")).await;
    let pod = server.pod("p", "").await;
    server.get(PODS).await;
    tokio::time::pause();
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "BOOKMARK");
    assert!(revision(&event["object"]) >= revision(&pod));
    assert_eq!(watch.told().await, "end");
}

#[tokio::test]
async fn one_object_is_watched_by_its_name() {
    let server = Server::start().await;
    five(&server).await;
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Dc")).await;
    assert_eq!(watch.told().await, "ADDED c");
    server.delete(&format!("{CONFIG_MAPS}/b")).await;
    server.delete(&format!("{CONFIG_MAPS}/c")).await;
    assert_eq!(watch.told().await, "DELETED c");
}

#[tokio::test]
async fn initial_events_come_in_the_shape_asked_for() {
    let server = Server::start().await;
    server.config_map("a").await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let path = format!("{CONFIG_MAPS}?{query}&fieldSelector=metadata.name%3Da");
    let cases = [("Table", "Table"), ("PartialObjectMetadata", "PartialObjectMetadata")];
    for (shape, kind) in cases {
        let accept = format!("application/json;as={shape};v=v1;g=meta.k8s.io");
        let mut watch = server.watch_as(User::master("admin"), &path, &[("accept", &accept)]).await;
        let (first, bookmark) = (watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!(kind)));
        assert_eq!((&bookmark["type"], &bookmark["object"]["kind"]), (&json!("BOOKMARK"), &json!(kind)));
        // A Table says it of its only row.
        let metadata = match shape {
            "Table" => &bookmark["object"]["rows"][0]["object"]["metadata"],
            _ => &bookmark["object"]["metadata"],
        };
        assert_eq!(metadata["annotations"]["k8s.io/initial-events-end"], "true");
        assert!(metadata.get("creationTimestamp").is_none(), "{bookmark}");
    }
}

#[tokio::test]
async fn options_that_contradict_each_other_are_named() {
    let server = Server::start().await;
    let cases = [
        ("resourceVersionMatch=Exact", "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("resourceVersion=0&resourceVersionMatch=Exact", "is forbidden for resourceVersion"),
        ("resourceVersion=1&resourceVersionMatch=Odd", "Unsupported value: \"Odd\": supported values: "),
        ("sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
        ("watch=1&sendInitialEvents=true", "requires setting resourceVersionMatch to NotOlderThan"),
        ("watch=1&resourceVersionMatch=NotOlderThan&resourceVersion=1", "unless sendInitialEvents is provided"),
    ];
    for (query, message) in cases {
        let answer = server.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(answer.code, 422, "{query}: {}", answer.text);
        assert!(answer.message().starts_with("ListOptions.meta.k8s.io \"\" is invalid: "), "{}", answer.text);
        assert!(answer.message().contains(message), "{}", answer.text);
    }
}

#[tokio::test]
async fn large_answers_are_compressed_for_those_who_take_it() {
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let server = Server::start().await;
    let text = "text ".repeat(30_000);
    let large = json!({"metadata": {"name": "large"}, "data": {"k": text}});
    server.create(CONFIG_MAPS, &large).await;
    server.config_map("small").await;
    for (path, is_compressed) in
        [("large", true), ("small", false), ("", true), ("large?pretty=true", true), ("small?pretty=true", false)]
    {
        let request = http::Request::builder().uri(format!("{CONFIG_MAPS}/{path}")).header("accept-encoding", "gzip");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let response = server.api.service_as(User::master("admin")).oneshot(request).await.unwrap();
        assert_eq!(response.headers().get("content-encoding").is_some(), is_compressed, "{path}");
        if !is_compressed {
            continue;
        }
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        assert!(bytes.len() < 20_000, "{}", bytes.len());
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*bytes), &mut plain).unwrap();
        assert!(serde_json::from_str::<Value>(&plain).unwrap().is_object());
        assert_eq!(plain.starts_with("{\n"), path.ends_with("pretty=true"), "{path}");
    }
    assert!(server.get(&format!("{CONFIG_MAPS}/large")).await.headers.get("content-encoding").is_none());
}

/// Each piece can be read when it has come, and the whole is one gzip with its sum.
#[tokio::test]
async fn watches_are_compressed_for_those_who_take_it() {
    use flate2::{Decompress, FlushDecompress};
    use http_body_util::BodyExt;
    use tower::ServiceExt;
    let server = Server::start().await;
    server.config_map("early").await;
    let path = format!("{CONFIG_MAPS}?watch=1");
    let open = async |path: &str| {
        let request = http::Request::builder().uri(path).header("accept-encoding", "gzip");
        let request = request.body(axum::body::Body::empty()).unwrap();
        server.api.service_as(User::master("admin")).oneshot(request).await.unwrap()
    };
    let selective = open(&format!("{path}&labelSelector=a")).await;
    assert_eq!(selective.headers().get("content-encoding"), None, "one that shares nothing");
    let (first, second) = (open(&path).await, open(&path).await);
    assert_eq!(first.headers()["content-encoding"], "gzip");
    assert_eq!(first.headers()["vary"], "Accept-Encoding");
    let mut watches = [first, second].map(|r| (r.into_body(), Decompress::new_gzip(15), Vec::new()));
    for name in ["early", "one", "two"] {
        if name != "early" {
            server.config_map(name).await;
        }
        for (body, inflate, all) in &mut watches {
            let piece = body.frame().await.unwrap().unwrap().into_data().unwrap();
            let mut plain = Vec::with_capacity(1 << 16);
            inflate.decompress_vec(&piece, &mut plain, FlushDecompress::None).unwrap();
            let event: Value = serde_json::from_slice(&plain).unwrap();
            assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!(name)));
            all.extend_from_slice(&piece);
        }
    }
    server.stop.cancel();
    for (body, _, mut all) in watches {
        all.extend_from_slice(&body.collect().await.unwrap().to_bytes());
        let mut plain = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&*all), &mut plain).unwrap();
        assert_eq!(plain.lines().count(), 3, "{plain}");
    }
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_up_or_the_server_stops() {
    let server = Server::start().await;
    let mut over = server.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=-1")).await;
    assert_eq!(over.next().await, None, "less than nothing is over at once");
    let mut short = server.watch(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1")).await;
    tokio::time::pause();
    assert_eq!(short.told().await, "end");
    tokio::time::resume();
    let mut long = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    server.stop.cancel();
    assert_eq!(long.told().await, "end");
}

#[tokio::test]
async fn tables_have_a_cell_for_every_column() {
    let server = Server::start().await;
    server.pod("a", "").await;
    server.create("/api/v1/namespaces/default/replicationcontrollers", &rc("web")).await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];
    let paths: Vec<String> = api::kinds()
        .filter(|k| k.info.is_stored())
        .map(|k| {
            let group = if k.info.group.is_empty() { "/api".into() } else { format!("/apis/{}", k.info.group) };
            format!("{group}/{}/{}", k.info.version, k.info.plural)
        })
        .collect();
    for path in paths {
        let table = server.send("GET", &path, &accept, "").await.json();
        assert_eq!(table["kind"], "Table", "{path}");
        let columns = table["columnDefinitions"].as_array().unwrap().len();
        for row in table["rows"].as_array().unwrap() {
            assert_eq!(row["cells"].as_array().unwrap().len(), columns, "{path}");
            assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
        }
    }
    let mut watch = server.watch_as(User::master("admin"), &format!("{PODS}?watch=1"), &accept).await;
    let first = watch.next().await.unwrap();
    assert_eq!((&first["object"]["kind"], &first["object"]["rows"][0]["cells"][0]), (&json!("Table"), &json!("a")));
    server.patch(&format!("{PODS}/a"), &json!({"metadata": {"labels": {"x": "y"}}})).await;
    assert_eq!(watch.next().await.unwrap()["object"]["columnDefinitions"], Value::Null, "columns are told once");
    let metadata = [("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")];
    let list = server.send("GET", PODS, &metadata, "").await.json();
    assert_eq!((&list["kind"], &list["items"][0]["spec"]), (&json!("PartialObjectMetadataList"), &Value::Null));
}

#[tokio::test]
async fn a_crowd_of_watchers_is_told_everything_in_order() {
    let server = Server::start().await;
    let start = revision(&server.config_map("first").await);
    let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}");
    let mut watches = Vec::new();
    for _ in 0..150 {
        watches.push(server.watch(&path).await);
    }
    let five = ["a", "b", "c", "d", "e"];
    for name in five {
        server.config_map(name).await;
    }
    for watch in &mut watches {
        for name in five {
            assert_eq!(watch.told().await, format!("ADDED {name}"));
        }
    }
}

#[tokio::test]
async fn pages_are_of_the_very_version_that_is_named() {
    let server = Server::start().await;
    five(&server).await;
    let then = revision(&server.get(CONFIG_MAPS).await.json());
    server.delete(&format!("{CONFIG_MAPS}/a")).await;
    let names = |answer: &Answer| {
        let list = answer.json();
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let old = server.get(&format!("{CONFIG_MAPS}?resourceVersion={then}&limit=2")).await;
    assert_eq!((names(&old), revision(&old.json())), (vec!["a".to_owned(), "b".to_owned()], then));
    // Whoever takes what is not older than something takes what the cache has: the deletion, after this.
    server.get(CONFIG_MAPS).await;
    for query in ["", "&resourceVersionMatch=NotOlderThan&limit=2", "&limit=0"] {
        let new = server.get(&format!("{CONFIG_MAPS}?resourceVersion={then}{query}")).await;
        assert_eq!(names(&new)[0], "b", "{query}");
    }
    let bad = server.get(&format!("{CONFIG_MAPS}?resourceVersion=-1")).await;
    let message = "invalid resource version: resourceVersion: Invalid value: \"-1\": strconv.ParseUint: parsing \"-1\": invalid syntax";
    assert_eq!((bad.code, bad.message().as_str()), (400, message));
}

#[tokio::test]
async fn a_collection_is_deleted_page_by_page_and_shown_as_it_was() {
    let server = Server::start().await;
    five(&server).await;
    let of_page = |list: &Value| list["items"].as_array().unwrap().len();
    let first = server.delete(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    assert_eq!((of_page(&first), of_page(&server.get(CONFIG_MAPS).await.json())), (2, 3));
    let token = first["metadata"]["continue"].as_str().unwrap();
    server.patch(&format!("{CONFIG_MAPS}/e"), &json!({"metadata": {"finalizers": ["a.b/c"]}})).await;
    let metadata = ("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let rest = server.send("DELETE", &format!("{CONFIG_MAPS}?limit=5&continue={token}"), &[metadata], "").await.json();
    assert_eq!((&rest["kind"], of_page(&rest)), (&json!("PartialObjectMetadataList"), 3));
    assert!(rest["items"].as_array().unwrap().iter().all(|item| item["metadata"]["deletionTimestamp"].is_null()));
    let left = server.get(CONFIG_MAPS).await.json();
    assert!(left["items"][0]["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(of_page(&left), 1, "what has a finalizer is only marked");
}

#[tokio::test]
async fn a_watch_from_no_version_says_when_it_has_told_what_there_is() {
    let server = Server::start().await;
    server.config_map("a").await;
    for version in ["", "&resourceVersion=0"] {
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true{version}")).await;
        assert_eq!(watch.told().await, "ADDED a");
        let bookmark = watch.next().await.unwrap();
        assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{bookmark}");
    }
    let paged = server.get(&format!("{CONFIG_MAPS}?watch=1&continue=x")).await;
    assert_eq!(paged.code, 422, "{}", paged.text);
}

#[tokio::test]
async fn a_watch_of_what_is_yet_to_come_begins_before_it_fails() {
    let server = Server::start().await;
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=1000000";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(504)));
    assert_eq!(event["object"]["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_named_watch_and_its_selector_mean_the_same_object() {
    let server = Server::start().await;
    server.config_map("a").await;
    let path = "/api/v1/watch/namespaces/default/configmaps/a";
    let mut watch = server.watch(&format!("{path}?fieldSelector=metadata.name%3Da")).await;
    assert_eq!(watch.told().await, "ADDED a");
    let other = server.get(&format!("{path}?fieldSelector=metadata.name%3Db")).await;
    assert_eq!(
        (other.code, other.message().as_str()),
        (400, "fieldSelector metadata.name doesn't match requested name")
    );
}
