//! `kctl api-resources`: what the server serves.

use crate::discovery::{Discovery, Resource};
use crate::print::table;
use crate::session::Session;
use crate::{Console, Error};

/// Print the supported API resources on the server.
#[derive(Debug, clap::Args)]
pub struct ApiResources {
    /// Limit to resources in the specified API group
    #[arg(long)]
    api_group: Option<String>,
    /// If false, non-namespaced resources will be returned, otherwise returning namespaced resources by default
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    namespaced: Option<bool>,
    /// Limit to resources that support the specified verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    no_headers: bool,
    /// Output format. One of: (wide, name)
    #[arg(short, long)]
    output: Option<String>,
}

impl ApiResources {
    /// Prints one line for each resource.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        let wide = match self.output.as_deref() {
            None | Some("name") => false,
            Some("wide") => true,
            Some(other) => return Err(Error::message(format!("--output {other} is not available"))),
        };
        let discovery = Discovery::load(session).await?;
        let mut shown: Vec<&Resource> = discovery.resources.iter().filter(|r| self.fits(r)).collect();
        shown.sort_by(|a, b| (&a.group, &a.plural).cmp(&(&b.group, &b.plural)));
        if self.output.as_deref() == Some("name") {
            return console.print(&shown.iter().map(|r| format!("{}\n", r.qualified_plural())).collect::<String>());
        }
        let mut rows: Vec<Vec<String>> = Vec::new();
        if !self.no_headers {
            let headings = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND", "VERBS", "CATEGORIES"];
            rows.push(headings[..if wide { 7 } else { 5 }].iter().map(ToString::to_string).collect());
        }
        rows.extend(shown.iter().map(|r| row(r, wide)));
        console.print(&table::layout(&rows, &mut Vec::new()))
    }

    fn fits(&self, resource: &Resource) -> bool {
        self.api_group.as_ref().is_none_or(|group| *group == resource.group)
            && self.namespaced.is_none_or(|namespaced| namespaced == resource.namespaced)
            && self.verbs.iter().all(|verb| resource.verbs.contains(verb))
    }
}

fn row(resource: &Resource, wide: bool) -> Vec<String> {
    let mut row = vec![
        resource.plural.clone(),
        resource.short_names.join(","),
        resource.api_version(),
        resource.namespaced.to_string(),
        resource.kind.clone(),
    ];
    if wide {
        row.extend([resource.verbs.join(","), resource.categories.join(",")]);
    }
    row
}
