//! `kctl create -f`: makes objects that are not there yet.

use serde_json::{Value, json};

use super::{DryRun, Subject};
use crate::discovery::Discovery;
use crate::manifest::{Files, Manifest};
use crate::print::Format;
use crate::session::Session;
use crate::{Console, Error, error, object};

/// Create a resource from a file or from stdin.
#[derive(Debug, clap::Args)]
pub struct Create {
    #[command(flatten)]
    files: Files,
    /// Output format
    #[arg(short, long)]
    output: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
    /// If true, the configuration of current object will be saved in its annotation
    #[arg(long)]
    save_config: bool,
    #[command(subcommand)]
    what: Option<What>,
}

/// Kinds that can be made without a file.
#[derive(Debug, clap::Subcommand)]
enum What {
    /// Create a namespace with the specified name
    #[command(visible_alias = "ns")]
    Namespace {
        /// Its name
        name: String,
    },
    /// Create a config map from literal values
    #[command(visible_alias = "cm")]
    Configmap {
        /// Its name
        name: String,
        /// Specify a key and literal value to insert (i.e. mykey=somevalue)
        #[arg(long)]
        from_literal: Vec<String>,
    },
}

impl What {
    fn object(&self) -> Result<Value, Error> {
        match self {
            What::Namespace { name } => {
                Ok(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))
            }
            What::Configmap { name, from_literal } => {
                let mut data = serde_json::Map::new();
                for literal in from_literal {
                    let (key, value) = literal.split_once('=').ok_or_else(|| {
                        Error::message(format!("invalid literal source {literal}, expected key=value"))
                    })?;
                    data.insert(key.to_owned(), json!(value));
                }
                Ok(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}))
            }
        }
    }
}

impl Create {
    /// Creates each object; one that is refused does not stop the others.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let format = self.output.as_deref().map(|o| Format::parse(Some(o))).transpose()?;
        let manifests = match &self.what {
            Some(what) => vec![Manifest { source: String::new(), object: what.object()? }],
            None if self.files.is_empty() => return Err(Error::message("must specify one of -f and -k")),
            None => self.files.read(console)?,
        };
        let discovery = Discovery::load(session).await?;
        let mut errors = Vec::new();
        for manifest in manifests {
            let doing = format!("error when creating \"{}\"", manifest.source);
            let created = self.create(session, console, &discovery, &manifest, format.as_ref()).await;
            errors.extend(created.err().map(|e| if manifest.source.is_empty() { e } else { e.when(doing) }));
        }
        error::all(errors)
    }

    async fn create(
        &self,
        session: &Session,
        console: &mut Console,
        discovery: &Discovery,
        manifest: &Manifest,
        format: Option<&Format>,
    ) -> Result<(), Error> {
        let subject = Subject::of(discovery, session, manifest)?;
        check_namespace(session, &manifest.object)?;
        let mut object = manifest.object.clone();
        if self.save_config {
            object = super::apply::annotated(&object);
        }
        let created = match self.dry_run {
            DryRun::Client => object,
            _ => session.post(&self.dry_run.path(&subject.collection()), &object).await?,
        };
        report(console, &subject, &created, format, "created", self.dry_run)
    }
}

/// Objects of a file may not contradict a namespace given by hand; only explicit flags do that, and they win in `Session`.
fn check_namespace(session: &Session, object: &Value) -> Result<(), Error> {
    match object::namespace(object) {
        Some(own) if session.namespace_is_forced() && own != session.namespace() => Err(Error::message(format!(
            "the namespace from the provided object \"{own}\" does not match the namespace \"{}\". You must pass \
             '--namespace={own}' to perform this operation.",
            session.namespace()
        ))),
        _ => Ok(()),
    }
}

/// `pod/web created`, or the object in the form asked for.
pub(super) fn report(
    console: &mut Console,
    subject: &Subject,
    object: &Value,
    format: Option<&Format>,
    done: &str,
    dry_run: DryRun,
) -> Result<(), Error> {
    // With generateName only the answer knows the name.
    let name = Some(object::name(object)).filter(|n| !n.is_empty()).unwrap_or(&subject.name);
    let shown = subject.resource.name_of(name);
    match format {
        None => console.line(&format!("{shown} {done}{}", dry_run.suffix())),
        Some(format) => console.print(&format.render(object, |_| shown.clone())?),
    }
}
