//! What Go clients rely on without saying so: the requests that client-go's discovery, reflectors and retries send, and what
//! they need to find in the answers.

use apiserver::User;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::common::*;
use crate::tls::Secure;

/// Discovery up to 1.25, from 1.26, from 1.30 on, and of a client that wants this server's own documents.
const UNAGGREGATED: &str = "application/json";
const BETA: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
     application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
const NO_PEER: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList;profile=nopeer,\
     application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
const OPENAPI_V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
/// What typed clients send from 1.32 on.
const TYPED: &str = "application/vnd.kubernetes.protobuf,application/json";

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    server.send("GET", path, headers, "").await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.headers.get(name).map_or("", |value| value.to_str().unwrap())
}

#[tokio::test]
async fn discovery_comes_in_the_newest_form_a_client_reads() {
    let server = Server::start().await;
    for (accept, kinds) in [
        (UNAGGREGATED, ["APIVersions", "APIGroupList"]),
        (BETA, ["APIVersions", "APIGroupList"]),
        (AGGREGATED, ["APIGroupDiscoveryList"; 2]),
        (NO_PEER, ["APIGroupDiscoveryList"; 2]),
    ] {
        for (path, kind) in ["/api", "/apis"].into_iter().zip(kinds) {
            let answer = get(&server, path, &[("accept", accept)]).await;
            assert_eq!(answer.json()["kind"], kind, "{path} {accept}");
            let parameters = if kind == "APIGroupDiscoveryList" { ";g=apidiscovery.k8s.io;v=v2;as=" } else { "" };
            assert!(header(&answer, "content-type").contains(parameters), "which form it is");
        }
    }
}

#[tokio::test]
async fn a_document_that_a_client_has_is_not_sent_again() {
    let server = Server::start().await;
    for (path, accept) in [
        ("/api", AGGREGATED),
        ("/apis", AGGREGATED),
        ("/openapi/v2", "application/json"),
        ("/openapi/v3", "application/json"),
        ("/openapi/v3/api/v1", "application/json"),
    ] {
        let answer = get(&server, path, &[("accept", accept)]).await;
        let tag = header(&answer, "etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 2 && answer.code == 200, "{path}: {tag}");
        assert_eq!(header(&answer, "vary"), "Accept", "the same path has several forms");
        for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let again = get(&server, path, &[("accept", accept), ("if-none-match", &known)]).await;
            assert_eq!((again.code, again.text.as_str(), header(&again, "etag")), (304, "", tag.as_str()), "{path}");
        }
        let older = get(&server, path, &[("accept", accept), ("if-none-match", "\"older\"")]).await;
        assert_eq!(older.code, 200, "{path}");
    }
}

#[tokio::test]
async fn a_schema_is_kept_for_ever_and_an_old_address_leads_to_the_new_one() {
    let server = Server::start().await;
    let index = server.get("/openapi/v3").await.json();
    let address = index["paths"]["apis/coordination.k8s.io/v1"]["serverRelativeURL"].as_str().unwrap();
    let answer = server.get(address).await;
    assert_eq!((answer.code, header(&answer, "cache-control")), (200, "public, immutable"));
    assert!(header(&answer, "expires").ends_with(" GMT"));
    let older = server.get("/openapi/v3/apis/coordination.k8s.io/v1?hash=0123").await;
    assert_eq!((older.code, header(&older, "location")), (301, address));
    assert_eq!(server.get("/openapi/v3/apis/apps/v1?hash=0123").await.code, 404);
    let plain = server.get("/openapi/v3/apis/coordination.k8s.io/v1").await;
    assert_eq!((plain.code, header(&plain, "cache-control")), (200, "no-cache, private"));
}

#[tokio::test]
async fn schemas_ask_no_more_than_upstreams() {
    let server = Server::start().await;
    let v2 = server.get("/openapi/v2").await.json();
    let required = |name: &str| v2["definitions"][name]["required"].clone();
    assert_eq!(required("io.k8s.api.core.v1.Pod"), Value::Null);
    assert_eq!(required("io.k8s.api.authorization.v1.SubjectAccessReview"), json!(["spec"]));
    assert_eq!(required("io.k8s.api.core.v1.Event"), json!(["involvedObject", "metadata"]));
    assert_eq!(v2["definitions"]["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let v3 = server.get("/openapi/v3/api/v1").await.json();
    let port = &v3["components"]["schemas"]["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!(
        (&port["format"], &port["oneOf"]),
        (&json!("int-or-string"), &json!([{"type": "integer"}, {"type": "string"}]))
    );
}

#[tokio::test]
async fn operations_say_what_may_be_sent_and_what_comes_back() {
    let server = Server::start().await;
    let v3 = server.get("/openapi/v3/api/v1").await.json();
    let schema = |name: &str| json!(format!("#/components/schemas/io.k8s.{name}"));
    let (pods, maps) =
        (&v3["paths"]["/api/v1/namespaces/{namespace}/pods"], "/api/v1/namespaces/{namespace}/configmaps");
    let codes = |operation: &Value| operation["responses"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(codes(&pods["post"]), ["200", "201", "202", "401"]);
    let pod = &v3["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"];
    assert_eq!(codes(&pod["get"]), ["200", "401"]);
    assert_eq!(codes(&pod["put"]), ["200", "201", "401"]);
    let answer = |operation: &Value, code: &str| {
        operation["responses"][code]["content"]["application/json"]["schema"]["$ref"].clone()
    };
    assert_eq!(answer(&pod["delete"], "202"), schema("api.core.v1.Pod"), "it is shown once more");
    let map = &v3["paths"][&format!("{maps}/{{name}}")];
    assert_eq!(answer(&map["delete"], "200"), schema("apimachinery.pkg.apis.meta.v1.Status"));
    for operation in [&map["delete"], &v3["paths"][maps]["delete"]] {
        let body = &operation["requestBody"];
        let options = &body["content"]["application/json"]["schema"]["$ref"];
        assert_eq!(
            (options, &body["required"]),
            (&schema("apimachinery.pkg.apis.meta.v1.DeleteOptions"), &json!(false))
        );
        let query: Vec<&str> =
            operation["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        for name in ["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"] {
            assert!(query.contains(&name), "{name}: {query:?}");
        }
    }
    let v2 = server.get("/openapi/v2").await.json();
    let body = v2["paths"][maps]["delete"]["parameters"].as_array().unwrap().iter().find(|p| p["in"] == "body");
    assert_eq!(body.unwrap()["schema"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    let events = server.get("/openapi/v3/apis/events.k8s.io/v1").await.json();
    let event = &events["paths"]["/apis/events.k8s.io/v1/namespaces/{namespace}/events/{name}"]["patch"];
    let types: Vec<&String> = event["requestBody"]["content"].as_object().unwrap().keys().collect();
    assert!(types.len() == 3 && types.iter().all(|t| !t.contains("apply")), "{types:?}");
}

/// kubectl up to 1.26 explains, validates and merges by this.
#[tokio::test]
async fn the_schema_in_protobuf_has_every_definition() {
    let server = Server::start().await;
    let headers = [("accept", OPENAPI_V2_PROTOBUF)];
    let request = headers.iter().fold(http::Request::get("/openapi/v2"), |request, (k, v)| request.header(*k, *v));
    let service = server.api.service_as(User::master("admin"));
    let answer = tower::ServiceExt::oneshot(service, request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let document = answer.into_body().collect().await.unwrap().to_bytes();
    let v2 = server.get("/openapi/v2").await.json();
    for name in v2["definitions"].as_object().unwrap().keys() {
        assert!(document.windows(name.len()).any(|window| window == name.as_bytes()), "{name}");
    }
}

#[tokio::test]
async fn clients_that_like_protobuf_better_get_json() {
    let server = Server::start().await;
    server.config_map("a").await;
    let headers = [("accept", TYPED)];
    for path in [CONFIG_MAPS.to_owned(), format!("{CONFIG_MAPS}/a"), format!("{CONFIG_MAPS}/nothing")] {
        let answer = get(&server, &path, &headers).await;
        assert_eq!(header(&answer, "content-type"), "application/json");
        assert!(answer.json().is_object());
    }
    let mut watch = server.watch_as(User::master("admin"), &format!("{CONFIG_MAPS}?watch=true"), &headers).await;
    assert_eq!(watch.told().await, "ADDED a");
}

#[tokio::test]
async fn tables_and_metadata_come_in_the_version_a_client_reads() {
    let server = Server::start().await;
    server.config_map("a").await;
    let (one, map) =
        (format!("{CONFIG_MAPS}/a"), |kind: &str, v: &str| format!("application/json;as={kind};g=meta.k8s.io;v={v}"));
    for version in ["v1", "v1beta1"] {
        let api_version = format!("meta.k8s.io/{version}");
        for (path, kind) in [
            (CONFIG_MAPS, "Table"),
            (one.as_str(), "Table"),
            (CONFIG_MAPS, "PartialObjectMetadataList"),
            (one.as_str(), "PartialObjectMetadata"),
        ] {
            let answer = get(&server, path, &[("accept", map(kind, version).as_str())]).await.json();
            assert_eq!((&answer["kind"], &answer["apiVersion"]), (&json!(kind), &json!(api_version)), "{path}");
            let inner = [&answer["rows"][0]["object"], &answer["items"][0]];
            for object in inner.into_iter().filter(|object| !object.is_null()) {
                let expected = (&json!("PartialObjectMetadata"), &json!(api_version));
                assert_eq!((&object["kind"], &object["apiVersion"]), expected, "{path}");
            }
        }
        let told = |kind| {
            (
                kind,
                format!(
                    "{CONFIG_MAPS}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"
                ),
            )
        };
        for (kind, path) in [told("Table"), told("PartialObjectMetadata")] {
            let mut watch =
                server.watch_as(User::master("admin"), &path, &[("accept", map(kind, version).as_str())]).await;
            // Ours, and the bookmark at the end of what there is.
            for _ in 0..2 {
                let event = watch.next().await.unwrap();
                let object = (&event["object"]["kind"], &event["object"]["apiVersion"]);
                assert_eq!(object, (&json!(kind), &json!(api_version)), "{event}");
            }
        }
    }
    let refused = get(&server, CONFIG_MAPS, &[("accept", map("PartialObjectMetadata", "v1").as_str())]).await;
    assert_eq!((refused.code, &refused.json()["reason"]), (406, &json!("NotAcceptable")));
    assert_eq!(
        refused.message(),
        "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"
    );
    let refused = get(&server, &one, &[("accept", map("PartialObjectMetadataList", "v1").as_str())]).await;
    assert_eq!(
        refused.message(),
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)"
    );
}

/// `Reflector.list` and `Reflector.watch`, with the parameters they send.
#[tokio::test]
async fn a_reflector_goes_on_where_it_was() {
    let server = Server::start().await;
    server.config_map("a").await;
    // Once this is answered, what is at hand has it.
    server.get(CONFIG_MAPS).await;
    let list = server.get(&format!("{CONFIG_MAPS}?limit=500&resourceVersion=0")).await.json();
    let watch = |since: &str| {
        let parameters = "allowWatchBookmarks=true&timeout=7m17s&timeoutSeconds=437&watch=true";
        format!("{CONFIG_MAPS}?{parameters}&resourceVersion={since}")
    };
    let since = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut first = server.watch(&watch(since)).await;
    server.config_map("b").await;
    let told = first.next().await.unwrap();
    assert_eq!((&told["type"], &told["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("b")));
    assert_eq!((&told["object"]["kind"], &told["object"]["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
    server.delete(&format!("{CONFIG_MAPS}/a")).await;
    let since = told["object"]["metadata"]["resourceVersion"].as_str().unwrap();
    assert_eq!(server.watch(&watch(since)).await.told().await, "DELETED a");
    // Behind a server that has seen less it lists again: `isTooLargeResourceVersionError`.
    let ahead = server.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await;
    assert_eq!((ahead.code, header(&ahead, "retry-after")), (504, "1"));
    let status = ahead.json();
    assert_eq!((&status["reason"], &status["details"]["retryAfterSeconds"]), (&json!("Timeout"), &json!(1)));
    assert_eq!(status["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

/// `Reflector.watchList`: it waits for the bookmark, and takes its version for that of a list.
#[tokio::test]
async fn a_streamed_list_ends_with_the_bookmark_and_goes_on() {
    let server = Server::start().await;
    server.config_map("a").await;
    server.config_map("b").await;
    let parameters = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true\
         &timeoutSeconds=437&watch=true";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{parameters}")).await;
    assert_eq!((watch.told().await.as_str(), watch.told().await.as_str()), ("ADDED a", "ADDED b"));
    let end = watch.next().await.unwrap();
    let object = &end["object"];
    assert_eq!(
        (&end["type"], &object["kind"], &object["apiVersion"]),
        (&json!("BOOKMARK"), &json!("ConfigMap"), &json!("v1"))
    );
    assert_eq!(object["metadata"]["annotations"], json!({"k8s.io/initial-events-end": "true"}));
    let list = server.get(CONFIG_MAPS).await.json();
    assert_eq!(revision(object), revision(&list));
    server.config_map("c").await;
    assert_eq!(watch.told().await, "ADDED c");
}

/// client-go tries again after as many seconds as it is told, up to ten times.
#[tokio::test]
async fn whoever_is_turned_away_is_told_when_to_come_again() {
    let server = Server::start_with(|config| config.max_requests_inflight = 0).await;
    let scheduler = || User::new("system:kube-scheduler", ["system:authenticated"]);
    let answer = server.send_as(scheduler(), "GET", PODS, &[], "").await;
    assert_eq!((answer.code, header(&answer, "retry-after")), (429, "1"));
    let status = answer.json();
    assert_eq!((&status["reason"], &status["details"]["retryAfterSeconds"]), (&json!("TooManyRequests"), &json!(1)));
    assert_eq!(server.get(PODS).await.code, 200, "an admin is never turned away");
    server.watch_as(scheduler(), &format!("{PODS}?watch=true"), &[]).await;
}

/// Go keeps all watches on one connection: it must be told that the server goes, and the watches must end like any other.
#[tokio::test]
async fn a_server_that_stops_says_goodbye_to_every_connection() {
    let secure = Secure::start(|_| {}).await;
    let stream = secure.connect(Some(&secure.admin()), true).await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let path = format!("https://{}{CONFIG_MAPS}?watch=true", secure.address);
    let request = http::Request::get(path).body(Empty::<bytes::Bytes>::new()).unwrap();
    let answer = sender.send_request(request.clone()).await.unwrap();
    assert_eq!(answer.status(), 200);
    secure.stop().await;
    let rest = tokio::time::timeout(PATIENCE, answer.into_body().collect()).await.unwrap();
    assert!(rest.unwrap().to_bytes().is_empty(), "the watch ends, and not in the middle");
    tokio::time::timeout(PATIENCE, connection).await.unwrap().unwrap().expect("no error, but a GOAWAY");
    assert!(sender.send_request(request).await.is_err(), "nothing more goes over this connection");
}

#[tokio::test]
async fn people_are_answered_in_lines_and_nothing_is_kept_on_the_way() {
    let server = Server::start().await;
    server.config_map("a").await;
    let curl = [("user-agent", "curl/8.5.0")];
    for path in [CONFIG_MAPS, "/api/v1/namespaces/default/configmaps/a", "/api", "/apis", "/api/v1/nothings"] {
        let (plain, indented) = (server.get(path).await, get(&server, path, &curl).await);
        assert_eq!(
            serde_json::to_string_pretty(&indented.json()).unwrap().lines().count(),
            indented.text.lines().count()
        );
        assert!(indented.text.starts_with("{\n  \"") && plain.text.starts_with("{\""), "{path}: {}", indented.text);
        assert_eq!(indented.json(), plain.json(), "{path}");
        assert_eq!(header(&plain, "cache-control"), "no-cache, private", "{path}");
        let asked = format!("{path}?pretty=false");
        assert_eq!(get(&server, &asked, &curl).await.text, server.get(&asked).await.text, "{path}");
    }
    for path in ["/", "/version", "/version?pretty=false"] {
        assert!(server.get(path).await.text.starts_with("{\n  \""), "{path} is in lines for everyone");
    }
    let mut watch = server.watch_as(User::master("admin"), &format!("{CONFIG_MAPS}?watch=1"), &curl).await;
    assert_eq!(watch.told().await, "ADDED a", "a line for each event");
}
