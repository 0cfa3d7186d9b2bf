//! `kctl image`: images on nodes, without a registry between. Each request goes through the API server's proxy to the
//! kubelet of a node, and needs the right to it (`nodes/proxy`).

use std::io::Read;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::list as list_objects;
use crate::session::{Session, body_in_pieces};
use crate::{Console, Error, object, tabwriter};

/// Nodes asked at a time.
const MAX_ASKED: usize = 8;
/// Bytes of an archive that are read at a time, and how many such pieces wait for a node.
const PIECE: usize = 256 << 10;
const PIECES_ON_THEIR_WAY: usize = 2;

/// Manage the images on the cluster's nodes.
#[derive(Debug, clap::Args)]
pub struct Image {
    #[command(subcommand)]
    action: Action,
}

/// On which nodes.
#[derive(Debug, clap::Args)]
struct Nodes {
    /// On this node only; all nodes if not given
    #[arg(long)]
    node: Vec<String>,
}

/// How to prove oneself to a registry.
#[derive(Debug, clap::Args)]
struct Registry {
    /// User at the registry
    #[arg(long, requires = "password_stdin")]
    username: Option<String>,
    /// Read the password for the registry from stdin
    #[arg(long)]
    password_stdin: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List images
    #[command(alias = "list")]
    Ls {
        #[command(flatten)]
        nodes: Nodes,
        /// One of 'json', or a table if not given
        #[arg(short, long)]
        output: Option<String>,
    },
    /// Let nodes fetch an image from its registry
    Pull {
        image: String,
        #[command(flatten)]
        nodes: Nodes,
        #[command(flatten)]
        registry: Registry,
    },
    /// Let a node send an image to its registry
    Push {
        image: String,
        #[command(flatten)]
        nodes: Nodes,
        #[command(flatten)]
        registry: Registry,
    },
    /// Put the images of an archive, made by 'docker save' or 'kctl image save', onto nodes
    Load {
        /// The archive; standard input if not given or '-'
        #[arg(short, long)]
        input: Option<PathBuf>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Write images of a node to an archive
    Save {
        #[arg(required = true)]
        images: Vec<String>,
        /// The archive; standard output if not given or '-'
        #[arg(short, long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Give an image another name
    Tag {
        image: String,
        name: String,
        #[command(flatten)]
        nodes: Nodes,
    },
    /// Remove images; those in use stay
    #[command(alias = "remove")]
    Rm {
        #[arg(required = true)]
        images: Vec<String>,
        #[command(flatten)]
        nodes: Nodes,
    },
}

impl Image {
    /// Does it on every node meant; what fails on one does not keep it from the others.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        match &self.action {
            Action::Ls { nodes, output } => {
                list(session, console, &nodes.names(session).await?, output.as_deref()).await
            }
            Action::Pull { image, nodes, registry } => {
                let auth = registry.header(console)?;
                let request = |node: &str| post(node, "pull", &[("reference", image)]);
                each(session, console, nodes.names(session).await?, request, auth, &format!("{image} pulled")).await
            }
            Action::Push { image, nodes, registry } => {
                let auth = registry.header(console)?;
                let node = one_with(session, nodes, image).await?;
                let request = |node: &str| post(node, "push", &[("reference", image)]);
                each(session, console, vec![node], request, auth, &format!("{image} pushed")).await
            }
            Action::Tag { image, name, nodes } => {
                let request = |node: &str| post(node, "tag", &[("reference", image), ("name", name)]);
                each(session, console, nodes.names(session).await?, request, None, &format!("{image} tagged {name}"))
                    .await
            }
            Action::Rm { images, nodes } => remove(session, console, nodes, images).await,
            Action::Load { input, nodes } => load(session, console, nodes, input.as_ref()).await,
            Action::Save { images, output, nodes } => save(session, console, nodes, images, output.as_ref()).await,
        }
    }
}

impl Nodes {
    async fn names(&self, session: &Session) -> Result<Vec<String>, Error> {
        if !self.node.is_empty() {
            return Ok(self.node.clone());
        }
        let nodes = list_objects(session, "/api/v1/nodes", &[], "application/json").await?;
        let names: Vec<String> = object::items(&nodes, &["items"]).iter().map(|n| object::name(n).to_owned()).collect();
        if names.is_empty() { Err(Error::message("there are no nodes")) } else { Ok(names) }
    }
}

impl Registry {
    fn header(&self, console: &mut Console) -> Result<Option<String>, Error> {
        let Some(username) = &self.username else { return Ok(None) };
        let mut password = String::new();
        console
            .input
            .read_to_string(&mut password)
            .map_err(|e| Error::message(format!("reading the password: {e}")))?;
        let auth = json!({"username": username, "password": password.trim_end_matches(['\r', '\n'])});
        Ok(Some(URL_SAFE.encode(auth.to_string())))
    }
}

fn path(node: &str, rest: &str, parameters: &[(&str, &str)]) -> String {
    let parameters: Vec<(&str, String)> = parameters.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    crate::session::with_query(&format!("/api/v1/nodes/{node}/proxy/images{rest}"), &parameters)
}

fn post(node: &str, action: &str, parameters: &[(&str, &str)]) -> (Method, String) {
    (Method::POST, path(node, &format!("/{action}"), parameters))
}

/// Sends a request to each node and says for each what came of it.
async fn each(
    session: &Session,
    console: &mut Console,
    nodes: Vec<String>,
    request: impl Fn(&str) -> (Method, String),
    auth: Option<String>,
    done: &str,
) -> Result<(), Error> {
    let asked = nodes.into_iter().map(|node| {
        let (method, path) = request(&node);
        let auth = auth.clone();
        async move {
            let headers = auth.as_ref().map(|auth| ("x-registry-auth", auth.as_str()));
            (session.raw(method, &path, headers, kube::client::Body::empty()).await, node)
        }
    });
    let mut answers = stream::iter(asked).buffered(MAX_ASKED);
    let mut failed = Vec::new();
    while let Some((answer, node)) = answers.next().await {
        match answer {
            Ok(_) => console.line(&format!("{node}: {done}"))?,
            Err(error) => failed.push(error.when(node)),
        }
    }
    all_of(failed)
}

fn all_of(mut failed: Vec<Error>) -> Result<(), Error> {
    match failed.len() {
        0 => Ok(()),
        1 => Err(failed.remove(0)),
        _ => Err(Error::Several(failed)),
    }
}

async fn images(session: &Session, node: &str) -> Result<Vec<Value>, Error> {
    let answer = session.get(&path(node, "", &[])).await?;
    Ok(answer["items"].as_array().cloned().unwrap_or_default())
}

async fn list(session: &Session, console: &mut Console, nodes: &[String], output: Option<&str>) -> Result<(), Error> {
    if !matches!(output, None | Some("json")) {
        return Err(Error::message("--output must be 'json'"));
    }
    let (mut rows, mut items, mut failed) = ("NODE\tIMAGE\tID\tSIZE\tIN USE\n".to_owned(), Vec::new(), Vec::new());
    for node in nodes {
        let found = match images(session, node).await {
            Ok(found) => found,
            Err(error) => {
                failed.push(error.when(node.clone()));
                continue;
            }
        };
        for mut image in found {
            for name in shown_names(&image) {
                let id = object::text(&image, &["id"]).trim_start_matches("sha256:");
                let (id, size) = (id.get(..12).unwrap_or(id), image["size"].as_f64().unwrap_or(0.0));
                let use_ = if image["inUse"] == true { "yes" } else { "no" };
                rows.push_str(&format!("{node}\t{name}\t{id}\t{}\t{use_}\n", readable(size)));
            }
            image["node"] = json!(node);
            items.push(image);
        }
    }
    match output {
        None => console.print(&tabwriter::align(&rows, 3))?,
        Some(_) => console.line(&json!({"items": items}).to_string())?,
    }
    all_of(failed)
}

/// The names of an image with a tag, or all it has.
fn shown_names(image: &Value) -> Vec<String> {
    let names = image["names"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let all: Vec<String> = names.map(str::to_owned).collect();
    let tagged: Vec<String> = all.iter().filter(|name| !name.contains('@')).cloned().collect();
    if tagged.is_empty() { all } else { tagged }
}

/// `4.8MB`, as Docker prints sizes.
fn readable(bytes: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut size = bytes;
    for unit in units {
        if size < 1000.0 || unit == "TB" {
            return if size < 10.0 && unit != "B" { format!("{size:.1}{unit}") } else { format!("{size:.0}{unit}") };
        }
        size /= 1000.0;
    }
    String::new()
}

/// The node meant, or the first that has the image.
async fn one_with(session: &Session, nodes: &Nodes, image: &str) -> Result<String, Error> {
    let names = nodes.names(session).await?;
    if let [only] = names.as_slice() {
        return Ok(only.clone());
    }
    let mut last = None;
    for node in names {
        match session.get(&path(&node, "/inspect", &[("reference", image)])).await {
            Ok(_) => return Ok(node),
            Err(error) => last = Some(error.when(node)),
        }
    }
    Err(last.unwrap_or_else(|| Error::message(format!("no node has {image}"))))
}

async fn remove(session: &Session, console: &mut Console, nodes: &Nodes, images: &[String]) -> Result<(), Error> {
    let names = nodes.names(session).await?;
    let mut failed = Vec::new();
    for image in images {
        let mut removed = false;
        let mut missing = None;
        for node in &names {
            let path = path(node, "", &[("reference", image)]);
            match session.raw(Method::DELETE, &path, None, kube::client::Body::empty()).await {
                Ok(_) => {
                    removed = true;
                    console.line(&format!("{node}: {image} removed"))?;
                }
                // Of many nodes not all need have it.
                Err(error) if error.is_not_found() => missing = Some(error.when(node.clone())),
                Err(error) => failed.push(error.when(node.clone())),
            }
        }
        failed.extend(missing.filter(|_| !removed));
    }
    all_of(failed)
}

/// Every node gets the archive at the same time, a piece after the other: it is read once, and never in memory as a whole.
async fn load(session: &Session, console: &mut Console, nodes: &Nodes, input: Option<&PathBuf>) -> Result<(), Error> {
    let open = |path: &PathBuf| {
        let file = std::fs::File::open(path);
        file.map_err(|e| Error::message(format!("{}: {e}", path.display())))
    };
    // Before anything is sent: no node is to be given the archive that is not there.
    let file =
        input.filter(|path| path.as_os_str() != "-").map(|path| open(path).map(|file| (path, file))).transpose()?;
    let names = nodes.names(session).await?;
    let mut receivers = Vec::new();
    let mut senders = Vec::new();
    for _ in &names {
        let (sender, receiver) = mpsc::channel::<std::io::Result<Bytes>>(PIECES_ON_THEIR_WAY);
        senders.push(sender);
        receivers.push(receiver);
    }
    let sent = names.iter().zip(receivers).map(|(node, receiver)| async move {
        let pieces = stream::unfold(receiver, |mut pieces| async move { Some((pieces.recv().await?, pieces)) });
        let body = body_in_pieces(pieces).await?;
        session.raw(Method::POST, &path(node, "/load", &[]), None, body).await
    });
    let read = async {
        match file {
            Some((path, mut file)) => {
                let given = give_out(&mut file, senders).await;
                given.map_err(|e| Error::message(format!("{}: {e}", path.display())))
            }
            None => {
                let given = give_out(console.input.as_mut(), senders).await;
                given.map_err(|e| Error::message(format!("reading the archive: {e}")))
            }
        }
    };
    let (read, answers) = futures::join!(read, futures::future::join_all(sent));
    // Without an archive what the nodes say of it is of no interest.
    read?;
    let mut failed = Vec::new();
    for (answer, node) in answers.into_iter().zip(names) {
        match answer {
            Ok(answer) => {
                let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
                for name in answer["loaded"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    console.line(&format!("{node}: {name} loaded"))?;
                }
            }
            Err(error) => failed.push(error.when(node)),
        }
    }
    all_of(failed)
}

/// Reads to the end and gives each piece to everyone who still listens. The slowest says how fast.
async fn give_out(
    from: &mut (dyn Read + Send),
    mut listeners: Vec<mpsc::Sender<std::io::Result<Bytes>>>,
) -> std::io::Result<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        if let Err(error) = from.take(PIECE as u64).read_to_end(&mut piece) {
            for listener in &listeners {
                // Half an archive is not the whole of a smaller one.
                let _ = listener.send(Err(std::io::Error::other(error.to_string()))).await;
            }
            return Err(error);
        }
        if piece.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(piece);
        let given = futures::future::join_all(listeners.iter().map(|listener| listener.send(Ok(piece.clone())))).await;
        let mut given = given.into_iter();
        // A node that refused the archive needs no more of it.
        listeners.retain(|_| given.next().is_some_and(|given| given.is_ok()));
        if listeners.is_empty() {
            return Ok(());
        }
    }
}

async fn save(
    session: &Session,
    console: &mut Console,
    nodes: &Nodes,
    images: &[String],
    output: Option<&PathBuf>,
) -> Result<(), Error> {
    let node = one_with(session, nodes, &images[0]).await?;
    let parameters: Vec<(&str, &str)> = images.iter().map(|image| ("reference", image.as_str())).collect();
    let mut pieces = session.stream(&path(&node, "/save", &parameters)).await.map_err(|e| e.when(node.clone()))?;
    match output.filter(|path| path.as_os_str() != "-") {
        None => {
            while let Some(piece) = pieces.try_next().await? {
                console.print_bytes(&piece)?;
            }
        }
        Some(path) => {
            use std::io::Write;
            let wrong = |e: std::io::Error| Error::message(format!("{}: {e}", path.display()));
            let mut file = std::fs::File::create(path).map_err(wrong)?;
            while let Some(piece) = pieces.try_next().await? {
                file.write_all(&piece).map_err(wrong)?;
            }
            file.sync_all().map_err(wrong)?;
            console.line(&format!("{node}: saved to {}", path.display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_docker_prints_them() {
        let read = [0.0, 999.0, 1000.0, 4_780_000.0, 47_800_000.0, 1.2e9].map(readable);
        assert_eq!(read, ["0B", "999B", "1.0kB", "4.8MB", "48MB", "1.2GB"]);
    }

    #[test]
    fn images_are_shown_by_their_tags() {
        let image = json!({"names": ["a@sha256:00", "a:1", "b:2"]});
        assert_eq!(shown_names(&image), ["a:1", "b:2"]);
        assert_eq!(shown_names(&json!({"names": ["a@sha256:00"]})), ["a@sha256:00"]);
        assert_eq!(
            path("n", "/tag", &[("reference", "a/b:1")]),
            "/api/v1/nodes/n/proxy/images/tag?reference=a%2Fb%3A1"
        );
    }
}
