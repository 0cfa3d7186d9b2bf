//! A runtime in memory, good enough to run whole clusters in tests: containers are entries in a map, start at once,
//! get addresses from the podCIDR and run until they are told to end.
//!
//! A container whose command is recognised ends by itself: `true`, `false`, `exit N` and `sh -c "exit N"` at once,
//! `sleep N` after N seconds. `echo` writes its arguments and ends. What any other container "prints" is its command
//! line. Commands run in it later and connections to its loopback address are the matter of [`shell`]; on every port but
//! [`CLOSED_PORT`] something listens that sends back what it is sent. At a pod's own address, and at the node's for pods
//! on its network, an HTTP server answers 200 on every such port, or what a test says ([`web`]). Clones share one machine,
//! so a kubelet started again on a clone finds what it left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use ipnet::Ipv4Net;
use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use super::{
    Connection, Container, ContainerSpec, Error, Event, Exit, KnownPod, LogOptions, LogStream, Machine, Phase,
    PodIdentity, PodState, Resources, Result, Runtime, Sandbox, SandboxSpec, Session, Wanted, fingerprint,
};
use crate::clock::Clock;
use crate::stats::{ContainerDisk, ContainerUsage};

mod control;
mod crash;
mod images;
mod shell;
mod usage;
mod web;

/// The one port where nothing listens.
pub const CLOSED_PORT: u16 = 1;
/// Events that a slow reader may lag behind before it is told to relist.
const EVENT_BUFFER: usize = 64;
/// Exit code of what SIGTERM ended.
const TERMINATED: i32 = 143;
/// Exit code of what SIGKILL ended.
const KILLED: i32 = 137;

/// The runtime. Cheap to clone; clones share the machine.
#[derive(Clone)]
pub struct Hollow {
    shared: Arc<Shared>,
}

struct Shared {
    clock: Clock,
    machine: Machine,
    state: Mutex<State>,
    events: broadcast::Sender<Event>,
    /// Where whoever drives the machine dies.
    crash: crash::Crash,
    /// Commands and connections.
    sessions: Arc<watch::Sender<usize>>,
    /// Containers that run.
    running: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    next_id: u64,
    cidr: Option<Ipv4Net>,
    used: BTreeSet<Ipv4Addr>,
    /// Keyed by age, oldest first: ids are numbers in hexadecimal of fixed width.
    sandboxes: BTreeMap<String, (PodIdentity, Sandbox)>,
    containers: BTreeMap<String, Entry>,
    images: images::Images,
    /// What the HTTP servers of pods answer, by namespace and name: a status, or no connection at all.
    answers: BTreeMap<(String, String), Option<u16>>,
    /// Requests answered, by path, and when.
    requests: Vec<(String, jiff::Timestamp)>,
    stubborn: bool,
    silent: bool,
    files: bool,
    network: bool,
    /// How often each call was made, for tests that count work.
    creates: u64,
}

struct Entry {
    pod: PodIdentity,
    container: Container,
    command: Vec<String>,
    log: String,
    files: shell::Files,
}

impl Default for Hollow {
    fn default() -> Hollow {
        Hollow::new(Clock::Wall)
    }
}

impl Hollow {
    /// A machine of 8 cores and 32 GiB, empty.
    pub fn new(clock: Clock) -> Hollow {
        Hollow::with_machine(clock, Machine { milli_cpu: 8000, memory: 32 << 30, ..Machine::default() })
    }

    /// A machine of that size, empty; what `machine` leaves out is filled in.
    pub fn with_machine(clock: Clock, machine: Machine) -> Hollow {
        let machine = Machine {
            ephemeral_storage: if machine.ephemeral_storage == 0 { 100 << 30 } else { machine.ephemeral_storage },
            architecture: crate::node::machine::architecture().to_owned(),
            operating_system: "linux".to_owned(),
            kernel_version: "hollow".to_owned(),
            os_image: "hollow".to_owned(),
            machine_id: "hollow".to_owned(),
            system_uuid: "hollow".to_owned(),
            boot_id: "hollow".to_owned(),
            runtime_version: "hollow://0.1.0".to_owned(),
            image_dir: None,
            ..machine
        };
        let events = broadcast::Sender::new(EVENT_BUFFER);
        Hollow {
            shared: Arc::new(Shared {
                clock,
                machine,
                state: Mutex::default(),
                events,
                crash: crash::Crash::default(),
                sessions: Arc::default(),
                running: watch::Sender::new(0),
            }),
        }
    }
}

impl Shared {
    fn tell(&self, uid: &str) {
        // Nobody listening is fine: whoever comes later starts with a relist.
        let _ = self.events.send(Event::Pod(uid.to_owned()));
    }

    /// Tells those who wait how many containers run.
    fn count(&self, state: &State) {
        let count = state.containers.values().filter(|entry| entry.container.is_running()).count();
        self.running.send_if_modified(|last| std::mem::replace(last, count) != count);
    }

    /// Ends a container, or a sandbox with all that joined it; whether anything ran.
    fn finish(&self, id: &str, code: i32, oom_killed: bool) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock();
        let exited = || Phase::Exited(Exit { code, finished_at: Some(now), oom_killed, start_error: None });
        let mut uid = None;
        if let Some((pod, sandbox)) = state.sandboxes.get_mut(id)
            && sandbox.running
        {
            sandbox.running = false;
            uid = Some(pod.uid.clone());
            if let Some(IpAddr::V4(ip)) = sandbox.ip {
                state.used.remove(&ip);
            }
        }
        let joined = uid.is_some();
        for entry in state.containers.values_mut() {
            let concerned = entry.container.id == id || (joined && entry.container.sandbox_id == id);
            if concerned && entry.container.is_running() {
                entry.container.phase = exited();
                uid = Some(entry.pod.uid.clone());
            }
        }
        self.count(&state);
        drop(state);
        if let Some(uid) = &uid {
            self.tell(uid);
        }
        uid.is_some()
    }

    fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        let created_at = self.clock.now();
        let mut state = self.state.lock();
        let ip = if spec.host_network { None } else { Some(IpAddr::V4(state.address()?)) };
        let sandbox = Sandbox { id: state.id(), attempt: spec.attempt, created_at, running: true, ip };
        state.sandboxes.insert(sandbox.id.clone(), (spec.pod.clone(), sandbox.clone()));
        Ok(sandbox)
    }

    fn create_container(&self, spec: &ContainerSpec) -> String {
        let mut state = self.state.lock();
        let id = state.id();
        let container = Container {
            id: id.clone(),
            name: spec.name.clone(),
            hash: spec.hash.clone(),
            restart_count: spec.restart_count,
            backoff: spec.backoff,
            sandbox_id: spec.sandbox_id.clone(),
            image: spec.image.clone(),
            image_id: format!("hollow://{}", spec.image),
            created_at: self.clock.now(),
            started_at: None,
            phase: Phase::Created,
            message: None,
            resources: spec.resources,
        };
        let command = spec.command.iter().chain(&spec.args).flatten().cloned().collect();
        let files = shell::Files::default();
        state
            .containers
            .insert(id.clone(), Entry { pod: spec.pod.clone(), container, command, log: String::new(), files });
        id
    }

    fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let now = self.clock.now();
        let behaviour = {
            let mut state = self.state.lock();
            let entry = state.containers.get_mut(id).ok_or_else(|| Error::NotFound(format!("no container {id}")))?;
            let (behaviour, output) = behaviour(&entry.command);
            entry.container.phase = Phase::Running;
            entry.container.started_at = Some(now);
            entry.log.push_str(&output);
            let uid = entry.pod.uid.clone();
            self.count(&state);
            drop(state);
            self.tell(&uid);
            behaviour
        };
        match behaviour {
            Behaviour::Run => {}
            Behaviour::Exit(code) => drop(self.finish(id, code, false)),
            Behaviour::Sleep(duration) => {
                let (shared, id) = (Arc::downgrade(self), id.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(duration).await;
                    if let Some(shared) = shared.upgrade() {
                        shared.finish(&id, 0, false);
                    }
                });
            }
        }
        Ok(())
    }
}

impl State {
    fn id(&mut self) -> String {
        self.next_id += 1;
        self.creates += 1;
        format!("{:064x}", self.next_id)
    }

    /// The first free address of the podCIDR: neither network, gateway nor broadcast.
    fn address(&mut self) -> Result<Ipv4Addr> {
        let cidr = self.cidr.ok_or_else(|| Error::Refused("network coracle not found".to_owned()))?;
        let free = cidr.hosts().skip(1).find(|ip| !self.used.contains(ip));
        let ip = free.ok_or_else(|| Error::Refused(format!("no available addresses in {cidr}")))?;
        self.used.insert(ip);
        Ok(ip)
    }
}

/// What a command line does in a machine without programs.
#[derive(Debug, PartialEq, Eq)]
enum Behaviour {
    Run,
    Exit(i32),
    Sleep(Duration),
}

fn behaviour(command: &[String]) -> (Behaviour, String) {
    let words: Vec<&str> = match command {
        [shell, flag, script] if shell.ends_with("sh") && flag == "-c" => script.split_whitespace().collect(),
        _ => command.iter().map(String::as_str).collect(),
    };
    let line = format!("{}\n", words.join(" "));
    match words.as_slice() {
        ["true", ..] => (Behaviour::Exit(0), String::new()),
        ["false", ..] => (Behaviour::Exit(1), String::new()),
        ["exit", code] => (Behaviour::Exit(code.parse().unwrap_or(2)), String::new()),
        ["echo", rest @ ..] => (Behaviour::Exit(0), format!("{}\n", rest.join(" "))),
        ["sleep", seconds] if seconds.parse::<u32>().is_ok() => {
            (Behaviour::Sleep(Duration::from_secs(seconds.parse().unwrap_or_default())), String::new())
        }
        _ => (Behaviour::Run, line),
    }
}

#[async_trait::async_trait]
impl Runtime for Hollow {
    fn scheme(&self) -> &'static str {
        "hollow"
    }

    fn uses_files(&self) -> bool {
        self.shared.state.lock().files
    }

    async fn machine(&self) -> Result<Machine> {
        Ok(self.shared.machine.clone())
    }

    async fn ping(&self) -> Result<()> {
        let silent = self.shared.state.lock().silent;
        if silent { std::future::pending().await } else { Ok(()) }
    }

    async fn network(&self) -> Result<Option<Ipv4Net>> {
        Ok(self.shared.state.lock().cidr)
    }

    async fn ensure_network(&self, pod_cidr: Ipv4Net) -> Result<()> {
        self.shared.state.lock().cidr = Some(pod_cidr);
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<KnownPod>> {
        let state = self.shared.state.lock();
        let sandboxes = state.sandboxes.values().map(|(pod, s)| (pod, s.id.as_str(), s.running));
        let containers = state.containers.values().map(|e| (&e.pod, e.container.id.as_str(), e.container.is_running()));
        let mut pods: BTreeMap<&str, KnownPod> = BTreeMap::new();
        for (pod, id, running) in sandboxes.chain(containers) {
            let known = pods.entry(&pod.uid).or_insert_with(|| KnownPod { identity: pod.clone(), fingerprint: 0 });
            known.fingerprint ^= fingerprint(std::iter::once((id, running)));
        }
        Ok(pods.into_values().collect())
    }

    async fn pod_state(&self, uid: &str) -> Result<PodState> {
        let state = self.shared.state.lock();
        let sandboxes = state.sandboxes.values().rev().filter(|(pod, _)| pod.uid == uid).map(|(_, s)| s.clone());
        let containers = state.containers.values().rev().filter(|e| e.pod.uid == uid).map(|e| e.container.clone());
        Ok(PodState { sandboxes: sandboxes.collect(), containers: containers.collect() })
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        self.shared.crash.point().await;
        let made = self.shared.run_sandbox(spec);
        self.shared.crash.point().await;
        made
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String> {
        self.shared.crash.point().await;
        let id = self.shared.create_container(spec);
        self.shared.crash.point().await;
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.shared.crash.point().await;
        let started = self.shared.start_container(id);
        self.shared.crash.point().await;
        started
    }

    async fn update(&self, id: &str, _: &Resources, resources: &Resources) -> Result<()> {
        self.shared.crash.point().await;
        self.shared.running(id)?;
        if let Some(entry) = self.shared.state.lock().containers.get_mut(id) {
            entry.container.resources = *resources;
        }
        self.shared.crash.point().await;
        Ok(())
    }

    async fn terminate(&self, id: &str) -> Result<()> {
        self.shared.crash.point().await;
        if !self.shared.state.lock().stubborn {
            self.shared.finish(id, TERMINATED, false);
        }
        self.shared.crash.point().await;
        Ok(())
    }

    async fn kill(&self, id: &str) -> Result<()> {
        self.shared.crash.point().await;
        self.shared.finish(id, KILLED, false);
        self.shared.crash.point().await;
        Ok(())
    }

    async fn remove(&self, id: &str) -> Result<()> {
        self.shared.crash.point().await;
        self.shared.finish(id, KILLED, false);
        {
            let mut state = self.shared.state.lock();
            let container = state.containers.remove(id).map(|entry| entry.pod.uid);
            let sandbox = state.sandboxes.remove(id).map(|(pod, _)| pod.uid);
            drop(state);
            container.or(sandbox).iter().for_each(|uid| self.shared.tell(uid));
        }
        self.shared.crash.point().await;
        Ok(())
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let events = BroadcastStream::new(self.shared.events.subscribe());
        let events = events.map(|event| event.unwrap_or(Event::Relist));
        stream::once(async { Event::Relist }).chain(events).boxed()
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        let (text, started_at) = {
            let state = self.shared.state.lock();
            let entry = state.containers.get(id).ok_or_else(|| Error::NotFound(format!("no container {id}")))?;
            (entry.log.clone(), entry.container.started_at.unwrap_or(entry.container.created_at))
        };
        let lines: Vec<&str> = text.lines().collect();
        let skip =
            options.tail.map_or(0, |tail| lines.len().saturating_sub(usize::try_from(tail).unwrap_or(usize::MAX)));
        // Everything is written to standard output.
        let wanted = options.since.is_none_or(|since| started_at >= since) && options.only != Some(LogStream::Stderr);
        let lines = lines.into_iter().skip(skip).filter(|_| wanted).map(|line| match options.timestamps {
            true => format!("{started_at} {line}\n"),
            false => format!("{line}\n"),
        });
        let printed = stream::iter(lines.map(|line| Ok(Bytes::from(line))).collect::<Vec<_>>());
        if !options.follow {
            return Ok(printed.boxed());
        }
        let (shared, id) = (self.shared.clone(), id.to_owned());
        let ended = stream::once(async move { shared.ended(&id).await }).filter_map(async |()| None);
        Ok(printed.chain(ended).boxed())
    }

    async fn usage(&self) -> Result<Vec<ContainerUsage>> {
        let now = self.shared.clock.now();
        let state = self.shared.state.lock();
        let sandboxes = state.sandboxes.values().filter(|(_, sandbox)| sandbox.running);
        let sandboxes = sandboxes.map(|(pod, s)| usage::sandbox(pod, &s.id, s.created_at, now));
        let containers = state.containers.values().filter(|entry| entry.container.is_running());
        let containers = containers.map(|entry| usage::container(&entry.pod, &entry.container, now));
        Ok(sandboxes.chain(containers).collect())
    }

    async fn disks(&self) -> Result<BTreeMap<String, ContainerDisk>> {
        let state = self.shared.state.lock();
        let running = state.containers.iter().filter(|(_, entry)| entry.container.is_running());
        let disk = |entry: &Entry| ContainerDisk { root: 0, logs: entry.log.len() as u64 };
        Ok(running.map(|(id, entry)| (id.clone(), disk(entry))).collect())
    }

    async fn exec(&self, id: &str, command: &[String], wanted: Wanted) -> Result<Session> {
        self.shared.running(id)?;
        let files = self.shared.state.lock().containers.get(id).map(|e| e.files.clone()).unwrap_or_default();
        Ok(shell::start(command, wanted, files, self.shared.counted()))
    }

    async fn attach(&self, id: &str, wanted: Wanted) -> Result<Session> {
        self.shared.running(id)?;
        let (shared, id) = (self.shared.clone(), id.to_owned());
        Ok(shell::echo(wanted, self.shared.counted(), async move { shared.ended(&id).await }))
    }

    async fn dial(&self, host: &str, port: u16) -> std::io::Result<Connection> {
        if self.shared.state.lock().network {
            return Ok(Box::new(tokio::net::TcpStream::connect((host, port)).await?));
        }
        let refused = || Err(std::io::ErrorKind::ConnectionRefused.into());
        let Ok(IpAddr::V4(ip)) = host.parse() else { return refused() };
        let state = self.shared.state.lock();
        let mut live = state.sandboxes.values().filter(|(_, s)| s.running);
        let at = |s: &Sandbox| s.ip.map_or(!state.cidr.is_some_and(|c| c.contains(&ip)), |own| own == IpAddr::V4(ip));
        let Some((pod, _)) = live.find(|(_, s)| at(s)) else { return refused() };
        let answer = state.answers.get(&(pod.namespace.clone(), pod.name.clone())).copied();
        match answer.unwrap_or(Some(200)).filter(|_| port != CLOSED_PORT) {
            Some(status) => Ok(Box::new(web::serve(status, Arc::downgrade(&self.shared)))),
            None => refused(),
        }
    }

    async fn connect(&self, sandbox_id: &str, port: u16) -> Result<Connection> {
        let state = self.shared.state.lock();
        if !state.sandboxes.get(sandbox_id).is_some_and(|(_, sandbox)| sandbox.running) {
            return Err(Error::Conflict(format!("sandbox {sandbox_id} is not running")));
        }
        match port {
            CLOSED_PORT => Err(Error::Refused(format!("connect to port {port}: connection refused"))),
            _ => Ok(Box::new(shell::echo_connection(self.shared.counted()))),
        }
    }
}

impl Shared {
    fn counted(&self) -> shell::Counted {
        shell::Counted::new(&self.sessions)
    }

    fn running(&self, id: &str) -> Result<()> {
        match self.state.lock().containers.get(id) {
            Some(entry) if entry.container.is_running() => Ok(()),
            Some(_) => Err(Error::Conflict(format!("container {id} is not running"))),
            None => Err(Error::NotFound(format!("no container {id}"))),
        }
    }

    /// Waits until the container has ended or is gone.
    async fn ended(&self, id: &str) {
        let mut events = self.events.subscribe();
        loop {
            let running = self.state.lock().containers.get(id).is_some_and(|e| e.container.is_running());
            if !running || matches!(events.recv().await, Err(broadcast::error::RecvError::Closed)) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
