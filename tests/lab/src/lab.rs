//! A whole lab, and what a test starts with.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::kubectl::nothing_may_be_missing;

use crate::machine::Machine;
use crate::network::{Network, Topology, leave_the_machine};
use crate::sweep::Home;

/// What the program of this crate is called, which is also every daemon of the boxes.
const PROGRAM: &str = "coracle-lab";
/// Programs of the machine that a lab cannot do without.
const NEEDED: [&str; 7] = ["unshare", "nsenter", "ip", "nft", "dockerd", "docker", "tar"];
/// The names the daemons have on a box, in its `PATH`.
const DAEMONS: [&str; 3] = ["master", "minion", "kctl"];

/// A folder that every box has, for manifests of static pods.
pub const MANIFESTS: &str = "/etc/coracle/manifests";

/// What a lab shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many boxes: `box1` and so on.
    pub boxes: u8,
    /// How they are joined.
    pub topology: Topology,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan { boxes: 2, topology: Topology::OneSegment }
    }
}

/// Boxes and the network between them. All of it ends when this is dropped, or with the process.
pub struct Lab {
    /// The switch.
    pub network: Network,
    /// The boxes, on.
    pub boxes: Vec<Machine>,
    home: Home,
}

impl Lab {
    /// Starts the boxes, without any daemon. The thread must have left the machine's network.
    pub async fn start(plan: Plan) -> Result<Lab> {
        let home = Home::new()?;
        let mut network = Network::start(plan.topology).await?;
        let mut boxes = Vec::new();
        for number in 0..plan.boxes {
            let (name, place) = (format!("box{}", number + 1), network.place(number).await?);
            let machine = Machine::new(&name, place, home.path().join(&name))?;
            boxes.push(machine);
        }
        let mut lab = Lab { network, boxes, home };
        for number in 0..lab.boxes.len() {
            lab.furnish(number).await?;
            lab.boxes[number].power_on(&mut lab.network).await?;
        }
        Ok(lab)
    }

    /// Puts on a box what every box has: the daemons' programs, and names for the others.
    async fn furnish(&self, number: usize) -> Result<()> {
        let machine = &self.boxes[number];
        let names: String = self.boxes.iter().map(|other| format!("{} {}\n", other.address(), other.name())).collect();
        machine.write("/etc/hosts", &format!("127.0.0.1 localhost\n{names}")).await?;
        machine.write("/etc/hostname", &format!("{}\n", machine.name())).await?;
        // Nobody answers there unless the test does; who asks hears so at once.
        machine.write("/etc/resolv.conf", &format!("nameserver {}\n", machine.gateway())).await?;
        std::fs::create_dir_all(machine.file(MANIFESTS))?;
        let programs = machine.file("/usr/local/bin");
        std::fs::create_dir_all(&programs)?;
        for daemon in DAEMONS {
            std::os::unix::fs::symlink(program()?, programs.join(daemon))?;
        }
        Ok(())
    }

    /// Starts the Docker Engines of all boxes.
    pub async fn start_dockers(&mut self) -> Result<()> {
        futures::future::try_join_all(self.boxes.iter_mut().map(Machine::start_docker)).await.map(drop)
    }

    /// The box with this number, from 1 as in its name.
    pub fn machine(&mut self, number: usize) -> &mut Machine {
        &mut self.boxes[number - 1]
    }

    /// Pulls the cable of a box.
    pub async fn cut(&self, number: usize) -> Result<()> {
        self.network.cut(self.boxes[number - 1].port()?).await
    }

    /// Puts it back.
    pub async fn mend(&self, number: usize) -> Result<()> {
        self.network.mend(self.boxes[number - 1].port()?).await
    }

    /// Switches a box off as if its power failed.
    pub async fn power_off(&mut self, number: usize) -> Result<()> {
        self.boxes[number - 1].power_off().await
    }

    /// Switches it on again; no daemon runs on it.
    pub async fn power_on(&mut self, number: usize) -> Result<()> {
        self.boxes[number - 1].power_on(&mut self.network).await
    }

    /// The lab's folder.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Ends all of it, and says when that fails.
    pub async fn stop(mut self) -> Result<()> {
        for machine in &mut self.boxes {
            machine.power_off().await?;
        }
        Ok(())
    }
}

/// Runs a test on a thread that is a host of its own on the lab's network. Where no lab can be, it says why and does
/// nothing; in CI that is a failure.
#[allow(clippy::print_stderr)] // A test that cannot run says so.
pub fn test<F>(body: impl FnOnce() -> F + Send + 'static) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    if let Err(reason) = possible() {
        ensure!(!nothing_may_be_missing(), "CI needs a lab: {reason:#}");
        eprintln!("skipped: {reason:#}");
        return Ok(());
    }
    // One lab at a time is enough for a machine, whatever runs the tests.
    let lock = std::env::temp_dir().join("coracle-lab-test.lock");
    let alone = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(lock)?;
    alone.lock()?;
    let thread = std::thread::spawn(move || {
        leave_the_machine()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(body())
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Why there can be no lab here.
pub fn possible() -> Result<()> {
    ensure!(nix::unistd::Uid::effective().is_root(), "not root");
    for program in NEEDED {
        let there = Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?;
        ensure!(there.status.success(), "{program} is not installed");
    }
    let kinds = std::fs::read_to_string("/proc/filesystems")?;
    ensure!(kinds.lines().any(|kind| kind.ends_with("overlay")), "the kernel has no overlay file system");
    program().map(drop)
}

/// The program of this crate: this one, or the one that lies above its tests.
pub(crate) fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program is in a folder")?;
    let folders = [Some(folder), folder.parent()];
    let found = folders.into_iter().flatten().map(|folder| folder.join(PROGRAM)).find(|path| path.is_file());
    found.with_context(|| format!("{PROGRAM} is not built: cargo build -p lab"))
}
