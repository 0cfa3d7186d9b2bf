//! `kctl get`: objects as tables, documents, names or whatever `-o` says; with `-w` as they change.

use futures::TryStreamExt;
use serde_json::{Value, json};

use super::{Selectors, list};
use crate::discovery::{Discovery, Resource};
use crate::error;
use crate::manifest::Files;
use crate::print::table::{self, Options, Printer};
use crate::print::{Format, items};
use crate::session::{Session, with_query};
use crate::target::{self, Target};
use crate::{Console, Error, object};

/// Display one or many resources.
#[derive(Debug, clap::Args)]
pub struct Get {
    /// TYPE[,TYPE] [NAME …] or TYPE/NAME …
    arguments: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    selectors: Selectors,
    /// Output format: json, yaml, name, wide, jsonpath=…, jsonpath-file=…, jsonpath-as-json=…, custom-columns=…
    #[arg(short, long)]
    output: Option<String>,
    /// After listing/getting the requested object, watch for changes
    #[arg(short, long)]
    watch: bool,
    /// Watch for changes to the requested objects, without listing/getting first
    #[arg(long)]
    watch_only: bool,
    /// Output watch event objects when --watch or --watch-only is used
    #[arg(long)]
    output_watch_events: bool,
    /// When using the default or custom-column output format, don't print headers
    #[arg(long)]
    no_headers: bool,
    /// When printing, show all labels as the last column
    #[arg(long)]
    show_labels: bool,
    /// If present, list the resource type for the requested object(s)
    #[arg(long)]
    show_kind: bool,
    /// Labels that are going to be presented as columns
    #[arg(short = 'L', long, value_delimiter = ',')]
    label_columns: Vec<String>,
    /// If non-empty, sort list types using this field specification (a JSONPath expression)
    #[arg(long)]
    sort_by: Option<String>,
    /// If the requested object does not exist the command will return exit code 0
    #[arg(long)]
    ignore_not_found: bool,
    /// Raw URI to request from the server
    #[arg(long, value_name = "URI")]
    raw: Option<String>,
    /// Return large lists in chunks (always done)
    #[arg(long, hide = true)]
    chunk_size: Option<u32>,
}

impl Get {
    /// Gets and prints.
    pub async fn run(&self, session: &Session, console: &mut Console) -> Result<(), Error> {
        if let Some(path) = &self.raw {
            self.fits_raw(path)?;
            return console.print(&session.text(path).await?);
        }
        let format = Format::parse(self.output.as_deref())?;
        let discovery = Discovery::load(session).await?;
        let targets = self.targets(&discovery, console)?;
        if self.watch || self.watch_only {
            let [target] = targets.as_slice() else {
                return Err(Error::message("you may only specify a single resource type"));
            };
            return self.follow(session, console, &format, target).await;
        }
        if format.is_table() {
            self.tables(session, console, &format, &targets).await
        } else {
            self.documents(session, console, &format, &discovery, &targets).await
        }
    }

    /// Nothing else can be asked together with `--raw` (upstream's `Validate` in `pkg/cmd/get/get.go`).
    fn fits_raw(&self, path: &str) -> Result<(), Error> {
        if !self.arguments.is_empty() {
            return Err(Error::message("arguments may not be passed when --raw is specified"));
        }
        if self.watch || self.watch_only || self.selectors.selector.is_some() {
            let text = "--raw may not be specified with other flags that filter the server request or alter the output";
            return Err(Error::message(text));
        }
        if self.output.is_some() {
            return Err(Error::message("--raw and --output are mutually exclusive"));
        }
        if path.parse::<http::uri::PathAndQuery>().is_err() || !path.starts_with('/') {
            return Err(Error::message(format!("--raw must be a valid URL path: {path:?}")));
        }
        Ok(())
    }

    fn targets(&self, discovery: &Discovery, console: &mut Console) -> Result<Vec<Target>, Error> {
        if !self.files.is_empty() {
            let manifests = self.files.read(console)?;
            let targets = manifests.iter().map(|m| {
                let resource = discovery.of_kind(object::api_version(&m.object), object::kind(&m.object))?.clone();
                Ok(Target { resource, names: vec![object::name(&m.object).to_owned()] })
            });
            return targets.collect();
        }
        let targets = target::parse(discovery, &self.arguments)?;
        let named = targets.iter().any(|t| !t.names.is_empty());
        if targets.is_empty() {
            console.note(
                "You must specify the type of resource to get. Use \"kctl api-resources\" for a complete list of supported \
                 resources.\n",
            );
            return Err(Error::message("Required resource not specified."));
        }
        if named && self.selectors.all_namespaces {
            return Err(Error::message("a resource cannot be retrieved by name across all namespaces"));
        }
        if named && !self.selectors.is_empty() {
            return Err(Error::message("name cannot be provided when a selector is specified"));
        }
        Ok(targets)
    }

    /// One table for each resource, an empty line between them.
    async fn tables(
        &self,
        session: &Session,
        console: &mut Console,
        format: &Format,
        targets: &[Target],
    ) -> Result<(), Error> {
        let several = targets.windows(2).any(|pair| pair[0].resource != pair[1].resource);
        let (mut errors, mut printed) = (Vec::new(), false);
        let mut current: Option<(&Resource, Printer)> = None;
        for target in targets {
            for answer in self.fetch(session, target, table::ACCEPT).await {
                let mut table = match answer {
                    Ok(answer) => as_table(answer),
                    Err(error) if error.is_not_found() && self.ignore_not_found => continue,
                    Err(error) => {
                        errors.push(error);
                        continue;
                    }
                };
                if object::items(&table, &["rows"]).is_empty() {
                    continue;
                }
                self.sort_rows(&mut table)?;
                if current.as_ref().is_none_or(|(resource, _)| *resource != &target.resource) {
                    if printed {
                        console.line("")?;
                    }
                    current = Some((&target.resource, Printer::new(self.options(format, &target.resource, several))));
                }
                if let Some((_, printer)) = &mut current {
                    console.print(&printer.print(&table, ""))?;
                    printed = true;
                }
            }
        }
        if !printed && errors.is_empty() && !self.ignore_not_found {
            let namespaced = targets.iter().any(|t| t.resource.namespaced) && !self.selectors.all_namespaces;
            let place = if namespaced { format!(" in {} namespace.", session.namespace()) } else { String::new() };
            console.note(&format!("No resources found{place}"));
        }
        error::all(errors)
    }

    /// Objects in a form of the client's.
    async fn documents(
        &self,
        session: &Session,
        console: &mut Console,
        format: &Format,
        discovery: &Discovery,
        targets: &[Target],
    ) -> Result<(), Error> {
        let (mut errors, mut found) = (Vec::new(), Vec::new());
        for target in targets {
            for answer in self.fetch(session, target, "application/json").await {
                match answer {
                    Ok(mut answer) if answer["items"].is_array() && target.names.is_empty() => {
                        let (api_version, kind) = (target.resource.api_version(), target.resource.kind.clone());
                        for mut item in answer["items"].as_array_mut().map(std::mem::take).unwrap_or_default() {
                            // Items of a typed list leave out what the list says once.
                            item["apiVersion"] = json!(api_version);
                            item["kind"] = json!(kind);
                            found.push(item);
                        }
                    }
                    Ok(answer) => found.push(answer),
                    Err(error) if error.is_not_found() && self.ignore_not_found => {}
                    Err(error) => errors.push(error),
                }
            }
        }
        self.sort_objects(&mut found)?;
        let single = matches!(targets, [target] if target.names.len() == 1);
        if !(found.is_empty() && (single || targets.iter().all(|t| !t.names.is_empty()))) {
            let whole = match found.as_slice() {
                [only] if single => only.clone(),
                _ => object::list(found),
            };
            console.print(&self.render(format, discovery, &whole)?)?;
        }
        error::all(errors)
    }

    fn render(&self, format: &Format, discovery: &Discovery, value: &Value) -> Result<String, Error> {
        if let Format::Columns(columns) = format {
            return columns.render(&items(value), !self.no_headers);
        }
        format.render(value, |object| {
            let resource = discovery.of_kind(object::api_version(object), object::kind(object));
            let name = object::name(object);
            resource.map_or_else(|_| format!("{}/{name}", object::kind(object).to_lowercase()), |r| r.name_of(name))
        })
    }

    /// The answers for a target: one for each name, or one list.
    async fn fetch(&self, session: &Session, target: &Target, accept: &str) -> Vec<Result<Value, Error>> {
        let resource = &target.resource;
        let mut parameters = self.selectors.parameters();
        if self.sort_by.is_some() && accept == table::ACCEPT {
            parameters.push(("includeObject", "Object".to_owned()));
        }
        if target.names.is_empty() {
            let path = resource.path(self.selectors.namespace(session), None);
            return vec![list(session, &path, &parameters, accept).await];
        }
        let mut answers = Vec::new();
        for name in &target.names {
            let path = resource.path(Some(session.namespace()), Some(name));
            answers.push(session.get_as(&with_query(&path, &parameters), accept).await);
        }
        answers
    }

    fn options(&self, format: &Format, resource: &Resource, several: bool) -> Options {
        Options {
            wide: *format == Format::Table { wide: true },
            with_namespace: self.selectors.all_namespaces && resource.namespaced,
            show_labels: self.show_labels,
            label_columns: self.label_columns.clone(),
            kind_prefix: (several || self.show_kind).then(|| resource.qualified_singular()),
            no_headers: self.no_headers,
            events: self.output_watch_events,
        }
    }

    fn sort_rows(&self, table: &mut Value) -> Result<(), Error> {
        let Some(rows) = table["rows"].as_array_mut() else { return Ok(()) };
        self.sort(rows, |row| &row["object"])
    }

    fn sort_objects(&self, objects: &mut Vec<Value>) -> Result<(), Error> {
        self.sort(objects, |object| object)
    }

    fn sort(&self, values: &mut Vec<Value>, object: impl Fn(&Value) -> &Value) -> Result<(), Error> {
        let Some(field) = &self.sort_by else { return Ok(()) };
        let failed = |e| Error::message(format!("sort-by {field}: {e}"));
        let path = crate::jsonpath::Template::parse_path(field).map_err(failed)?;
        let mut keyed = Vec::new();
        for value in values.drain(..) {
            let key = path.find(object(&value)).map_err(failed)?.into_iter().next();
            keyed.push((key, value));
        }
        if !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none()) {
            return Err(Error::message(format!(
                "couldn't find any field with path \"{field}\" in the list of objects"
            )));
        }
        keyed.sort_by(|(a, _), (b, _)| ordering(a.as_ref(), b.as_ref()));
        values.extend(keyed.into_iter().map(|(_, value)| value));
        Ok(())
    }

    /// The present state, unless `--watch-only`, then every change until the server ends the watch.
    async fn follow(
        &self,
        session: &Session,
        console: &mut Console,
        format: &Format,
        target: &Target,
    ) -> Result<(), Error> {
        let resource = &target.resource;
        let mut parameters = self.selectors.parameters();
        match target.names.as_slice() {
            [] => {}
            [name] => parameters.push(("fieldSelector", format!("metadata.name={name}"))),
            _ => {
                return Err(Error::message("watch is only supported on individual resources and resource collections"));
            }
        }
        let accept = if format.is_table() { table::ACCEPT } else { "application/json" };
        if let [name] = target.names.as_slice() {
            // A name that does not exist is an error, not an empty list.
            session.get(&resource.path(Some(session.namespace()), Some(name))).await?;
        }
        let path = resource.path(self.selectors.namespace(session), None);
        let mut printer = Printer::new(self.options(format, resource, false));
        let present = list(session, &path, &parameters, accept).await?;
        let version = object::text(&present, &["metadata", "resourceVersion"]).to_owned();
        if !self.watch_only {
            self.show_present(console, format, &mut printer, present)?;
        }
        parameters.extend([("watch", "true".to_owned()), ("resourceVersion", version)]);
        let mut events = session.watch(&with_query(&path, &parameters), accept).await?;
        session.tell_warnings(console);
        while let Some(mut event) = events.try_next().await? {
            let kind = object::text(&event, &["type"]).to_owned();
            let object = event["object"].take();
            match kind.as_str() {
                "ERROR" => return Err(Error::Status { status: object, doing: None }),
                "BOOKMARK" => {}
                _ => self.show_event(console, format, &mut printer, &kind, object)?,
            }
        }
        Ok(())
    }

    fn show_present(
        &self,
        console: &mut Console,
        format: &Format,
        printer: &mut Printer,
        present: Value,
    ) -> Result<(), Error> {
        if format.is_table() {
            let table = as_table(present);
            if object::items(&table, &["rows"]).is_empty() {
                return Ok(());
            }
            return console.print(&printer.print(&table, "ADDED"));
        }
        for item in object::items(&present, &["items"]) {
            self.show_event(console, format, printer, "ADDED", item.clone())?;
        }
        Ok(())
    }

    fn show_event(
        &self,
        console: &mut Console,
        format: &Format,
        printer: &mut Printer,
        event: &str,
        object: Value,
    ) -> Result<(), Error> {
        if format.is_table() {
            return console.print(&printer.print(&as_table(object), event));
        }
        let name = |o: &Value| format!("{}/{}", object::kind(o).to_lowercase(), object::name(o));
        let text = match format {
            // The headings of columns stand once at the most; a watch has none.
            Format::Columns(columns) => columns.render(&[&object], false)?,
            _ if self.output_watch_events => format.render(&json!({"type": event, "object": object}), name)?,
            _ => format.render(&object, name)?,
        };
        let separator = if *format == Format::Yaml { "---\n" } else { "" };
        console.print(&format!("{separator}{text}"))
    }
}

/// The server's Table, or one of names and ages where it made none.
fn as_table(answer: Value) -> Value {
    if answer["kind"] == "Table" {
        return answer;
    }
    let now = jiff::Timestamp::now();
    let row = |object: &&Value| {
        let created: Option<jiff::Timestamp> = object::text(object, &["metadata", "creationTimestamp"]).parse().ok();
        let age =
            created.map_or_else(|| "<unknown>".to_owned(), |c| api::printing::human_duration(now.duration_since(c)));
        json!({"cells": [object::name(object), age], "object": object})
    };
    let rows: Vec<Value> = items(&answer).iter().map(row).collect();
    json!({"kind": "Table", "metadata": answer["metadata"], "rows": rows,
           "columnDefinitions": [{"name": "Name", "priority": 0}, {"name": "Age", "priority": 0}]})
}

/// Numbers by size, quantities by size, everything else as text; what is missing comes first.
fn ordering(a: Option<&Value>, b: Option<&Value>) -> std::cmp::Ordering {
    let (Some(a), Some(b)) = (a, b) else { return a.is_some().cmp(&b.is_some()) };
    let number = |value: &Value| match value {
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    if let (Some(a), Some(b)) = (number(a), number(b)) {
        return a.total_cmp(&b);
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text(a).cmp(&text(b))
}
