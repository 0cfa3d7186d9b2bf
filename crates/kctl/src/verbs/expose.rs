//! `kctl expose`: a Service for what runs already.

use serde_json::{Map, Value, json};

use super::create::report;
use super::{DryRun, Selectors, Subject, subjects};
use crate::discovery::Discovery;
use crate::manifest::{Files, Manifest};
use crate::print::Format;
use crate::session::Session;
use crate::{Console, Error, error, object};

/// Expose a resource as a new service.
#[derive(Debug, clap::Args)]
pub struct Expose {
    /// TYPE NAME or TYPE/NAME
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// The port that the service should serve on. Copied from the resource being exposed, if unspecified
    #[arg(long)]
    port: Option<u16>,
    /// Name or number for the port on the container that the service should direct traffic to
    #[arg(long)]
    target_port: Option<String>,
    /// The network protocol for the service to be created. Default is 'TCP'
    #[arg(long)]
    protocol: Option<String>,
    /// The name for the newly created object
    #[arg(long)]
    name: Option<String>,
    /// Type for this service: ClusterIP, NodePort, LoadBalancer, or ExternalName. Default is 'ClusterIP'
    #[arg(long = "type", value_name = "TYPE")]
    type_: Option<String>,
    /// ClusterIP to be assigned to the service. Set to 'None' to create a headless service
    #[arg(long)]
    cluster_ip: Option<String>,
    /// Additional external IP address to accept for the service
    #[arg(long)]
    external_ip: Option<String>,
    /// If non-empty, set the session affinity for the service to this; legal values: 'None', 'ClientIP'
    #[arg(long)]
    session_affinity: Option<String>,
    /// A label selector to use for this service (equality-based)
    #[arg(long)]
    selector: Option<String>,
    /// Labels to apply to the service created by this call
    #[arg(short = 'l', long)]
    labels: Option<String>,
    /// Output format
    #[arg(short, long)]
    output: Option<String>,
    /// Must be "none", "server", or "client"
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "client", default_value = "none")]
    dry_run: DryRun,
}

impl Expose {
    /// Makes a Service for each object.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let format = self.output.as_deref().map(|o| Format::parse(Some(o))).transpose()?;
        let found = subjects(session, console, &self.files, &self.arguments, &Selectors::default(), false).await?;
        let discovery = Discovery::load(session).await?;
        let mut errors = Vec::new();
        for subject in found {
            errors.extend(self.expose(session, console, &discovery, &subject, format.as_ref()).await.err());
        }
        error::all(errors)
    }

    async fn expose(
        &self,
        session: &Session,
        console: &mut Console,
        discovery: &Discovery,
        subject: &Subject,
        format: Option<&Format>,
    ) -> Result<(), Error> {
        let exposed = session.get(&subject.path()).await?;
        let service = self.service(&subject.resource.kind, &exposed)?;
        let manifest = Manifest { source: String::new(), object: service };
        let target = Subject::of(discovery, session, &manifest)?;
        let created = match self.dry_run {
            DryRun::Client => manifest.object,
            _ => session.post(&self.dry_run.path(&target.collection()), &manifest.object).await?,
        };
        report(console, &target, &created, format, "exposed", self.dry_run)
    }

    /// The Service for an object of kind `kind`.
    fn service(&self, kind: &str, exposed: &Value) -> Result<Value, Error> {
        let selector = match &self.selector {
            Some(text) => pairs(text)?,
            None => own_selector(kind, exposed)?,
        };
        let labels = match &self.labels {
            Some(text) => Value::Object(pairs(text)?),
            None => exposed["metadata"]["labels"].clone(),
        };
        let mut service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name.as_deref().unwrap_or(object::name(exposed))},
            "spec": {"ports": self.ports(kind, exposed)?, "selector": selector},
        });
        if labels.as_object().is_some_and(|l| !l.is_empty()) {
            service["metadata"]["labels"] = labels;
        }
        let options = [
            ("type", self.type_.clone().map(Value::from)),
            ("clusterIP", self.cluster_ip.clone().map(Value::from)),
            ("sessionAffinity", self.session_affinity.clone().map(Value::from)),
            ("externalIPs", self.external_ip.clone().map(|ip| json!([ip]))),
        ];
        for (key, value) in options {
            if let Some(value) = value {
                service["spec"][key] = value;
            }
        }
        Ok(service)
    }

    fn ports(&self, kind: &str, exposed: &Value) -> Result<Vec<Value>, Error> {
        let found: Vec<(Value, Value)> = match self.port {
            Some(port) => vec![(json!(port), Value::Null)],
            None => container_ports(kind, exposed),
        };
        if found.is_empty() {
            return Err(Error::message("couldn't find port via --port flag or introspection"));
        }
        let several = found.len() > 1;
        let target = self.target_port.as_ref().map(|t| t.parse::<u16>().map_or_else(|_| json!(t), |n| json!(n)));
        let port = |(i, (port, protocol)): (usize, (Value, Value))| {
            let protocol = self.protocol.clone().map_or(protocol, Value::from);
            let protocol = if protocol.is_null() { json!("TCP") } else { protocol };
            let mut entry = json!({"port": port, "protocol": protocol, "targetPort": target.clone().unwrap_or(port)});
            if several {
                entry["name"] = json!(format!("port-{}", i + 1));
            }
            entry
        };
        Ok(found.into_iter().enumerate().map(port).collect())
    }
}

/// What selects the pods of an object.
fn own_selector(kind: &str, exposed: &Value) -> Result<Map<String, Value>, Error> {
    let selector = match kind {
        "Pod" => &exposed["metadata"]["labels"],
        "ReplicationController" | "Service" => &exposed["spec"]["selector"],
        _ => &exposed["spec"]["selector"]["matchLabels"],
    };
    match selector.as_object().filter(|s| !s.is_empty()) {
        Some(selector) => Ok(selector.clone()),
        None if kind == "Pod" => Err(Error::message(
            "couldn't retrieve selectors via --selector flag or introspection: the pod has no labels and cannot be exposed",
        )),
        None => Err(Error::message(format!(
            "couldn't retrieve selectors via --selector flag or introspection: cannot expose a {kind}"
        ))),
    }
}

/// Port and protocol of what an object's containers, or a Service, listen on.
fn container_ports(kind: &str, exposed: &Value) -> Vec<(Value, Value)> {
    if kind == "Service" {
        let ports = object::items(exposed, &["spec", "ports"]);
        return ports.iter().map(|p| (p["port"].clone(), p["protocol"].clone())).collect();
    }
    let path: &[&str] =
        if kind == "Pod" { &["spec", "containers"] } else { &["spec", "template", "spec", "containers"] };
    let containers = object::items(exposed, path).iter();
    let ports = containers.flat_map(|c| object::items(c, &["ports"]));
    ports.map(|p| (p["containerPort"].clone(), p["protocol"].clone())).collect()
}

/// Reads `a=b,c=d`.
pub(super) fn pairs(text: &str) -> Result<Map<String, Value>, Error> {
    let pairs = text.split(',').filter(|p| !p.is_empty()).map(|pair| {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| Error::message(format!("unexpected label spec: {pair}")))?;
        Ok((key.trim().to_owned(), json!(value.trim())))
    });
    pairs.collect()
}
