//! Flags and verbs, and the run of one command.

use clap::{Parser, Subcommand};

use crate::session::Connection;
use crate::verbs;
use crate::{Console, Error};

/// The command line of Coracle.
#[derive(Debug, Parser)]
#[command(name = "kctl", version, about = "kctl controls the Coracle cluster", disable_help_subcommand = true)]
pub struct Cli {
    /// How to reach the server.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Display one or many resources
    Get(verbs::get::Get),
    /// Show details of a specific resource or group of resources
    Describe(verbs::describe::Describe),
    /// Create a resource from a file or from stdin
    Create(verbs::create::Create),
    /// Apply a configuration to a resource by file name or stdin
    Apply(verbs::apply::Apply),
    /// Delete resources by file names, stdin, resources and names, or by resources and label selector
    Delete(verbs::delete::Delete),
    /// Set a new size for a replication controller
    Scale(verbs::scale::Scale),
    /// Run a particular image on the cluster
    Run(verbs::run::Run),
    /// Take a replication controller, service or pod and expose it as a new service
    Expose(verbs::expose::Expose),
    /// Print the logs for a container in a pod
    Logs(verbs::logs::Logs),
    /// Manage the images on the cluster's nodes
    Image(verbs::image::Image),
    /// Manage the tokens machines join the cluster with
    Token(verbs::token::Token),
    /// Update the labels on a resource
    Label(verbs::label::Label),
    /// Update the annotations on a resource
    Annotate(verbs::label::Label),
    /// Print the client and server version information
    Version(verbs::version::Version),
    /// Display cluster information
    ClusterInfo(verbs::cluster_info::ClusterInfo),
    /// Print the supported API resources on the server
    ApiResources(verbs::api_resources::ApiResources),
    /// Print the supported API versions on the server, in the form of "group/version"
    ApiVersions(verbs::api_versions::ApiVersions),
    /// Check this machine before Coracle is installed, or when something does not work
    Doctor(verbs::doctor::Doctor),
}

/// Runs one command to its end.
pub async fn run(cli: Cli, console: &mut Console) -> Result<(), Error> {
    if let Verb::Version(version) = &cli.verb
        && version.client
    {
        return version.run(None, console).await;
    }
    if let Verb::Doctor(doctor) = &cli.verb {
        return doctor.run(cli.connection.server.as_deref(), console).await;
    }
    let session = cli.connection.open().await?;
    for warning in session.warnings() {
        console.note(&format!("Warning: {warning}"));
    }
    run_verb(&cli.verb, &session, console).await
}

/// Runs a verb over a session that is there already, and tells what the server had to say beside its answers.
pub async fn run_verb(verb: &Verb, session: &crate::session::Session, console: &mut Console) -> Result<(), Error> {
    let ended = run_to_its_end(verb, session, console).await;
    session.tell_warnings(console);
    ended
}

async fn run_to_its_end(verb: &Verb, session: &crate::session::Session, console: &mut Console) -> Result<(), Error> {
    match verb {
        Verb::Get(verb) => verb.run(session, console).await,
        Verb::Describe(verb) => verb.run(session, console).await,
        Verb::Create(verb) => verb.run(session, console).await,
        Verb::Apply(verb) => verb.run(session, console).await,
        Verb::Delete(verb) => verb.run(session, console).await,
        Verb::Scale(verb) => verb.run(session, console).await,
        Verb::Run(verb) => verb.run(session, console).await,
        Verb::Expose(verb) => verb.run(session, console).await,
        Verb::Logs(verb) => verb.run(session, console).await,
        Verb::Image(verb) => verb.run(session, console).await,
        Verb::Token(verb) => verb.run(session, console).await,
        Verb::Label(verb) => verb.run(verbs::label::LABELS, session, console).await,
        Verb::Annotate(verb) => verb.run(verbs::label::ANNOTATIONS, session, console).await,
        Verb::Version(verb) => verb.run(Some(session), console).await,
        Verb::ClusterInfo(verb) => verb.run(session, console).await,
        Verb::ApiResources(verb) => verb.run(session, console).await,
        Verb::ApiVersions(verb) => verb.run(session, console).await,
        Verb::Doctor(verb) => verb.run(Some(session.url()), console).await,
    }
}
