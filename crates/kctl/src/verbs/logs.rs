//! `kctl logs`: what containers wrote.

use bytes::Bytes;
use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt, TryStreamExt};
use serde_json::Value;

use super::list;
use crate::discovery::Discovery;
use crate::session::{Session, parse_duration, with_query};
use crate::{Console, Error, object, target};

/// Followed at once (`--max-log-requests` upstream).
const FOLLOWED_MAX: usize = 5;
/// Lines of each container shown where a selector means several.
const SELECTED_TAIL: i64 = 10;

/// Print the logs for a container in a pod.
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// POD or TYPE/NAME, and a container
    #[arg(num_args = 0..=2)]
    arguments: Vec<String>,
    /// Specify if the logs should be streamed
    #[arg(short, long)]
    follow: bool,
    /// If true, print the logs for the previous instance of the container in a pod if it exists
    #[arg(short, long)]
    previous: bool,
    /// Print the logs of this container
    #[arg(short, long)]
    container: Option<String>,
    /// Lines of recent log file to display. Defaults to -1 with no selector, showing all log lines otherwise 10
    #[arg(long, allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only return logs newer than a relative duration like 5s, 2m, or 3h
    #[arg(long)]
    since: Option<String>,
    /// Only return logs after a specific date (RFC3339)
    #[arg(long, conflicts_with = "since")]
    since_time: Option<String>,
    /// Maximum bytes of logs to return
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// Include timestamps on each line in the log output
    #[arg(long)]
    timestamps: bool,
    /// Selector (label query) to filter on
    #[arg(short = 'l', long)]
    selector: Option<String>,
    /// Get all containers' logs in the pod(s)
    #[arg(long)]
    all_containers: bool,
    /// Prefix each log line with the log source (pod name and container name)
    #[arg(long)]
    prefix: bool,
}

/// One container's log.
struct Source {
    pod: String,
    container: String,
    path: String,
}

impl Logs {
    /// Prints, and follows where asked.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let parameters = self.parameters()?;
        let pods = self.pods(session).await?;
        if pods.is_empty() {
            console.note(&format!("No resources found in {} namespace.", session.namespace()));
            return Ok(());
        }
        let mut sources = Vec::new();
        for pod in &pods {
            for container in self.containers(pod, console)? {
                let namespace = object::namespace(pod).unwrap_or(session.namespace());
                let base = format!("/api/v1/namespaces/{namespace}/pods/{}/log", object::name(pod));
                let mut query = parameters.clone();
                query.push(("container", container.clone()));
                sources.push(Source { pod: object::name(pod).to_owned(), container, path: with_query(&base, &query) });
            }
        }
        if self.follow && sources.len() > FOLLOWED_MAX {
            return Err(Error::message(format!(
                "you are attempting to follow {} log streams, but maximum allowed concurrency is {FOLLOWED_MAX}, use \
                 --max-log-requests to increase the limit",
                sources.len()
            )));
        }
        if self.follow && sources.len() > 1 {
            self.merged(session, console, &sources).await
        } else {
            self.serial(session, console, &sources).await
        }
    }

    fn parameters(&self) -> Result<Vec<(&'static str, String)>, Error> {
        let mut parameters = Vec::new();
        for (name, on) in [("follow", self.follow), ("previous", self.previous), ("timestamps", self.timestamps)] {
            if on {
                parameters.push((name, "true".to_owned()));
            }
        }
        let tail = self.tail.or(self.selector.is_some().then_some(SELECTED_TAIL)).unwrap_or(-1);
        if tail < -1 {
            return Err(Error::message("--tail must be greater than or equal to -1"));
        }
        if tail >= 0 {
            parameters.push(("tailLines", tail.to_string()));
        }
        if let Some(since) = &self.since {
            let duration = parse_duration(since).filter(|d| !d.is_zero());
            let duration = duration.ok_or_else(|| Error::message("--since must be greater than 0"))?;
            parameters.push(("sinceSeconds", duration.as_secs_f64().ceil().to_string()));
        }
        parameters.extend(self.since_time.clone().map(|time| ("sinceTime", time)));
        parameters.extend(self.limit_bytes.map(|limit| ("limitBytes", limit.to_string())));
        Ok(parameters)
    }

    /// The pods that the arguments mean.
    async fn pods(&self, session: &Session) -> Result<Vec<Value>, Error> {
        let pods_path = format!("/api/v1/namespaces/{}/pods", session.namespace());
        if let Some(selector) = &self.selector {
            return pods_of(session, &pods_path, selector).await;
        }
        let Some(first) = self.arguments.first() else {
            return Err(Error::message(
                "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command",
            ));
        };
        if !first.contains('/') {
            let pod = session.get(&format!("{pods_path}/{}", crate::session::encode(first))).await;
            return pod.map(|pod| vec![pod]);
        }
        let discovery = Discovery::load(session).await?;
        let mut targets = target::parse(&discovery, std::slice::from_ref(first))?;
        let Some(target) = targets.pop() else { return Ok(Vec::new()) };
        let owner = session
            .get(&target.resource.path(Some(session.namespace()), target.names.first().map(String::as_str)))
            .await?;
        if target.resource.kind == "Pod" {
            return Ok(vec![owner]);
        }
        let selector = &owner["spec"]["selector"];
        let labels = if selector["matchLabels"].is_object() { &selector["matchLabels"] } else { selector };
        let selector = object::joined_pairs(labels);
        if selector == "<none>" {
            return Err(Error::message(format!(
                "cannot get the logs from {}: it selects no pods",
                target.resource.kind
            )));
        }
        let mut pods = pods_of(session, &pods_path, &selector).await?;
        // As kubectl: of a controller's pods one, unless all are asked for.
        pods.truncate(1);
        Ok(pods)
    }

    /// The containers of a pod whose logs are asked for.
    fn containers(&self, pod: &Value, console: &mut Console) -> Result<Vec<String>, Error> {
        let names = |field: &str| {
            let list = object::items(pod, &["spec", field]);
            list.iter().map(|c| object::text(c, &["name"]).to_owned()).collect::<Vec<_>>()
        };
        if self.all_containers {
            return Ok([names("initContainers"), names("containers")].concat());
        }
        if let Some(name) = self.container.as_ref().or(self.arguments.get(1)) {
            if [names("initContainers"), names("containers")].concat().contains(name) {
                return Ok(vec![name.clone()]);
            }
            return Err(Error::message(format!("container {name} is not valid for pod {}", object::name(pod))));
        }
        let own = names("containers");
        if own.len() > 1 {
            console.note(&format!("Defaulted container \"{}\" out of: {}", own[0], own.join(", ")));
        }
        Ok(own.into_iter().take(1).collect())
    }

    /// One log after the other.
    async fn serial(&self, session: &Session, console: &mut Console, sources: &[Source]) -> Result<(), Error> {
        for source in sources {
            let mut pieces = session.stream(&source.path).await?;
            if !self.prefix {
                while let Some(piece) = pieces.try_next().await? {
                    console.print_bytes(&piece)?;
                }
                continue;
            }
            let mut lines = lines(pieces);
            while let Some(line) = lines.try_next().await? {
                console.print_bytes(&self.prefixed(source, &line))?;
            }
        }
        Ok(())
    }

    /// All logs as they grow, line by line.
    async fn merged(&self, session: &Session, console: &mut Console, sources: &[Source]) -> Result<(), Error> {
        let mut all = SelectAll::new();
        for source in sources {
            let pieces = session.stream(&source.path).await?;
            all.push(lines(pieces).map_ok(move |line| self.prefixed(source, &line)).boxed());
        }
        while let Some(line) = all.try_next().await? {
            console.print_bytes(&line)?;
        }
        Ok(())
    }

    fn prefixed(&self, source: &Source, line: &[u8]) -> Vec<u8> {
        let prefix = if self.prefix { format!("[pod/{}/{}] ", source.pod, source.container) } else { String::new() };
        [prefix.as_bytes(), line].concat()
    }
}

async fn pods_of(session: &Session, path: &str, selector: &str) -> Result<Vec<Value>, Error> {
    let found = list(session, path, &[("labelSelector", selector.to_owned())], "application/json").await?;
    Ok(object::items(&found, &["items"]).to_vec())
}

/// Cuts a stream into lines, each with its end; what has none comes last.
fn lines(pieces: BoxStream<'static, Result<Bytes, Error>>) -> BoxStream<'static, Result<Vec<u8>, Error>> {
    let state = (pieces, Vec::<u8>::new());
    futures::stream::try_unfold(state, |(mut pieces, mut buffer)| async move {
        loop {
            if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let rest = buffer.split_off(end + 1);
                return Ok(Some((buffer, (pieces, rest))));
            }
            match pieces.try_next().await? {
                Some(piece) => buffer.extend_from_slice(&piece),
                None if buffer.is_empty() => return Ok(None),
                None => return Ok(Some((buffer, (pieces, Vec::new())))),
            }
        }
    })
    .boxed()
}
