//! `make lab`: a cluster of two boxes to play with, until `make lab-down`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::{Cluster, Settings};
use crate::lab::{Plan, possible};
use crate::network::{Topology, leave_the_machine};

/// The file that is locked while the lab lives; it holds the number of the process that holds it.
const ALIVE: &str = "alive";
/// The admin's kubeconfig.
const KUBECONFIG: &str = "kubeconfig";
/// What the process that holds the lab says last.
const RUNS: &str = "the lab runs";

/// Boxes on this machine, each with a Docker Engine of its own, and a cluster on them.
#[derive(Debug, Parser)]
#[command(name = "coracle-lab")]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Starts the lab and leaves it running
    Up(Wanted),
    /// Ends the lab
    Down(Place),
    /// Runs a command on a box (default: a shell)
    On {
        #[command(flatten)]
        place: Place,
        /// box1, box2, ...
        machine: String,
        /// The command
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Holds the lab until it is told to end
    #[command(hide = true)]
    Hold(Wanted),
    /// Is the first process of a box
    #[command(hide = true)]
    Init { home: PathBuf, name: String },
}

/// Where the lab is known.
#[derive(Clone, Debug, clap::Args)]
struct Place {
    /// Where the lab's kubeconfig is put
    #[arg(long, value_name = "DIR", default_value = ".lab", env = "LAB_DIR")]
    dir: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
struct Wanted {
    #[command(flatten)]
    place: Place,
    /// How many boxes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=9))]
    boxes: u8,
    /// Put a router between the boxes, and let pods find each other with --overlay
    #[arg(long)]
    routed: bool,
}

/// Does what was asked for.
pub fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Up(wanted) => up(&wanted),
        Verb::Down(place) => down(&place.dir),
        Verb::On { place, machine, command } => on(&place.dir, &machine, &command),
        Verb::Hold(wanted) => hold(&wanted),
        Verb::Init { home, name } => crate::init::run(&home, &name),
    }
}

#[allow(clippy::print_stdout)]
fn up(wanted: &Wanted) -> Result<()> {
    possible()?;
    let dir = &wanted.place.dir;
    std::fs::create_dir_all(dir)?;
    let ours = dir.join(ALIVE).exists() || std::fs::read_dir(dir)?.next().is_none();
    ensure!(ours, "{} is not empty, and lab-down would delete it", dir.display());
    let mut line = vec!["hold".to_owned(), "--dir".to_owned(), dir.display().to_string()];
    line.extend(["--boxes".to_owned(), wanted.boxes.to_string()]);
    line.extend(wanted.routed.then(|| "--routed".to_owned()));
    // In its own session: it outlives this process and the terminal.
    let mut command = Command::new("setsid");
    command.arg(std::env::current_exe()?).args(line).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut holder = command.stderr(File::create(dir.join("log"))?).spawn()?;
    for line in BufReader::new(holder.stdout.take().context("it is piped")?).lines() {
        let line = line?;
        println!("{line}");
        if line == RUNS {
            return welcome(dir);
        }
    }
    bail!("the lab does not start: {}", std::fs::read_to_string(dir.join("log"))?)
}

#[allow(clippy::print_stdout)]
fn welcome(dir: &Path) -> Result<()> {
    let (program, dir) = (std::env::current_exe()?, dir.canonicalize()?);
    let (program, shown) = (program.display(), dir.display());
    println!(
        "\nUse it:\n  export KUBECONFIG={shown}/{KUBECONFIG}\n  kubectl get nodes -o wide\n  \
         {program} on --dir {shown} box2            (a shell on a box)\n  \
         {program} on --dir {shown} box2 docker ps\n\
         End it, leaving nothing behind:\n  make lab-down"
    );
    Ok(())
}

fn down(dir: &Path) -> Result<()> {
    let path = dir.join(ALIVE);
    let Ok(alive) = File::open(&path) else { return Ok(()) };
    if alive.try_lock().is_err() {
        let holder = std::fs::read_to_string(&path)?.trim().parse().context("the holder's process number")?;
        match kill(Pid::from_raw(holder), Signal::SIGTERM) {
            // It has just ended by itself.
            Err(Errno::ESRCH) => {}
            told => told?,
        }
        alive.lock()?;
    }
    std::fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    // One that was killed could not clean up.
    let left = crate::sweep::dead_labs()?;
    ensure!(left.is_empty(), "not everything could be removed yet: {left:?}; the next lab tries again");
    Ok(())
}

fn on(dir: &Path, machine: &str, command: &[String]) -> Result<()> {
    let known = std::fs::read_to_string(dir.join(machine)).with_context(|| format!("no {machine} in this lab"))?;
    let shell = ["bash".to_owned()];
    let command = if command.is_empty() { &shell } else { command };
    let mut words = known.split_whitespace();
    let error = Command::new(words.next().context("a command")?).args(words).args(command).exec();
    Err(error).context("nsenter")
}

fn hold(wanted: &Wanted) -> Result<()> {
    let dir = wanted.place.dir.canonicalize()?;
    let mut alive = File::options().create(true).append(true).open(dir.join(ALIVE))?;
    ensure!(alive.try_lock().is_ok(), "a lab runs already");
    alive.set_len(0)?;
    std::io::Write::write_all(&mut alive, std::process::id().to_string().as_bytes())?;
    let wanted = wanted.clone();
    // This thread stays in the machine's network, so that a cable can be laid there.
    let thread = std::thread::spawn(move || {
        leave_the_machine()?;
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(keep(&wanted, &dir))
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

#[allow(clippy::print_stdout)]
async fn keep(wanted: &Wanted, dir: &Path) -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    println!("starting {} boxes with a Docker Engine each, a master on box1, a minion on every box", wanted.boxes);
    let topology = if wanted.routed { Topology::Routed } else { Topology::OneSegment };
    let minion = if wanted.routed { vec!["--overlay".to_owned()] } else { Vec::new() };
    let settings = Settings { plan: Plan { boxes: wanted.boxes, topology }, minion, ..Settings::default() };
    let start = async {
        let mut cluster = Cluster::start(settings).await?;
        cluster.lab.network.open_to_machine(i32::try_from(std::process::id())?).await?;
        std::fs::copy(cluster.kubeconfig(), dir.join(KUBECONFIG))?;
        for machine in &cluster.lab.boxes {
            std::fs::write(dir.join(machine.name()), machine.enter()?.join(" "))?;
            println!("{} {}: files in {}", machine.name(), machine.address(), machine.file("").display());
        }
        anyhow::Ok(cluster)
    };
    let cluster = tokio::select! {
        started = start => started?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    println!("{RUNS}");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    cluster.stop().await
}
