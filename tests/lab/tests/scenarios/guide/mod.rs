//! `docs/two-boxes.md` followed word for word: what it says is typed on two boxes that have nothing of Coracle, in its
//! order, with their addresses in the places the page names; and what it says is printed is printed.

mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use harness::packages;
use harness::wait::PATIENCE;
use lab::{Lab, Machine, Plan, systemctl};

use crate::common::roomy;
use page::{Item, Step};

/// Commands that are not typed: how they begin, and why.
const NOT_TYPED: [(&str, &str); 4] = [
    ("apt-get install -y docker.io", "a box of the lab has its engine, and no way to a distribution's packages"),
    ("master export-keys", "the first of several masters, when the page has removed the only one; master's own tests"),
    ("scp -p /root/keys", "a box of the lab has no server for it"),
    ("master import-keys", "the second of several masters, which needs an etcd; master's own tests, members.rs"),
];
/// Blocks that are neither typed nor written: how they begin, and where they are shown.
const ELSEWHERE: [(&str, &str); 3] = [
    ("Error: the interface by which", "a box of the lab has one address; minion's own tests"),
    ("master --data-dir", "several masters need an etcd of three: members.rs"),
    ("master --components", "a master in parts is shown by master's own tests"),
];
/// Where the reader stands on each box, with `dist` and `deploy`.
const FOLDER: &str = "/opt/coracle";
/// Programs the lab itself puts on a box, which here come in packages.
const OURS: [&str; 3] = ["master", "minion", "kctl"];

/// What must be as it was when all is uninstalled, but for what is the distribution's or the user's: the latter are images.
const STATE: &str = "docker ps -aq; docker network ls --format '{{.Name}}' | sort; docker images | grep pause; \
                     nft list ruleset | grep -i coracle; ip -o link | cut -d' ' -f2 | cut -d@ -f1 | grep -v veth | sort; \
                     ip route | sort; ip route show table all proto 119; cut -d' ' -f5 /proc/self/mountinfo | grep -v /netns | sort; \
                     getent passwd coracle; ls -d /etc/coracle/* /var/lib/coracle* /var/log/coracle; \
                     for exe in /proc/[0-9]*/exe; do readlink $exe; done | grep -E '/usr/bin/(master|minion|kctl)'; true";

/// What the page has told to UFW.
const UFW: &str = r####"#!/bin/sh
set -e
case "$*" in
reload) ;;
"allow "*/tcp)
    port=${2%/tcp}
    iptables -A ufw-user-input -p tcp --dport "$port" -j ACCEPT
    echo "### tuple ### allow tcp $port 0.0.0.0/0 any 0.0.0.0/0 in" >>/etc/ufw/user.rules
    echo "Rule added"
    ;;
*) exit 1 ;;
esac
"####;

#[test]
fn two_boxes_md_is_followed_word_for_word() -> Result<()> {
    lab::lab::test(async || {
        let path = packages::repository()?.join("docs/two-boxes.md");
        let page = std::fs::read_to_string(&path)?;
        let made = tempfile::tempdir()?;
        packages::programs(Path::new(env!("CARGO_BIN_EXE_coracle-lab")), made.path())?;
        let packages = packages::make(made.path(), "0.1.0")?;
        let mut lab = Lab::start(Plan::default()).await?;
        for machine in &lab.boxes {
            roomy(machine).await?;
            furnish(machine, &packages).await?;
        }
        lab.start_dockers().await?;
        let mut reader = Reader::new(lab, &page)?;
        let before = reader.states().await?;
        for item in page::items(&page)? {
            let shown = format!("{item:?}");
            reader.follow(item).await.with_context(|| shown)?;
        }
        reader.has_left_nothing(&before).await?;
        reader.lab.stop().await
    })
}

/// What a box has when the page begins: `dist` and `deploy` were copied there, and `systemctl` works.
async fn furnish(machine: &Machine, packages: &Path) -> Result<()> {
    let deploy = packages::repository()?.join("deploy");
    let script = format!(
        "mkdir -p {FOLDER}/dist && cp -a {} {FOLDER}/deploy && mount --bind {} {FOLDER}/dist && \
         mkdir -p /run/systemd/system && ln -s $(readlink -f /usr/local/bin/master) /usr/local/bin/{}",
        deploy.display(),
        packages.display(),
        systemctl::NAME
    );
    machine.run(&["sh", "-c", &script]).await?;
    for program in OURS {
        machine.run(&["rm", &format!("/usr/local/bin/{program}")]).await?;
    }
    Ok(())
}

/// Who follows the page.
struct Reader {
    lab: Lab,
    /// What stands in the page, and what it is here.
    own: BTreeMap<String, String>,
    /// The containers when the page had them remembered.
    containers: Vec<String>,
    not_typed: BTreeSet<&'static str>,
    elsewhere: usize,
}

impl Reader {
    fn new(lab: Lab, page: &str) -> Result<Reader> {
        let mut own = BTreeMap::new();
        for name in page::replaced(page) {
            let here = match name.as_str() {
                "box1" | "box2" => name.clone(),
                "192.168.0.93" => lab.boxes[0].address().to_string(),
                "192.168.0.94" => lab.boxes[1].address().to_string(),
                // Whatever it is, until it is printed.
                "TOKEN" => "...".to_owned(),
                other => bail!("the page has its reader replace {other}, and this one does not know by what"),
            };
            own.insert(name, here);
        }
        ensure!(own.len() == 5, "the page names what to replace: {own:?}");
        Ok(Reader { lab, own, containers: Vec::new(), not_typed: BTreeSet::new(), elsewhere: 0 })
    }

    /// The page's words with what is here.
    fn here(&self, text: &str) -> String {
        self.own.iter().fold(text.to_owned(), |text, (there, here)| text.replace(there, here))
    }

    async fn follow(&mut self, item: Item) -> Result<()> {
        match item {
            Item::Step(step) => {
                if let Some((begin, _)) = NOT_TYPED.iter().find(|(begin, _)| step.command.starts_with(begin)) {
                    self.not_typed.insert(begin);
                    return Ok(());
                }
                let prints = step.prints.iter().map(|line| self.here(line)).collect();
                let step = Step { command: self.here(&step.command), prints, ..step };
                if step.until_seen { self.watch(&step).await } else { self.type_in(&step).await }
            }
            Item::File { number, path, text } => self.lab.boxes[number - 1].write(&path, &self.here(&text)).await,
            Item::Remark(remark) => self.look(&remark).await,
            Item::Shown(block) => {
                let known = ELSEWHERE.iter().any(|(begin, _)| block.starts_with(begin));
                ensure!(known, "a block that nobody follows");
                self.elsewhere += 1;
                Ok(())
            }
        }
    }

    /// Types a command, in a shell that knows what was exported before.
    async fn type_in(&mut self, step: &Step) -> Result<()> {
        let script = format!(
            "{}\n{{\n{}\n}} 2>&1 </dev/null\nstatus=$?; export -p >{FOLDER}/.typed; printf '\\n%s\\n' $status",
            session(),
            step.command
        );
        let printed = self.lab.boxes[step.number - 1].run(&["bash", "-c", &script]).await?;
        let (text, status) = printed.rsplit_once('\n').context("a status")?;
        let text = plain(text);
        let lines: Vec<&str> = text.lines().collect();
        ensure!((status != "0") == step.fails(), "it ends with {status}: {text}");
        let lines = &lines[..lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1)];
        ensure!(step.prints.is_empty() || page::are(&step.prints, lines), "it prints otherwise: {text}");
        if let Some((_, rest)) = text.split_once("--token ") {
            let token = rest.split_whitespace().next().unwrap_or_default().to_owned();
            self.own.insert("TOKEN".to_owned(), token);
        }
        Ok(())
    }

    /// Types a command that goes on, and ends it when all has been seen, in whatever order.
    async fn watch(&mut self, step: &Step) -> Result<()> {
        let machine = self.lab.machine(step.number);
        let script = format!("{}\nexec {} </dev/null", session(), step.command);
        let typed = machine.start("typed", &["bash", "-c", &script]).await?;
        let seen = |text: &str| {
            let all = step.prints.iter().all(|said| text.lines().any(|line| page::is(said, line)));
            all.then_some(())
        };
        typed.until("what the page says", PATIENCE, seen).await?;
        machine.kill("typed").await
    }

    async fn look(&mut self, remark: &str) -> Result<()> {
        match remark {
            "ufw on box2" => firewall(&self.lab.boxes[1]).await,
            "remember the containers" => {
                self.containers = self.containers().await?;
                ensure!(self.containers.len() >= 6, "three pods are six containers: {:?}", self.containers);
                Ok(())
            }
            "the same containers" => {
                let now = self.containers().await?;
                ensure!(now == self.containers, "others than {:?}: {now:?}", self.containers);
                Ok(())
            }
            other => bail!("this test knows nothing of {other:?}"),
        }
    }

    /// The containers that run on all boxes, each with the time of its start.
    async fn containers(&self) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for machine in &self.lab.boxes {
            let line = "docker ps -q | xargs -r docker inspect -f '{{.Id}} {{.State.StartedAt}}' | sort";
            found.extend(machine.run(&["sh", "-c", line]).await?.lines().map(str::to_owned));
        }
        Ok(found)
    }

    async fn states(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for machine in &self.lab.boxes {
            all.push(machine.run(&["sh", "-c", &format!("({STATE}) 2>/dev/null")]).await?);
        }
        Ok(all)
    }

    /// After the page's last word both boxes are as before its first.
    async fn has_left_nothing(&self, before: &[String]) -> Result<()> {
        ensure!(
            self.not_typed.len() == NOT_TYPED.len() && self.elsewhere == ELSEWHERE.len(),
            "an exception has no case"
        );
        for (number, (before, after)) in before.iter().zip(self.states().await?).enumerate() {
            // Not purged, box2 keeps what it was told.
            let kept = |line: &&str| number == 1 && *line == "/etc/coracle/minion.yaml";
            let after: Vec<&str> = after.lines().filter(|line| !kept(line)).collect();
            ensure!(after == before.lines().collect::<Vec<_>>(), "box{}: {before}\nand now {after:#?}", number + 1);
        }
        Ok(())
    }
}

/// Where the reader is, and what he has exported. What a test is told of backtraces is not his.
fn session() -> String {
    format!("unset RUST_BACKTRACE; cd {FOLDER}; [ ! -e .typed ] || . ./.typed")
}

/// Without what a terminal makes bold.
fn plain(text: &str) -> String {
    text.replace("\x1b[1m", "").replace("\x1b[0m", "")
}

/// UFW as Ubuntu installs it, switched on: its files, its chains, which let in answers and what the box says to itself, and
/// what it is told.
async fn firewall(machine: &Machine) -> Result<()> {
    let defaults = "#\n".repeat(17) + "DEFAULT_INPUT_POLICY=\"DROP\"\nDEFAULT_FORWARD_POLICY=\"DROP\"\n";
    machine.write("/etc/default/ufw", &defaults).await?;
    machine.write("/etc/ufw/ufw.conf", "ENABLED=yes\n").await?;
    machine.write("/etc/ufw/user.rules", "*filter\n").await?;
    machine.write("/usr/local/bin/ufw", UFW).await?;
    let chains = "iptables -N ufw-before-input && iptables -N ufw-user-input && iptables -A ufw-before-input -i lo -j ACCEPT && \
                  iptables -A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT && \
                  iptables -A INPUT -j ufw-before-input && iptables -A INPUT -j ufw-user-input && iptables -P INPUT DROP";
    machine.run(&["sh", "-c", &format!("chmod +x /usr/local/bin/ufw && {chains}")]).await.map(drop)
}
