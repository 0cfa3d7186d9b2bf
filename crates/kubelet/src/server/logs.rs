//! `GET /containerLogs/{namespace}/{pod}/{container}`: what a container wrote, also after it ended.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde::Deserialize;

use super::find::{self, Refusal};
use super::{Shared, plain};
use crate::pod::Sort;
use crate::runtime::{self, Container, LogOptions, LogStream};

/// The query, as `v1.PodLogOptions` spells it. Numbers come as text, so that a wrong one is named.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LogQuery {
    follow: Option<String>,
    previous: Option<String>,
    timestamps: Option<String>,
    tail_lines: Option<String>,
    since_seconds: Option<String>,
    since_time: Option<String>,
    limit_bytes: Option<String>,
    stream: Option<String>,
}

#[derive(Debug, PartialEq)]
struct Wanted {
    options: LogOptions,
    previous: bool,
    limit_bytes: Option<usize>,
}

pub(super) async fn container_logs(
    State(shared): State<Shared>,
    Path((namespace, name, container)): Path<(String, String, String)>,
    Query(query): Query<LogQuery>,
) -> Response {
    let wanted = match query.parse(shared.kubelet.config.clock.now()) {
        Ok(wanted) => wanted,
        Err(message) => return plain(StatusCode::BAD_REQUEST, message),
    };
    match open(&shared, &namespace, &name, &container, &wanted).await {
        Ok(chunks) => {
            let chunks = limited(chunks, wanted.limit_bytes);
            let body = Body::from_stream(chunks.map(|chunk| chunk.map_err(std::io::Error::other)));
            ([("content-type", "text/plain"), ("cache-control", "no-cache")], body).into_response()
        }
        Err((status, message)) => plain(status, message),
    }
}

type Chunks = BoxStream<'static, runtime::Result<Bytes>>;

async fn open(
    shared: &Shared,
    namespace: &str,
    name: &str,
    container: &str,
    wanted: &Wanted,
) -> Result<Chunks, Refusal> {
    let pod = find::pod(shared, namespace, name, None)?;
    if pod.spec.as_ref().and_then(|s| crate::pod::container(s, container)).is_none() {
        return Err((StatusCode::NOT_FOUND, format!("container {container} is not valid for pod {name}")));
    }
    let runtime = &shared.kubelet.runtime;
    let state = runtime.pod_state(crate::pod::uid(&pod)).await.map_err(find::failed)?;
    let lives: Vec<&Container> =
        state.containers.iter().filter(|c| c.name == container && c.started_at.is_some()).collect();
    let life = if wanted.previous { previous(&pod, container, &lives) } else { lives.first().copied() };
    match life {
        Some(life) => runtime.logs(&life.id, &wanted.options).await.map_err(find::failed),
        None if wanted.previous => {
            let message = format!("previous terminated container \"{container}\" in pod \"{name}\" not found");
            Err((StatusCode::BAD_REQUEST, message))
        }
        None => {
            let why = why(&pod, container);
            let message = format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}");
            Err((StatusCode::BAD_REQUEST, message))
        }
    }
}

/// Why a container has not started, as upstream says it (`validateContainerLogStatus`).
fn why(pod: &Pod, container: &str) -> String {
    let mut waiting = statuses(pod, container).filter_map(|s| s.state.as_ref()?.waiting.as_ref());
    match waiting.next().and_then(|waiting| waiting.reason.as_deref()) {
        Some("ErrImagePull") => "image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => "trying and failing to pull image".to_owned(),
        Some(reason) => reason.to_owned(),
        None => "ContainerCreating".to_owned(),
    }
}

/// What the status shows as the last state: the newest life only where it is over and another is waited for
/// (`validateContainerLogStatus`).
fn previous<'a>(pod: &Pod, container: &str, lives: &[&'a Container]) -> Option<&'a Container> {
    let newest = lives.first().copied()?;
    let waits = match (statuses(pod, container).next(), newest.exit()) {
        (Some(status), _) => status.state.as_ref().is_some_and(|state| state.waiting.is_some()),
        // Of a static pod nobody says; its policy does.
        (None, Some(exit)) => will_run_again(pod, container, exit.code),
        (None, None) => false,
    };
    let skipped = usize::from(!(waits && newest.exit().is_some()));
    lives.iter().skip(skipped).copied().find(|life| life.exit().is_some())
}

fn will_run_again(pod: &Pod, container: &str, code: i32) -> bool {
    let found = pod.spec.as_ref().and_then(|spec| Some((spec, crate::pod::container(spec, container)?)));
    found.is_some_and(|(spec, (sort, container))| match sort {
        Sort::Init => crate::pod::init_restarts(spec, &container, code),
        Sort::Sidecar | Sort::Main => crate::pod::restarts(spec, &container, code),
        Sort::Ephemeral => false,
    })
}

/// What the pod's status says of the container.
fn statuses<'a>(pod: &'a Pod, container: &str) -> impl Iterator<Item = &'a ContainerStatus> {
    let all = pod.status.iter().flat_map(|status| {
        let own = status.init_container_statuses.iter().chain(&status.container_statuses);
        own.chain(&status.ephemeral_container_statuses).flatten()
    });
    all.filter(move |status| status.name == container)
}

fn limited(chunks: Chunks, limit: Option<usize>) -> Chunks {
    let Some(limit) = limit else { return chunks };
    let cut = chunks.scan(limit, |left, chunk| {
        let cut = chunk.map(|mut chunk| {
            chunk.truncate(*left);
            *left -= chunk.len();
            chunk
        });
        futures::future::ready(Some((cut, *left == 0)))
    });
    stream::unfold(Some(cut.boxed()), |cut| async move {
        let mut cut = cut?;
        let (chunk, last) = cut.next().await?;
        Some((chunk, if last { None } else { Some(cut) }))
    })
    .boxed()
}

impl LogQuery {
    fn parse(&self, now: Timestamp) -> Result<Wanted, String> {
        let since_seconds = number::<i64>("sinceSeconds", &self.since_seconds)?;
        let since_time = self.since_time.as_deref().map(|text| {
            text.parse::<Timestamp>()
                .map_err(|_| format!("sinceTime: Invalid value: \"{text}\": must be an RFC 3339 time"))
        });
        let ago = since_seconds.map(|seconds| {
            let past = now.as_second().saturating_sub(seconds.max(0));
            Timestamp::from_second(past).unwrap_or(Timestamp::MIN)
        });
        let only = match self.stream.as_deref() {
            None | Some("" | "All") => None,
            Some("Stdout") => Some(LogStream::Stdout),
            Some("Stderr") => Some(LogStream::Stderr),
            Some(text) => {
                return Err(format!(
                    "stream: Unsupported value: \"{text}\": supported values: \"All\", \"Stderr\", \"Stdout\""
                ));
            }
        };
        Ok(Wanted {
            options: LogOptions {
                follow: flag("follow", &self.follow)?,
                tail: number("tailLines", &self.tail_lines)?,
                since: since_time.transpose()?.or(ago),
                timestamps: flag("timestamps", &self.timestamps)?,
                only,
            },
            previous: flag("previous", &self.previous)?,
            limit_bytes: number("limitBytes", &self.limit_bytes)?,
        })
    }
}

fn number<N: std::str::FromStr>(name: &str, text: &Option<String>) -> Result<Option<N>, String> {
    let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{name}: Invalid value: \"{text}\": must be a non-negative integer"))
}

fn flag(name: &str, text: &Option<String>) -> Result<bool, String> {
    match text.as_deref() {
        None | Some("" | "false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(text) => Err(format!("{name}: Invalid value: \"{text}\": must be true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_read_and_wrong_ones_named() {
        let now = Timestamp::from_second(1000).unwrap();
        let some = |text: &str| Some(text.to_owned());
        let query =
            LogQuery { follow: some("true"), tail_lines: some("5"), since_seconds: some("60"), ..Default::default() };
        let since = Some(Timestamp::from_second(940).unwrap());
        let options = LogOptions { follow: true, tail: Some(5), since, ..LogOptions::default() };
        assert_eq!(query.parse(now), Ok(Wanted { options, previous: false, limit_bytes: None }));
        let wrong = LogQuery { tail_lines: some("-1"), ..Default::default() };
        assert!(wrong.parse(now).unwrap_err().starts_with("tailLines: Invalid value"));
        assert!(LogQuery { since_time: some("yesterday"), ..Default::default() }.parse(now).is_err());
    }

    #[test]
    fn the_previous_life_is_the_one_the_status_shows_as_last() {
        use crate::pod::testing::{World, exited, pod};
        use crate::runtime::Phase::Running;
        let (failed, done) = (|| exited(1, 1), || exited(0, 2));
        let cases = [
            ("it runs for the first time", "Always", Some("running"), vec![Running], None),
            ("it runs again", "Always", Some("running"), vec![failed(), Running], Some("c-0")),
            ("it failed, then succeeded", "OnFailure", Some("terminated"), vec![failed(), done()], Some("c-0")),
            ("it ended once, for good", "Never", Some("terminated"), vec![failed()], None),
            ("it waits to run again", "Always", Some("waiting"), vec![failed()], Some("c-0")),
            ("it waits once more", "Always", Some("waiting"), vec![failed(), failed()], Some("c-1")),
            ("it runs, and the status says so later", "Always", Some("waiting"), vec![failed(), Running], Some("c-0")),
            ("without a status its policy says that it waits", "OnFailure", None, vec![failed()], Some("c-0")),
            ("or that it does not", "OnFailure", None, vec![failed(), done()], Some("c-0")),
            ("or never will", "Never", None, vec![failed()], None),
        ];
        for (sentence, policy, state, phases, expected) in cases {
            let mut pod = pod(serde_json::json!({"restartPolicy": policy, "containers": [{"name": "c"}]}));
            let state = state.map(|state| {
                let state = serde_json::json!({ state: {"exitCode": 1} });
                serde_json::from_value(serde_json::json!({"containerStatuses": [{"name": "c", "state": state,
                    "image": "", "imageID": "", "ready": false, "restartCount": 0}]}))
                .unwrap()
            });
            pod.status = state;
            let run = |world: World, phase| world.container(&pod, "c", "s", phase);
            let world = phases.into_iter().fold(World::default(), run);
            let lives: Vec<&Container> = world.state.containers.iter().collect();
            assert_eq!(previous(&pod, "c", &lives).map(|life| life.id.as_str()), expected, "{sentence}");
        }
    }

    #[tokio::test]
    async fn limits_cut_in_the_middle_of_a_chunk_and_end_the_stream() {
        let chunks =
            || stream::iter(["abc", "def", "ghi"].map(|c| Ok(Bytes::from(c)))).chain(stream::pending()).boxed();
        for (limit, expected) in [(4, "abcd"), (3, "abc"), (0, "")] {
            let got: Vec<Bytes> = limited(chunks(), Some(limit)).map(Result::unwrap).collect().await;
            assert_eq!(got.concat(), expected.as_bytes());
        }
    }
}
