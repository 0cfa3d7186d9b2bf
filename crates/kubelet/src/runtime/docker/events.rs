//! Docker's event stream as the runtime's: it ends silently when the daemon restarts, so it is opened again, and what
//! may have been missed is looked at.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::stream::{self, BoxStream, StreamExt};

use super::super::{Error, Event};
use crate::names;

/// Back-off while Docker does not answer: first and longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// What changes what runs.
const ACTIONS: [&str; 6] = ["start", "die", "oom", "destroy", "pause", "unpause"];

enum State {
    Connect(Duration),
    Follow(BoxStream<'static, Result<EventMessage, bollard::errors::Error>>),
}

/// What happens to the containers of `node`, for ever.
pub(super) fn events(docker: Docker, node: String) -> BoxStream<'static, Event> {
    stream::unfold(State::Connect(Duration::ZERO), move |state| {
        let (docker, node) = (docker.clone(), node.clone());
        async move { Some(next(&docker, &node, state).await) }
    })
    .boxed()
}

async fn next(docker: &Docker, node: &str, mut state: State) -> (Event, State) {
    loop {
        state = match state {
            State::Connect(wait) => {
                tokio::time::sleep(wait).await;
                match docker.ping().await {
                    // What happened before the stream is open is in the list that follows.
                    Ok(_) => return (Event::Relist, State::Follow(open(docker, node))),
                    Err(error) => {
                        tracing::warn!(%error, "Docker does not answer");
                        State::Connect((wait * 2).clamp(RETRY_MIN, RETRY_MAX))
                    }
                }
            }
            State::Follow(mut stream) => match stream.next().await {
                Some(Ok(message)) => match uid(message) {
                    Some(uid) => return (Event::Pod(uid), State::Follow(stream)),
                    None => State::Follow(stream),
                },
                Some(Err(_)) | None => State::Connect(RETRY_MIN),
            },
        };
    }
}

fn open(docker: &Docker, node: &str) -> BoxStream<'static, Result<EventMessage, bollard::errors::Error>> {
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("label", vec![format!("{}={node}", names::NODE)]),
        ("event", ACTIONS.map(str::to_owned).to_vec()),
    ]);
    // The stream is opened at its first poll, a moment after the list: events since now are replayed by Docker.
    since(docker, jiff::Timestamp::now(), &filters)
}

/// Events since then; what is past is replayed.
fn since(
    docker: &Docker,
    time: jiff::Timestamp,
    filters: &HashMap<&str, Vec<String>>,
) -> BoxStream<'static, Result<EventMessage, bollard::errors::Error>> {
    let since = format!("{}.{:09}", time.as_second(), time.subsec_nanosecond());
    let options = EventsOptionsBuilder::new().since(&since).filters(filters).build();
    docker.events(Some(options)).boxed()
}

/// Waits until the command `exec`, which ran in `container` at `time`, has ended.
pub(super) async fn exec_end(docker: &Docker, container: &str, exec: &str, time: jiff::Timestamp) -> Result<(), Error> {
    let filters = HashMap::from([
        ("container", vec![container.to_owned()]),
        ("event", vec!["exec_die".to_owned(), "die".to_owned()]),
    ]);
    let mut events = since(docker, time, &filters);
    while let Some(message) = events.next().await {
        let message = message.map_err(super::error)?;
        let attributes = message.actor.and_then(|actor| actor.attributes).unwrap_or_default();
        // A container that dies takes every command with it.
        if message.action.as_deref() == Some("die") || attributes.get("execID").is_some_and(|id| id == exec) {
            return Ok(());
        }
    }
    Err(Error::Unreachable("the event stream ended".to_owned()))
}

fn uid(message: EventMessage) -> Option<String> {
    message.actor?.attributes?.remove(names::POD_UID)
}
