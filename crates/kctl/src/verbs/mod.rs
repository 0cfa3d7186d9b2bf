//! One file for each verb, and what several of them share: which objects they act on.

pub mod api_resources;
pub mod api_versions;
pub mod apply;
pub mod cluster_info;
pub mod create;
pub mod delete;
pub mod describe;
pub mod doctor;
pub mod expose;
pub mod get;
pub mod image;
pub mod label;
pub mod logs;
pub mod run;
pub mod scale;
pub mod token;
pub mod version;

use serde_json::{Value, json};

use crate::discovery::{Discovery, Resource};
use crate::manifest::{Files, Manifest};
use crate::session::{Session, with_query};
use crate::{Console, Error, object, target};

/// Objects in one answer of a list; the rest comes in further ones.
const LIST_CHUNK: usize = 500;

/// Which objects of a collection.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Selectors {
    /// Selector (label query) to filter on, supports '=', '==', '!=', 'in', 'notin'
    #[arg(short = 'l', long = "selector")]
    pub selector: Option<String>,
    /// Selector (field query) to filter on, supports '=', '==', and '!='
    #[arg(long)]
    pub field_selector: Option<String>,
    /// If present, act on the requested objects across all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
}

/// Whether to do it, as `--dry-run` has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DryRun {
    /// Do it.
    #[default]
    None,
    /// Only show what would be sent.
    Client,
    /// Let the server check it and keep nothing.
    Server,
}

impl DryRun {
    /// What messages end with.
    pub fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }

    /// The path of a write, with what the server must know.
    pub fn path(self, path: &str) -> String {
        if self == DryRun::Server { with_query(path, &[("dryRun", "All".to_owned())]) } else { path.to_owned() }
    }
}

impl Selectors {
    /// Whether objects are selected by what they are, not by name.
    pub fn is_empty(&self) -> bool {
        self.selector.is_none() && self.field_selector.is_none()
    }

    /// The parameters of a list.
    pub fn parameters(&self) -> Vec<(&'static str, String)> {
        let label = self.selector.clone().map(|s| ("labelSelector", s));
        label.into_iter().chain(self.field_selector.clone().map(|s| ("fieldSelector", s))).collect()
    }

    /// The namespace to list in.
    pub fn namespace<'a>(&self, session: &'a Session) -> Option<&'a str> {
        (!self.all_namespaces).then(|| session.namespace())
    }
}

/// An object to act on, as far as it is known.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Its resource.
    pub resource: Resource,
    /// Its namespace, where it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

impl Subject {
    /// The object of a manifest.
    pub fn of(discovery: &Discovery, session: &Session, manifest: &Manifest) -> Result<Subject, Error> {
        let object = &manifest.object;
        let resource = discovery.of_kind(object::api_version(object), object::kind(object))?.clone();
        let namespace =
            resource.namespaced.then(|| object::namespace(object).unwrap_or(session.namespace()).to_owned());
        Ok(Subject { resource, namespace, name: object::name(object).to_owned() })
    }

    /// The object's path.
    pub fn path(&self) -> String {
        self.resource.path(self.namespace.as_deref(), Some(&self.name))
    }

    /// The path of the collection it is in.
    pub fn collection(&self) -> String {
        self.resource.path(self.namespace.as_deref(), None)
    }

    /// `pod/web`, as messages name it.
    pub fn shown(&self) -> String {
        self.resource.name_of(&self.name)
    }
}

/// The objects that files, arguments and selectors mean. With `all`, a resource without names and selector means every
/// object.
pub async fn subjects(
    session: &Session,
    console: &mut Console,
    files: &Files,
    arguments: &[String],
    selectors: &Selectors,
    all: bool,
) -> Result<Vec<Subject>, Error> {
    let discovery = Discovery::load(session).await?;
    if !files.is_empty() {
        let manifests = files.read(console)?;
        return manifests.iter().map(|manifest| Subject::of(&discovery, session, manifest)).collect();
    }
    let mut found = Vec::new();
    for target in target::parse(&discovery, arguments)? {
        let resource = target.resource;
        let by_query = !selectors.is_empty() || all;
        if !target.names.is_empty() && by_query {
            return Err(Error::message("name cannot be provided when a selector is specified"));
        }
        if target.names.is_empty() && !by_query {
            return Err(Error::message("resource(s) were provided, but no name was specified"));
        }
        let namespace = resource.namespaced.then(|| session.namespace().to_owned());
        found.extend(target.names.iter().map(|name| Subject {
            resource: resource.clone(),
            namespace: namespace.clone(),
            name: name.clone(),
        }));
        if by_query {
            let path = resource.path(selectors.namespace(session), None);
            let list = list(session, &path, &selectors.parameters(), "application/json").await?;
            found.extend(object::items(&list, &["items"]).iter().map(|item| Subject {
                resource: resource.clone(),
                namespace: object::namespace(item).map(str::to_owned),
                name: object::name(item).to_owned(),
            }));
        }
    }
    if found.is_empty() && arguments.is_empty() {
        return Err(Error::message("You must provide one or more resources by argument or filename."));
    }
    Ok(found)
}

/// A whole list (or Table), however many answers it takes.
pub async fn list(session: &Session, path: &str, parameters: &[(&str, String)], accept: &str) -> Result<Value, Error> {
    let mut whole: Option<Value> = None;
    loop {
        let mut query = parameters.to_vec();
        query.push(("limit", LIST_CHUNK.to_string()));
        let token = whole.as_ref().map(|w| object::text(w, &["metadata", "continue"]).to_owned()).unwrap_or_default();
        if !token.is_empty() {
            query.push(("continue", token));
        }
        let chunk = session.get_as(&with_query(path, &query), accept).await?;
        let merged = match whole.take() {
            None => chunk,
            Some(before) => joined(before, chunk),
        };
        if object::text(&merged, &["metadata", "continue"]).is_empty() {
            return Ok(said_by_each(merged));
        }
        whole = Some(merged);
    }
}

/// Items of a typed list leave out what the list says once: each says it again.
fn said_by_each(mut list: Value) -> Value {
    let Some(kind) = object::kind(&list).strip_suffix("List").map(str::to_owned) else { return list };
    let api_version = list["apiVersion"].clone();
    for item in list["items"].as_array_mut().into_iter().flatten().filter(|item| item["kind"].is_null()) {
        item["apiVersion"] = api_version.clone();
        item["kind"] = json!(kind);
    }
    list
}

/// The items (or rows) of both, the metadata of the second.
fn joined(mut first: Value, mut second: Value) -> Value {
    for key in ["items", "rows"] {
        if let (Some(all), Some(more)) = (first[key].as_array_mut(), second[key].as_array_mut()) {
            all.append(more);
        }
    }
    first["metadata"] = second["metadata"].take();
    first
}
