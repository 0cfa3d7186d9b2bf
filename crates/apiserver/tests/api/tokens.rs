//! Tokens: made for service accounts, kept as bootstrap Secrets, reviewed, refused.

use apiserver::User;
use base64::Engine;
use serde_json::{Value, json};

use crate::common::*;
use crate::tls::Secure;

pub(crate) const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
pub(crate) const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

async fn account(server: &Server, name: &str) -> Value {
    server.create(ACCOUNTS, &json!({"metadata": {"name": name}})).await
}

async fn request(server: &Server, account: &str, spec: Value) -> Answer {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    server.post(&format!("{ACCOUNTS}/{account}/token"), &body).await
}

async fn token(server: &Server, account: &str, spec: Value) -> String {
    let answer = request(server, account, spec).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    answer.json()["status"]["token"].as_str().unwrap().to_owned()
}

fn claims(token: &str) -> Value {
    let payload = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// A token of the account `robot` that is kept in the Secret `s`.
pub(crate) async fn kept(server: &Server) -> String {
    account(server, "robot").await;
    bound_to(server, "s", "kubernetes.io/service-account-token").await
}

/// A token of the account `robot` without an end that is bound to a new Secret.
pub(crate) async fn bound_to(server: &Server, name: &str, type_: &str) -> String {
    let annotations = json!({"kubernetes.io/service-account.name": "robot"});
    let secret = json!({"metadata": {"name": name, "annotations": annotations}, "type": type_});
    let secret = server.create(SECRETS, &secret).await;
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": name, "uid": secret["metadata"]["uid"]});
    token(server, "robot", json!({"boundObjectRef": bound, "expirationSeconds": 1i64 << 32})).await
}

/// What fills a Secret with a token.
pub(crate) fn filled(token: &str) -> Value {
    json!({"data": {"token": base64::prelude::BASE64_STANDARD.encode(token)}})
}

/// A review, and what is said beside it.
pub(crate) async fn reviewed(server: &Server, token: &str, audiences: &[&str]) -> Answer {
    let answer = server.post(REVIEWS, &json!({"spec": {"token": token, "audiences": audiences}})).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    answer
}

/// The status of a review.
async fn review(server: &Server, token: &str, audiences: &[&str]) -> Value {
    reviewed(server, token, audiences).await.json()["status"].clone()
}

async fn is_known(server: &Server, token: &str) -> bool {
    review(server, token, &[]).await["authenticated"] == true
}

#[tokio::test]
async fn a_token_says_who_it_is_for_and_for_how_long() {
    let server = Server::start().await;
    let robot = account(&server, "robot").await;
    let answer = request(&server, "robot", json!({"expirationSeconds": 600})).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let answer = answer.json();
    assert_eq!((&answer["metadata"]["name"], &answer["metadata"]["namespace"]), (&json!("robot"), &json!("default")));
    assert_eq!(answer["spec"]["audiences"], json!([ISSUER]));
    let token = answer["status"]["token"].as_str().unwrap();
    let claims = claims(token);
    let end: jiff::Timestamp = answer["status"]["expirationTimestamp"].as_str().unwrap().parse().unwrap();
    assert_eq!(claims["exp"], end.as_second());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    assert_eq!((&claims["iss"], &claims["nbf"], &claims["aud"]), (&json!(ISSUER), &claims["iat"], &json!([ISSUER])));
    let bound = json!({"namespace": "default", "serviceaccount": {"name": "robot", "uid": robot["metadata"]["uid"]}});
    assert_eq!(claims["kubernetes.io"], bound);

    let status = review(&server, token, &[]).await;
    let user = json!({
        "username": "system:serviceaccount:default:robot", "uid": robot["metadata"]["uid"],
        "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
        "extra": {"authentication.kubernetes.io/credential-id": [format!("JTI={}", claims["jti"].as_str().unwrap())]},
    });
    assert_eq!(status, json!({"authenticated": true, "audiences": [ISSUER], "user": user}));

    // The account's end is the token's, also when another one takes its name.
    server.delete(&format!("{ACCOUNTS}/robot")).await;
    assert!(!is_known(&server, token).await);
    account(&server, "robot").await;
    let error = review(&server, token, &[]).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("does not match claim"), "{error}");
}

#[tokio::test]
async fn tokens_end_with_what_they_are_bound_to() {
    let server = Server::start().await;
    account(&server, "robot").await;
    let mut web = pod("web", "n1");
    web["spec"]["serviceAccountName"] = json!("robot");
    let web = server.create(PODS, &web).await;
    let node = server.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let secret = server.create(SECRETS, &json!({"metadata": {"name": "s"}})).await;
    let bound = |kind: &str, object: &Value| {
        let (name, uid) = (&object["metadata"]["name"], &object["metadata"]["uid"]);
        json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, "uid": uid}})
    };
    let of_pod = token(&server, "robot", bound("Pod", &web)).await;
    let extra = review(&server, &of_pod, &[]).await["user"]["extra"].clone();
    for (key, value) in [
        ("pod-name", &web["metadata"]["name"]),
        ("pod-uid", &web["metadata"]["uid"]),
        ("node-name", &node["metadata"]["name"]),
        ("node-uid", &node["metadata"]["uid"]),
    ] {
        assert_eq!(&extra[format!("authentication.kubernetes.io/{key}")][0], value, "{key}");
    }
    let of_secret = token(&server, "robot", bound("Secret", &secret)).await;
    let of_node = token(&server, "robot", bound("Node", &node)).await;
    for (token, path) in [
        (of_pod, format!("{PODS}/web?gracePeriodSeconds=0")),
        (of_secret, format!("{SECRETS}/s")),
        (of_node, "/api/v1/nodes/n1".to_owned()),
    ] {
        assert!(is_known(&server, &token).await, "{path}");
        assert_eq!(server.delete(&path).await.code, 200);
        assert!(!is_known(&server, &token).await, "{path}");
    }
}

#[tokio::test]
async fn a_token_in_a_secret_counts_while_it_is_there_and_its_use_is_noted() {
    let server = Server::start().await;
    let kept = kept(&server).await;
    let error = review(&server, &kept, &[]).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("Token does not match server's copy"), "{error}");

    let path = format!("{SECRETS}/s");
    let secret = server.patch(&path, &filled(&kept)).await.json();
    let mut watch = server.watch(&format!("{SECRETS}?watch=1&resourceVersion={}", revision(&secret))).await;
    assert!(is_known(&server, &kept).await);
    let noted = watch.next().await.unwrap()["object"].clone();
    let today = |value: &Value| value.as_str().unwrap().parse::<jiff::civil::Date>().is_ok();
    assert!(today(&noted["metadata"]["labels"]["kubernetes.io/legacy-token-last-used"]), "{noted}");
    let tracking = "/api/v1/namespaces/kube-system/configmaps/kube-apiserver-legacy-service-account-token-tracking";
    assert!(today(&server.get(tracking).await.json()["data"]["since"]));

    let ended = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    assert_eq!(server.patch(&path, &ended).await.code, 200);
    assert!(!is_known(&server, &kept).await);
    let again = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": null}}});
    assert_eq!(server.patch(&path, &again).await.code, 200);
    assert!(is_known(&server, &kept).await);
    assert_eq!(server.patch(&path, &filled("another")).await.code, 200);
    assert!(!is_known(&server, &kept).await, "who takes it out of the secret ends it");
}

#[tokio::test]
async fn wrong_requests_are_answered_with_what_is_wrong() {
    let server = Server::start().await;
    account(&server, "robot").await;
    account(&server, "other").await;
    server.pod("web", "n1").await;
    let bound = |kind: &str, uid: &str| json!({"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": "web", "uid": uid}});
    server.create(SECRETS, &json!({"metadata": {"name": "web"}})).await;
    let cases = [
        ("nobody", json!({}), 404, "serviceaccounts \"nobody\" not found"),
        ("robot", json!({"expirationSeconds": 599}), 422, "may not specify a duration less than 10 minutes"),
        (
            "robot",
            json!({"expirationSeconds": 4294967297i64}),
            422,
            "may not specify a duration larger than 2^32 seconds",
        ),
        (
            "robot",
            bound("Pod", ""),
            400,
            "cannot bind token for serviceaccount \"robot\" to pod running with different",
        ),
        ("robot", bound("Node", ""), 404, "nodes \"web\" not found"),
        (
            "robot",
            bound("Secret", "x"),
            409,
            "the UID in the bound object reference (x) does not match the UID in record",
        ),
        ("robot", bound("ConfigMap", ""), 400, "cannot bind token to object of type /v1, Kind=ConfigMap"),
        ("robot", json!({"boundObjectRef": {"kind": "Pod", "apiVersion": "v1"}}), 400, "Name parameter required."),
        // Group and kind count, the version does not.
        ("robot", json!({"boundObjectRef": {"kind": "Secret", "name": "no", "apiVersion": "v2"}}), 404, "secrets"),
        (
            "robot",
            json!({"boundObjectRef": {"kind": "Secret", "name": "no", "apiVersion": "apps/v1"}}),
            400,
            "cannot bind token to object of type apps/v1, Kind=Secret",
        ),
    ];
    for (name, spec, code, message) in cases {
        let answer = request(&server, name, spec.clone()).await;
        assert_eq!(answer.code, code, "{spec}: {}", answer.text);
        assert!(answer.message().contains(message), "{}", answer.message());
    }
    let renamed = json!({"metadata": {"name": "other"}, "spec": {}});
    let answer = server.post(&format!("{ACCOUNTS}/robot/token"), &renamed).await;
    assert_eq!(answer.code, 422);
    assert!(answer.message().contains("must match the service account name if specified"), "{}", answer.message());
}

#[tokio::test]
async fn nodes_get_tokens_only_for_the_pods_they_run() {
    let server = Server::start().await;
    account(&server, "robot").await;
    account(&server, "other").await;
    let run = |name: &str, node: &str| {
        let mut pod = pod(name, node);
        pod["spec"]["serviceAccountName"] = json!("robot");
        pod["spec"]["volumes"] = json!([{"name": "t", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}},
            {"serviceAccountToken": {"path": "vault", "audience": "vault"}}]}}]);
        pod
    };
    let (own, foreign) =
        (server.create(PODS, &run("own", "n1")).await, server.create(PODS, &run("foreign", "n2")).await);
    let reference = |pod: &Value, uid: bool| {
        let uid = if uid { pod["metadata"]["uid"].clone() } else { json!("") };
        json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": uid})
    };
    let cases = [
        ("its own", "robot", json!({"boundObjectRef": reference(&own, true)}), 201),
        (
            "for an audience the pod asks for",
            "robot",
            json!({"boundObjectRef": reference(&own, true), "audiences": ["vault"]}),
            201,
        ),
        ("for another audience", "robot", json!({"boundObjectRef": reference(&own, true), "audiences": ["bank"]}), 403),
        (
            "for two audiences",
            "robot",
            json!({"boundObjectRef": reference(&own, true), "audiences": ["vault", "bank"]}),
            403,
        ),
        ("without the pod's uid", "robot", json!({"boundObjectRef": reference(&own, false)}), 403),
        ("another node's", "robot", json!({"boundObjectRef": reference(&foreign, true)}), 403),
        ("bound to nothing", "robot", json!({}), 403),
        ("an account no pod of it uses", "other", json!({"boundObjectRef": reference(&own, true)}), 403),
    ];
    let node = || User::new("system:node:n1", ["system:nodes"]);
    for (sentence, name, spec, code) in cases {
        let path = format!("{ACCOUNTS}/{name}/token");
        let answer = server.send_as(node(), "POST", &path, &[], &json!({"spec": spec}).to_string()).await;
        assert_eq!(answer.code, code, "{sentence}: {}", answer.text);
    }
}

#[tokio::test]
async fn tokens_are_good_for_their_audiences_only() {
    let server = Server::start_with(|c| c.api_audiences = vec!["api".into(), "second".into()]).await;
    account(&server, "robot").await;
    let for_api = token(&server, "robot", json!({})).await;
    let for_vault = token(&server, "robot", json!({"audiences": ["vault"]})).await;
    assert_eq!(claims(&for_api)["aud"], json!(["api", "second"]));
    for (token, asked, audiences) in [
        (&for_api, vec![], json!(["api", "second"])),
        (&for_api, vec!["second", "vault"], json!(["second"])),
        (&for_vault, vec!["vault"], json!(["vault"])),
        (&for_vault, vec![], Value::Null),
        (&for_api, vec!["vault"], Value::Null),
        (&"nonsense".to_owned(), vec![], Value::Null),
    ] {
        let status = review(&server, token, &asked).await;
        assert_eq!(status["audiences"], audiences, "{asked:?}: {status}");
        assert_eq!(status["authenticated"] == true, !audiences.is_null());
        assert_eq!(status["error"].is_string(), audiences.is_null(), "{status}");
    }
    assert_eq!(server.post(REVIEWS, &json!({"spec": {}})).await.code, 400);
}

#[tokio::test]
async fn the_join_token_and_every_bootstrap_secret_let_in_until_they_are_deleted() {
    let server = Server::start().await;
    let system = "/api/v1/namespaces/kube-system/secrets";
    let join = std::fs::read_to_string(server.directory.path().join("join-token")).unwrap();
    let (bearer, _) = join.trim().rsplit_once('.').unwrap();
    let (id, _) = bearer.split_once('.').unwrap();
    let status = review(&server, bearer, &[]).await;
    assert_eq!(status["user"]["username"], format!("system:bootstrap:{id}"));
    assert_eq!(server.delete(&format!("{system}/bootstrap-token-{id}")).await.code, 200);
    assert!(!is_known(&server, bearer).await);

    let secret = json!({
        "metadata": {"name": "bootstrap-token-aaaaaa"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {
            "token-id": "aaaaaa", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
            "auth-extra-groups": "system:bootstrappers:lab",
        },
    });
    server.create(system, &secret).await;
    let status = review(&server, "aaaaaa.0123456789abcdef", &[]).await;
    let groups = json!(["system:bootstrappers:lab", "system:bootstrappers", "system:authenticated"]);
    assert_eq!(status["user"]["groups"], groups, "{status}");
    assert!(!is_known(&server, "aaaaaa.0123456789abcdee").await);
    let past = json!({"stringData": {"expiration": "2020-01-01T00:00:00Z"}});
    assert_eq!(server.patch(&format!("{system}/bootstrap-token-aaaaaa"), &past).await.code, 200);
    assert!(!is_known(&server, "aaaaaa.0123456789abcdef").await);
}

/// Starts another server on the same data and store.
async fn again(server: &Server, stop: &tokio_util::sync::CancellationToken) -> apiserver::ApiServer {
    let mut config = apiserver::Config::new(server.directory.path());
    config.compaction_interval = None;
    apiserver::ApiServer::start(config, server.store.clone(), stop.clone()).await.unwrap()
}

#[tokio::test]
async fn a_join_token_that_was_deleted_or_has_ended_does_not_come_back() {
    let server = Server::start().await;
    let stop = tokio_util::sync::CancellationToken::new();
    let system = "/api/v1/namespaces/kube-system/secrets";
    let join = std::fs::read_to_string(server.directory.path().join("join-token")).unwrap();
    let list = server.get(system).await.json();
    let secret = format!("{system}/{}", list["items"][0]["metadata"]["name"].as_str().unwrap());
    let end = base64::prelude::BASE64_STANDARD.decode(list["items"][0]["data"]["expiration"].as_str().unwrap());
    let end: jiff::Timestamp = String::from_utf8(end.unwrap()).unwrap().parse().unwrap();
    let left = end.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((86_000..=86_400).contains(&left), "good for a day, not {left} s");
    assert_eq!(again(&server, &stop).await.join_token().await.as_deref(), Some(join.trim()));

    let past = json!({"stringData": {"expiration": "2020-01-01T00:00:00Z"}});
    assert_eq!(server.patch(&secret, &past).await.code, 200);
    let later = again(&server, &stop).await;
    assert_eq!(later.join_token().await, None, "it has ended, and a restart renews nothing");
    server.delete(&secret).await;
    let later = again(&server, &stop).await;
    assert_eq!((later.join_token().await, server.get(system).await.json()["items"].clone()), (None, json!([])));
    stop.cancel();
}

#[tokio::test]
async fn service_accounts_are_let_in_over_tls() {
    let secure = Secure::start(|_| {}).await;
    account(&secure.server, "robot").await;
    let good = token(&secure.server, "robot", json!({})).await;
    let foreign = token(&secure.server, "robot", json!({"audiences": ["vault"]})).await;
    let mut forged = good.clone();
    forged.truncate(good.len() - 4);
    for (sentence, token, code) in
        [("good", &good, 200), ("meant for another", &foreign, 401), ("forged", &forged, 401)]
    {
        for _ in 0..2 {
            assert_eq!(secure.get("/api", None, Some(token), true).await.0, code, "{sentence}");
        }
    }
    secure.server.delete(&format!("{ACCOUNTS}/robot")).await;
    // Requests look at the watch cache as it is; a list brings it up to date.
    secure.server.get(ACCOUNTS).await;
    assert_eq!(secure.get("/api", None, Some(&good), true).await.0, 401, "the account is gone");
    secure.stop().await;
}

#[tokio::test]
async fn others_can_verify_tokens() {
    let server = Server::start().await;
    account(&server, "robot").await;
    let configuration = server.get("/.well-known/openid-configuration").await;
    assert_eq!(configuration.code, 200);
    let configuration = configuration.json();
    assert_eq!(configuration["issuer"], ISSUER);
    assert_eq!(configuration["jwks_uri"], "https://127.0.0.1:6443/openid/v1/jwks");
    let keys = server.get("/openid/v1/jwks").await;
    assert_eq!(keys.headers["content-type"], "application/jwk-set+json");
    let key = keys.json()["keys"][0].clone();
    let token = token(&server, "robot", json!({})).await;
    let decode = |text: &str| base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let header: Value = serde_json::from_slice(&decode(token.split('.').next().unwrap())).unwrap();
    assert_eq!((&header["kid"], &header["alg"]), (&key["kid"], &key["alg"]));
    let mut point = vec![4];
    point.extend(["x", "y"].iter().flat_map(|c| decode(key[*c].as_str().unwrap())));
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &decode(signature)).unwrap();
    assert_eq!(server.send("POST", "/openid/v1/jwks", &[], "").await.code, 405);
}

#[tokio::test]
async fn keys_of_service_accounts_are_changed_without_ending_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let (old, new) = (rcgen::KeyPair::generate().unwrap(), rcgen::KeyPair::generate().unwrap());
    let (old_key, new_key) = (write("old.key", &old.serialize_pem()), write("new.key", &new.serialize_pem()));
    let both = write("both.pub", &format!("{}{}", old.public_key_pem(), new.public_key_pem()));
    let store: std::sync::Arc<dyn store::Store> = std::sync::Arc::new(store::embedded::Embedded::in_memory().unwrap());
    let start = async |signing: &std::path::Path, known: Option<&std::path::Path>| {
        Server::start_on(store.clone(), |c| {
            c.service_account_signing_key_file = Some(signing.to_owned());
            c.service_account_key_files = known.map(Into::into).into_iter().collect();
        })
        .await
    };
    let before = start(&old_key, None).await;
    account(&before, "robot").await;
    let first = token(&before, "robot", json!({})).await;
    let during = start(&new_key, Some(&both)).await;
    let second = token(&during, "robot", json!({})).await;
    assert!(is_known(&during, &first).await && is_known(&during, &second).await);
    let keys = during.get("/openid/v1/jwks").await.json();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    let after = start(&new_key, None).await;
    assert!(!is_known(&after, &first).await && is_known(&after, &second).await);
}
