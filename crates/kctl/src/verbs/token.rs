//! `kctl token`: what a machine joins the cluster with, as `kubeadm token` has it.
//!
//! A token is a Secret in `kube-system`; removing that takes it back at once. What is told of it also holds the hash of the
//! cluster's CA, `<id>.<secret>.<hash>`, so that the machine knows whom it gives the token to.

use std::time::Duration;

use api::well_known::{BOOTSTRAP_TOKEN_PREFIX, NAMESPACE_SYSTEM, SECRET_BOOTSTRAP_TOKEN};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};

use crate::session::{Session, parse_duration};
use crate::{Console, Error, object, tabwriter};

const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;

/// Where a minion keeps its data, in the line that is to be pasted.
const MINION_DATA_DIR: &str = "/var/lib/coracle-minion";

/// Manage the tokens machines join with.
#[derive(Debug, clap::Args)]
pub struct Token {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Make a token
    Create {
        /// The token, <id>.<secret> (6 and 16 lower case letters and digits) [default: one by chance]
        #[arg(value_name = "TOKEN")]
        wanted: Option<String>,
        /// How long it is good, e.g. 1h30m (0: for ever)
        #[arg(long, default_value = "24h", value_name = "DURATION")]
        ttl: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        /// Print the whole line to paste on the machine that is to join
        #[arg(long)]
        print_join_command: bool,
    },
    /// List the tokens there are
    List,
    /// Take tokens back: who comes with one from now on is refused
    Delete {
        /// The tokens, or their ids
        #[arg(required = true, value_name = "TOKEN")]
        tokens: Vec<String>,
    },
}

impl Token {
    /// Does what was asked for.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        match &self.action {
            Action::Create { wanted, ttl, description, print_join_command } => {
                let token = wanted.clone().map_or_else(by_chance, Ok)?;
                let expiration = expiration(ttl, Timestamp::now())?;
                let token = create(session, &token, expiration, description).await?;
                match print_join_command {
                    true => console.line(&join_command(session.url(), &token)),
                    false => console.line(&token),
                }
            }
            Action::List => {
                let query = [("fieldSelector", format!("type={SECRET_BOOTSTRAP_TOKEN}"))];
                let found = super::list(session, &secrets(), &query, "application/json").await?;
                let table = table(object::items(&found, &["items"]), Timestamp::now());
                console.print(&tabwriter::align(&table, 3))
            }
            Action::Delete { tokens } => {
                for token in tokens {
                    let id = token.split('.').next().unwrap_or(token);
                    if !is_plain(id, ID_LENGTH) {
                        return Err(Error::message(format!("{token:?} is neither a token nor the id of one")));
                    }
                    let path = format!("{}/{BOOTSTRAP_TOKEN_PREFIX}{id}", secrets());
                    session.delete(&path, &json!({})).await?;
                    console.line(&format!("bootstrap token {id:?} deleted"))?;
                }
                Ok(())
            }
        }
    }
}

fn secrets() -> String {
    format!("/api/v1/namespaces/{NAMESPACE_SYSTEM}/secrets")
}

/// Makes the Secret; returns the token with the CA's hash.
async fn create(
    session: &Session,
    token: &str,
    expiration: Option<Timestamp>,
    description: &str,
) -> Result<String, Error> {
    let halves =
        token.split_once('.').filter(|(id, secret)| is_plain(id, ID_LENGTH) && is_plain(secret, SECRET_LENGTH));
    let (id, secret) =
        halves.ok_or_else(|| Error::message("the bootstrap token must be of the form \"[a-z0-9]{6}.[a-z0-9]{16}\""))?;
    // First, so that there is no token nobody was told.
    let hash = ca_hash(session).await?;
    session.post(&secrets(), &manifest(id, secret, expiration, description)).await?;
    Ok(format!("{token}.{hash}"))
}

fn manifest(id: &str, secret: &str, expiration: Option<Timestamp>, description: &str) -> Value {
    let mut data = json!({
        "token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
    });
    if let Some(expiration) = expiration {
        data["expiration"] = json!(expiration.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    }
    if !description.is_empty() {
        data["description"] = json!(description);
    }
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_BOOTSTRAP_TOKEN,
        "metadata": {"name": format!("{BOOTSTRAP_TOKEN_PREFIX}{id}"), "namespace": NAMESPACE_SYSTEM},
        "stringData": data,
    })
}

/// The SHA-256 of the CA's certificate, as every namespace is told it.
async fn ca_hash(session: &Session) -> Result<String, Error> {
    let path = format!("/api/v1/namespaces/{NAMESPACE_SYSTEM}/configmaps/kube-root-ca.crt");
    let published = session.get(&path).await?;
    let pem = object::text(&published, &["data", "ca.crt"]);
    let hash = hash_of_pem(pem);
    hash.ok_or_else(|| Error::message("the ConfigMap kube-root-ca.crt in kube-system holds no certificate"))
}

fn hash_of_pem(pem: &str) -> Option<String> {
    let (_, rest) = pem.split_once("-----BEGIN CERTIFICATE-----")?;
    let (body, _) = rest.split_once("-----END CERTIFICATE-----")?;
    let body: String = body.split_whitespace().collect();
    let certificate = BASE64_STANDARD.decode(body).ok()?;
    Some(digest(&SHA256, &certificate).as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn join_command(server: &str, token: &str) -> String {
    format!("minion --server {server} --token {token} --data-dir {MINION_DATA_DIR}")
}

fn is_plain(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| ALPHABET.contains(&byte))
}

/// When a token made now ends; never for a time of 0.
fn expiration(ttl: &str, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let wrong = || Error::message(format!("invalid --ttl {ttl:?}, want a duration like 90s, 30m or 24h"));
    let ttl: Duration = parse_duration(ttl).ok_or_else(wrong)?;
    if ttl.is_zero() {
        return Ok(None);
    }
    let ttl = SignedDuration::try_from(ttl).map_err(|_| wrong())?;
    now.checked_add(ttl).map(Some).map_err(|_| wrong())
}

/// A token nobody guesses.
fn by_chance() -> Result<String, Error> {
    let random = SystemRandom::new();
    let mut text = String::with_capacity(ID_LENGTH + 1 + SECRET_LENGTH);
    while text.len() < ID_LENGTH + 1 + SECRET_LENGTH {
        let mut byte = [0];
        random.fill(&mut byte).map_err(|_| Error::message("the system has no random numbers"))?;
        if text.len() == ID_LENGTH {
            text.push('.');
        }
        // Seven times the alphabet: what is over would make its beginning likelier.
        if byte[0] < 7 * 36 {
            text.push(char::from(ALPHABET[usize::from(byte[0] % 36)]));
        }
    }
    Ok(text)
}

/// The columns of `kubeadm token list`.
fn table(secrets: &[Value], now: Timestamp) -> String {
    let mut text = "TOKEN\tTTL\tEXPIRES\tUSAGES\tDESCRIPTION\tEXTRA GROUPS\n".to_owned();
    for secret in secrets {
        let value = |key: &str| {
            let bytes = BASE64_STANDARD.decode(object::text(secret, &["data", key])).unwrap_or_default();
            String::from_utf8(bytes).unwrap_or_default()
        };
        let shown = |text: String| if text.is_empty() { "<none>".to_owned() } else { text };
        let expires = value("expiration");
        let (ttl, expires) = match expires.parse::<Timestamp>() {
            _ if expires.is_empty() => ("<forever>".to_owned(), "<never>".to_owned()),
            Ok(end) if end <= now => ("<invalid>".to_owned(), expires),
            Ok(end) => (short(end.duration_since(now)), expires),
            Err(_) => ("<invalid>".to_owned(), expires),
        };
        let usages = ["authentication", "signing"];
        let usages = usages.into_iter().filter(|usage| value(&format!("usage-bootstrap-{usage}")) == "true");
        let usages = usages.collect::<Vec<_>>().join(",");
        let token = format!("{}.{}", value("token-id"), value("token-secret"));
        let (usages, groups) = (shown(usages), shown(value("auth-extra-groups")));
        text.push_str(&format!("{token}\t{ttl}\t{expires}\t{usages}\t{}\t{groups}\n", shown(value("description"))));
    }
    text
}

/// A duration in its largest unit.
fn short(left: SignedDuration) -> String {
    match left.as_secs() {
        seconds @ ..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", seconds / 60),
        seconds @ 3600..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_as_long_as_is_asked() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        for (ttl, expected) in [
            ("24h", Ok(Some("2026-11-29T12:00:00Z"))),
            ("90s", Ok(Some("2026-11-28T12:01:30Z"))),
            ("0", Ok(None)),
            ("soon", Err("error: invalid --ttl \"soon\", want a duration like 90s, 30m or 24h")),
        ] {
            let found = expiration(ttl, now).map(|end| end.map(|end| end.to_string())).map_err(|e| e.to_string());
            assert_eq!(found, expected.map(|end| end.map(str::to_owned)).map_err(str::to_owned), "{ttl}");
        }
    }

    #[test]
    fn tokens_are_listed_with_what_is_left_of_them() {
        let now: Timestamp = "2026-11-28T12:00:00Z".parse().unwrap();
        let secret = |id: &str, expiration: Option<&str>, description: &str| {
            let made = manifest(id, "0123456789abcdef", expiration.map(|end| end.parse().unwrap()), description);
            let data = made["stringData"].as_object().unwrap().iter();
            let data = data.map(|(key, value)| (key.clone(), json!(BASE64_STANDARD.encode(value.as_str().unwrap()))));
            json!({"data": data.collect::<serde_json::Map<_, _>>()})
        };
        let listed = table(
            &[
                secret("aaaaaa", Some("2026-11-29T11:00:00Z"), "box 2"),
                secret("bbbbbb", Some("2026-11-28T11:00:00Z"), ""),
                secret("cccccc", None, ""),
            ],
            now,
        );
        let rows: Vec<&str> = listed.lines().skip(1).collect();
        assert_eq!(
            rows,
            [
                "aaaaaa.0123456789abcdef\t23h\t2026-11-29T11:00:00Z\tauthentication\tbox 2\t<none>",
                "bbbbbb.0123456789abcdef\t<invalid>\t2026-11-28T11:00:00Z\tauthentication\t<none>\t<none>",
                "cccccc.0123456789abcdef\t<forever>\t<never>\tauthentication\t<none>\t<none>",
            ]
        );
    }

    #[test]
    fn chance_makes_whole_tokens_and_never_the_same() {
        let (one, two) = (by_chance().unwrap(), by_chance().unwrap());
        for token in [&one, &two] {
            let (id, secret) = token.split_once('.').unwrap();
            assert!(is_plain(id, ID_LENGTH) && is_plain(secret, SECRET_LENGTH), "{token}");
        }
        assert_ne!(one, two);
    }

    #[test]
    fn the_hash_is_of_the_certificate_not_of_its_text() {
        let pem = |body: &str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let expected = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(hash_of_pem(&pem("aGVs\nbG8=")).as_deref(), Some(expected));
        assert_eq!(hash_of_pem("no certificate"), None);
    }
}
