//! `/exec`, `/attach`: a process's streams over one connection; `/run`: a command and what it wrote.
//!
//! Compare `k8s.io/kubelet/pkg/cri/streaming/remotecommand`. The process is started when the client's streams are there,
//! and ended when the client is gone; its end is told on the error stream, in the form of a `Status` from `v4` on.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::find::{self, Refusal};
use super::pump::{self, Streams};
use super::upgrade::{self, Io, Spoken, Transport, Upgrade};
use super::{Shared, plain, websocket};
use crate::mux::Gone;
use crate::runtime::{self, Runtime, Session, Wanted};
use crate::spdy::{self, Incoming};

const SPOKEN: Spoken = Spoken {
    spdy: &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io", ""],
    websocket: &[
        "v5.channel.k8s.io",
        "v4.channel.k8s.io",
        "v4.base64.channel.k8s.io",
        "channel.k8s.io",
        "base64.channel.k8s.io",
        "",
    ],
};

/// How long a client may take to open its streams.
const STREAMS_LIMIT: Duration = Duration::from_secs(30);
/// How long a command of `/run` may take.
const RUN_LIMIT: Duration = Duration::from_secs(120);
/// The channels of a WebSocket (`k8s.io/apimachinery/pkg/util/remotecommand`).
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// What the last segments of the path name.
pub(super) struct Target {
    namespace: String,
    pod: String,
    uid: Option<String>,
    container: String,
}

impl From<Vec<String>> for Target {
    /// `{namespace}/{pod}/{container}` or `{namespace}/{pod}/{uid}/{container}`.
    fn from(segments: Vec<String>) -> Target {
        let mut segments = segments.into_iter();
        let mut next = || segments.next().unwrap_or_default();
        let (namespace, pod, third) = (next(), next(), next());
        match segments.next() {
            Some(container) => Target { namespace, pod, uid: Some(third), container },
            None => Target { namespace, pod, uid: None, container: third },
        }
    }
}

pub(super) type Pairs = Query<Vec<(String, String)>>;

/// The streams a query asks for; upstream's kubelet says `input`, `output`, `error`, its API server `stdin` and so on.
fn wanted(query: &[(String, String)]) -> Result<Wanted, Refusal> {
    let on = |names: [&str; 2]| {
        query.iter().any(|(name, value)| names.contains(&name.as_str()) && matches!(value.as_str(), "1" | "true"))
    };
    let tty = on(["tty", "tty"]);
    let (stdin, stdout) = (on(["input", "stdin"]), on(["output", "stdout"]));
    // A terminal has one output.
    let stderr = on(["error", "stderr"]) && !tty;
    if !stdin && !stdout && !stderr {
        let message = "you must specify at least 1 of stdin, stdout, stderr";
        return Err((StatusCode::BAD_REQUEST, message.to_owned()));
    }
    Ok(Wanted { stdin, stdout, stderr, tty })
}

/// What is to be done once the client's streams are there.
enum Action {
    Exec(Vec<String>),
    Attach,
}

/// A process to be started, or to be connected to.
struct Start {
    runtime: Arc<dyn Runtime>,
    container: String,
    action: Action,
    wanted: Wanted,
    /// What the client and we agreed on.
    protocol: &'static str,
}

impl Start {
    async fn start(&self) -> runtime::Result<Session> {
        match &self.action {
            Action::Exec(command) => self.runtime.exec(&self.container, command, self.wanted).await,
            Action::Attach => self.runtime.attach(&self.container, self.wanted).await,
        }
    }
}

pub(super) async fn exec(
    State(shared): State<Shared>,
    Path(target): Path<Vec<String>>,
    Query(query): Pairs,
    request: Request,
) -> Response {
    let command: Vec<String> =
        query.iter().filter(|(name, _)| name == "command").map(|(_, word)| word.clone()).collect();
    if command.is_empty() {
        return plain(StatusCode::BAD_REQUEST, "you must specify a command".to_owned());
    }
    open(shared, target.into(), &query, Action::Exec(command), request).await
}

pub(super) async fn attach(
    State(shared): State<Shared>,
    Path(target): Path<Vec<String>>,
    Query(query): Pairs,
    request: Request,
) -> Response {
    open(shared, target.into(), &query, Action::Attach, request).await
}

/// `POST /run/…?cmd=…`: the words of `cmd` as a command, and what it wrote.
pub(super) async fn run(
    State(shared): State<Shared>,
    Path(target): Path<Vec<String>>,
    Query(query): Pairs,
) -> Response {
    let target = Target::from(target);
    let words = query.iter().find(|(name, _)| name == "cmd").map_or("", |(_, value)| value.as_str());
    let command: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    if command.is_empty() {
        return plain(StatusCode::BAD_REQUEST, "you must specify cmd".to_owned());
    }
    let result = async {
        let pod = find::pod(&shared, &target.namespace, &target.pod, target.uid.as_deref())?;
        let container = find::container(&shared, &pod, &target.container).await?;
        shared.kubelet.runtime.exec_sync(&container.id, &command, RUN_LIMIT).await.map_err(find::failed)
    };
    match result.await {
        Ok(result) if result.code == 0 => result.output.into_response(),
        Ok(result) => {
            let message = format!("command '{words}' exited with {}: {}", result.code, result.output);
            plain(StatusCode::INTERNAL_SERVER_ERROR, message)
        }
        Err((status, message)) => plain(status, message),
    }
}

async fn open(
    shared: Shared,
    target: Target,
    query: &[(String, String)],
    action: Action,
    mut request: Request,
) -> Response {
    let prepared = async {
        let wanted = wanted(query)?;
        let pod = find::pod(&shared, &target.namespace, &target.pod, target.uid.as_deref())?;
        let container = find::container(&shared, &pod, &target.container).await?;
        // A container without a terminal cannot be given one later.
        let has_tty = pod.spec.as_ref().and_then(|spec| crate::pod::container(spec, &target.container));
        let has_tty = has_tty.is_some_and(|(_, container)| container.tty == Some(true));
        let wanted = match action {
            Action::Attach if has_tty != wanted.tty => Wanted { tty: has_tty, ..wanted },
            _ => wanted,
        };
        Ok((wanted, container.id, Upgrade::of(&mut request, &SPOKEN)?))
    };
    let (wanted, container, upgrade) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refusal) => return upgrade::refuse(refusal, &SPOKEN),
    };
    let runtime = shared.kubelet.runtime.clone();
    let start = Start { runtime, container, action, wanted, protocol: upgrade.protocol };
    let transport = upgrade.transport;
    upgrade.answer(&shared, async move |io| match transport {
        Transport::Spdy => over_spdy(io, start).await,
        Transport::WebSocket => over_websocket(io, start).await,
    })
}

async fn over_spdy(io: Io, start: Start) {
    let (reader, writer) = tokio::io::split(io);
    let (mut incoming, connection) = spdy::session(reader, writer);
    // `v3` brought the stream for sizes.
    let resizes = start.wanted.tty && matches!(start.protocol, "v4.channel.k8s.io" | "v3.channel.k8s.io");
    let session = async {
        let opened = tokio::time::timeout(STREAMS_LIMIT, opened(&mut incoming, start.wanted, resizes)).await;
        match opened {
            Ok(Some(streams)) => serve(streams, &start).await,
            _ => tracing::debug!("a client did not open its streams"),
        }
        drop(incoming);
    };
    pump::beside(connection, session).await;
}

/// The streams, once the client has opened all of them, each named by a header.
async fn opened(incoming: &mut Incoming, wanted: Wanted, resizes: bool) -> Option<Streams> {
    let expected = [true, wanted.stdin, wanted.stdout, wanted.stderr, resizes].into_iter().filter(|w| *w).count();
    let (mut error, mut streams) = (None, Streams::default());
    for _ in 0..expected {
        let stream = incoming.next().await?;
        match stream.headers.get("streamtype") {
            Some("error") => error = Some(stream.writer),
            Some("stdin") => streams.stdin = Some(stream.reader),
            Some("stdout") => streams.stdout = Some(stream.writer),
            Some("stderr") => streams.stderr = Some(stream.writer),
            Some("resize") => streams.resize = Some(stream.reader),
            other => {
                tracing::debug!(?other, "a stream nobody asked for");
                return None;
            }
        }
    }
    streams.error = Some(error?);
    Some(streams)
}

async fn over_websocket(io: Io, start: Start) {
    let form = websocket::Form::of(start.protocol);
    let (mut channels, connection) = websocket::channels(io, form, &[STDIN, RESIZE]);
    let wanted = start.wanted;
    let writer = |on: bool, channel| on.then(|| channels.writer(channel));
    let (stdout, stderr) = (writer(wanted.stdout, STDOUT), writer(wanted.stderr, STDERR));
    let error = Some(channels.writer(ERROR));
    let stdin = channels.reader(STDIN).filter(|_| wanted.stdin);
    let resize = channels.reader(RESIZE).filter(|_| wanted.tty);
    let streams = Streams { stdin, stdout, stderr, error, resize };
    drop(channels);
    let session = async {
        // An empty message tells the client that the connection stands.
        let first = streams.stdout.as_ref().or(streams.stderr.as_ref()).or(streams.error.as_ref());
        if let Some(first) = first {
            let _ = first.send(Bytes::new()).await;
        }
        serve(streams, &start).await;
    };
    pump::beside(connection, session).await;
}

/// Starts the process, carries its streams, and tells how it ended.
async fn serve(mut streams: Streams, start: &Start) {
    let Some(error) = streams.error.take() else { return };
    let ended = match start.start().await {
        Ok(session) => pump::process(session, streams).await,
        Err(failed) => Ok(Err(failed)),
    };
    let result = match ended {
        Ok(result) => result,
        Err(Gone) => return,
    };
    let status = status(&result);
    let words = match start.protocol.starts_with("v4.") || start.protocol.starts_with("v5.") {
        true => status.to_string(),
        // Older clients take every word for a failure.
        false => status["message"].as_str().unwrap_or_default().to_owned(),
    };
    if !words.is_empty() && error.send(words.into()).await.is_err() {
        return;
    }
    let _ = error.finish().await;
}

/// The end of a process as a `Status`: clients end with the code in its causes.
fn status(result: &runtime::Result<i64>) -> Value {
    match result {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error) => {
            let message = format!("error executing command in container: {error}");
            json!({
                "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
                "message": format!("Internal error occurred: {message}"),
                "details": {"causes": [{"message": message}]},
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Vec<(String, String)> {
        text.split('&').filter_map(|p| p.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn queries_ask_for_streams_in_either_spelling() {
        let all = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(wanted(&query("input=1&output=1&error=1")).unwrap(), all);
        assert_eq!(wanted(&query("stdin=true&stdout=true&stderr=true")).unwrap(), all);
        let tty = Wanted { stderr: false, tty: true, ..all };
        assert_eq!(wanted(&query("input=1&output=1&error=1&tty=1")).unwrap(), tty, "a terminal has one output");
        assert!(wanted(&query("tty=1&error=1&output=0")).is_err(), "at least one stream");
    }

    #[test]
    fn ends_are_told_as_clients_expect_them() {
        assert_eq!(status(&Ok(0)), json!({"metadata": {}, "status": "Success"}));
        let failed = status(&Ok(3));
        assert_eq!(
            (&failed["reason"], &failed["details"]["causes"][0]["message"]),
            (&json!("NonZeroExitCode"), &json!("3"))
        );
        let broken = status(&Err(runtime::Error::Refused("no".into())));
        assert_eq!(broken["message"], "Internal error occurred: error executing command in container: no");
    }
}
