//! `kctl run`: a pod from an image.

use serde_json::{Value, json};

use super::create::report;
use super::expose::pairs;
use super::{DryRun, Subject};
use crate::discovery::Resource;
use crate::manifest::Manifest;
use crate::print::Format;
use crate::session::Session;
use crate::{Console, Error};

/// Create and run a particular image in a pod.
#[derive(Debug, clap::Args)]
pub struct Run {
    /// The pod's name
    name: String,
    /// The image for the container to run
    #[arg(long)]
    image: String,
    /// The image pull policy for the container
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// The restart policy for this Pod. Legal values [Always, OnFailure, Never]
    #[arg(long, default_value = "Always")]
    restart: String,
    /// Environment variables to set in the container
    #[arg(long)]
    env: Vec<String>,
    /// The port that this container exposes
    #[arg(long)]
    port: Option<u16>,
    /// Comma separated labels to apply to the pod. Will override previous values
    #[arg(short, long)]
    labels: Option<String>,
    /// If true and extra arguments are present, use them as the 'command' field rather than the 'args' field
    #[arg(long)]
    command: bool,
    /// Output format
    #[arg(short, long)]
    output: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
    /// What the container runs; what looks like a flag stands behind --
    arguments: Vec<String>,
}

impl Run {
    /// Makes the pod.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let format = self.output.as_deref().map(|o| Format::parse(Some(o))).transpose()?;
        let manifest = Manifest { source: String::new(), object: self.pod()? };
        let subject = Subject {
            resource: Resource::core_namespaced("pods", "pod", "Pod"),
            namespace: Some(session.namespace().to_owned()),
            name: self.name.clone(),
        };
        let created = match self.dry_run {
            DryRun::Client => manifest.object,
            _ => session.post(&self.dry_run.path(&subject.collection()), &manifest.object).await?,
        };
        report(console, &subject, &created, format.as_ref(), "created", self.dry_run)
    }

    fn pod(&self) -> Result<Value, Error> {
        if !matches!(self.restart.as_str(), "Always" | "OnFailure" | "Never") {
            return Err(Error::message(format!("invalid restart policy: {}", self.restart)));
        }
        let labels = match &self.labels {
            Some(text) => Value::Object(pairs(text)?),
            None => json!({"run": self.name}),
        };
        let mut container = json!({"image": self.image, "name": self.name, "resources": {}});
        if let Some(policy) = &self.image_pull_policy {
            container["imagePullPolicy"] = json!(policy);
        }
        if let Some(port) = self.port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !self.env.is_empty() {
            container["env"] = Value::Array(self.environment()?);
        }
        if !self.arguments.is_empty() {
            container[if self.command { "command" } else { "args" }] = json!(self.arguments);
        }
        Ok(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"labels": labels, "name": self.name},
            "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": self.restart},
            "status": {},
        }))
    }

    fn environment(&self) -> Result<Vec<Value>, Error> {
        let variable = |text: &String| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok(json!({"name": name, "value": value})),
            _ => Err(Error::message(format!("invalid env: {text}"))),
        };
        self.env.iter().map(variable).collect()
    }
}
