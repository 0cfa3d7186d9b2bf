//! Docker's event stream as the runtime's: it ends silently when the daemon restarts, so it is opened again, and what
//! may have been missed is looked at.

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures::stream::{self, BoxStream, StreamExt};

use super::super::Event;
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
    let now = jiff::Timestamp::now();
    let since = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
    let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
    docker.events(Some(options)).boxed()
}

fn uid(message: EventMessage) -> Option<String> {
    message.actor?.attributes?.remove(names::POD_UID)
}
