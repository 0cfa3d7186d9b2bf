//! `kctl delete`: asks for the deletion of objects and waits until they are gone.

use futures::TryStreamExt;
use serde_json::{Value, json};

use super::{DryRun, Selectors, Subject, subjects};
use crate::manifest::Files;
use crate::session::{Session, parse_duration, with_query};
use crate::{Console, Error, error, object};

/// Delete resources.
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// TYPE NAME …, TYPE/NAME …, or TYPE with -l or --all
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// Delete all resources, in the namespace of the specified resource types
    #[arg(long)]
    all: bool,
    /// Period of time in seconds given to the resource to terminate gracefully
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    grace_period: i64,
    /// If true, immediately remove resources from API and bypass graceful deletion
    #[arg(long)]
    force: bool,
    /// If true, resources are signaled for immediate shutdown (same as --grace-period=1)
    #[arg(long)]
    now: bool,
    /// If true, wait for resources to be gone before returning
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// The length of time to wait before giving up on a delete, zero means determine a timeout from the size of the object
    #[arg(long, default_value = "0s")]
    timeout: String,
    /// Must be "background", "orphan", or "foreground"
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "background", default_value = "background")]
    cascade: String,
    /// Treat "resource not found" as a successful delete
    #[arg(long)]
    ignore_not_found: bool,
    /// Output mode. Use "-o name" for shorter output (resource/name)
    #[arg(short, long)]
    output: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
}

impl Delete {
    /// Deletes each object; one that is refused does not stop the others.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let options = self.options()?;
        if self.output.as_deref().is_some_and(|o| o != "name") {
            return Err(Error::message("unexpected -o output mode. We only support '-o name'"));
        }
        let found = subjects(session, console, &self.files, &self.arguments, &self.selectors, self.all).await?;
        if self.grace_period == 0 && self.force {
            console.note(
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. The \
                 resource may continue to run on the cluster indefinitely.",
            );
        }
        if found.is_empty() {
            console.note("No resources found");
            return Ok(());
        }
        // What selectors found may be gone meanwhile; that is no error then.
        let lenient = self.ignore_not_found || self.all || !self.selectors.is_empty();
        let (mut errors, mut gone) = (Vec::new(), Vec::new());
        for subject in found {
            match self.delete(session, console, &subject, &options).await {
                Ok(Some(uid)) => gone.push((subject, uid)),
                Ok(None) => {}
                Err(error) if error.is_not_found() && lenient => {}
                Err(error) => errors.push(error),
            }
        }
        if self.wait && self.dry_run == DryRun::None {
            errors.extend(self.wait_for(session, &gone).await.err());
        }
        error::all(errors)
    }

    fn options(&self) -> Result<Value, Error> {
        let grace = match (self.now, self.grace_period) {
            (true, given) if given >= 0 => {
                return Err(Error::message("--now and --grace-period cannot be specified together"));
            }
            (true, _) => Some(1),
            (false, given) if given < 0 => self.force.then_some(0),
            (false, given) if given > 0 && self.force => {
                return Err(Error::message("--force and --grace-period greater than 0 cannot be specified together"));
            }
            // Zero without --force means as soon as is safe, as in kubectl.
            (false, 0) if !self.force => Some(1),
            (false, given) => Some(given),
        };
        let policy = match self.cascade.as_str() {
            "background" | "true" => "Background",
            "orphan" | "false" => "Orphan",
            "foreground" => "Foreground",
            other => {
                return Err(Error::message(format!(
                    "invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""
                )));
            }
        };
        let mut options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": policy});
        if let Some(grace) = grace {
            options["gracePeriodSeconds"] = json!(grace);
        }
        if self.dry_run == DryRun::Server {
            options["dryRun"] = json!(["All"]);
        }
        Ok(options)
    }

    /// Deletes one object; returns its UID where it may still be there.
    async fn delete(
        &self,
        session: &Session,
        console: &mut Console,
        subject: &Subject,
        options: &Value,
    ) -> Result<Option<String>, Error> {
        let answer = match self.dry_run {
            DryRun::Client => session.get(&subject.path()).await?,
            _ => session.delete(&subject.path(), options).await?,
        };
        if self.output.is_some() {
            console.line(&subject.shown())?;
        } else {
            let forced = if self.force && self.grace_period <= 0 && !self.now { " force" } else { "" };
            let kind = subject.resource.qualified_singular();
            console.line(&format!("{kind} \"{}\"{forced} deleted{}", subject.name, self.dry_run.suffix()))?;
        }
        let uid = match object::text(&answer, &["kind"]) {
            "Status" => object::text(&answer, &["details", "uid"]),
            _ => object::text(&answer, &["metadata", "uid"]),
        };
        Ok(Some(uid.to_owned()))
    }

    async fn wait_for(&self, session: &Session, gone: &[(Subject, String)]) -> Result<(), Error> {
        let timeout = parse_duration(&self.timeout)
            .ok_or_else(|| Error::message(format!("invalid timeout value {:?}", self.timeout)))?;
        let all = async {
            for (subject, uid) in gone {
                wait_until_gone(session, subject, uid).await?;
            }
            Ok(())
        };
        if timeout.is_zero() {
            return all.await;
        }
        let late = |_| Error::message("timed out waiting for the condition");
        tokio::time::timeout(timeout, all).await.map_err(late)?
    }
}

/// Watches one object until it is deleted. A successor of the same name counts as gone too.
async fn wait_until_gone(session: &Session, subject: &Subject, uid: &str) -> Result<(), Error> {
    loop {
        let present = match session.get(&subject.path()).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        if !uid.is_empty() && object::text(&present, &["metadata", "uid"]) != uid {
            return Ok(());
        }
        let version = object::text(&present, &["metadata", "resourceVersion"]).to_owned();
        let parameters = [
            ("fieldSelector", format!("metadata.name={}", subject.name)),
            ("watch", "true".to_owned()),
            ("resourceVersion", version),
        ];
        let mut events = session.watch(&with_query(&subject.collection(), &parameters), "application/json").await?;
        while let Some(event) = events.try_next().await? {
            match object::text(&event, &["type"]) {
                "DELETED" => return Ok(()),
                // The watch is too old or broken: look again and watch from there.
                "ERROR" => break,
                _ => {}
            }
        }
    }
}
