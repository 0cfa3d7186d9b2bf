//! `kctl scale`: how many replicas there should be.

use serde_json::json;

use super::{DryRun, Selectors, subjects};
use crate::manifest::Files;
use crate::session::Session;
use crate::{Console, Error, error, object};

/// Set a new size.
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// TYPE NAME or TYPE/NAME
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// Select all resources in the namespace of the specified resource types
    #[arg(long)]
    all: bool,
    /// The new desired number of replicas. Required.
    #[arg(long, allow_negative_numbers = true)]
    replicas: i64,
    /// Precondition for current size
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    current_replicas: i64,
    /// Precondition for resource version
    #[arg(long)]
    resource_version: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
}

impl Scale {
    /// Scales each object.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        if self.replicas < 0 {
            return Err(Error::message(
                "The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0",
            ));
        }
        let mut errors = Vec::new();
        for subject in subjects(session, console, &self.files, &self.arguments, &self.selectors, self.all).await? {
            match self.scale(session, &subject.path()).await {
                Ok(()) => console.line(&format!("{} scaled{}", subject.shown(), self.dry_run.suffix()))?,
                Err(error) => errors.push(error),
            }
        }
        error::all(errors)
    }

    async fn scale(&self, session: &Session, path: &str) -> Result<(), Error> {
        let path = format!("{path}/scale");
        let preconditions = self.current_replicas >= 0 || self.resource_version.is_some();
        if self.dry_run == DryRun::Client {
            return session.get(&path).await.map(drop);
        }
        if !preconditions {
            let patch = json!({"spec": {"replicas": self.replicas}});
            return session.patch(&self.dry_run.path(&path), "application/merge-patch+json", &patch).await.map(drop);
        }
        // With preconditions: what was looked at is what is written, or the server says Conflict.
        let mut scale = session.get(&path).await?;
        let current = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        if self.current_replicas >= 0 && current != self.current_replicas {
            return Err(Error::message(format!("Expected replicas to be {}, was {current}", self.current_replicas)));
        }
        let version = object::text(&scale, &["metadata", "resourceVersion"]);
        if let Some(expected) = self.resource_version.as_deref().filter(|expected| *expected != version) {
            return Err(Error::message(format!("Expected resource version to be {expected}, was {version}")));
        }
        scale["spec"]["replicas"] = json!(self.replicas);
        session.put(&self.dry_run.path(&path), &scale).await.map(drop)
    }
}
