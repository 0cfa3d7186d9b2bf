//! `docs/two-boxes.md` as what a reader types, and what he is told he will see.

use anyhow::{Context, Result, bail};

/// How the page begins what only its test reads.
const REMARK: &str = "<!-- test: ";
/// What stands in the page for whatever differs from box to box.
const ANYTHING: &str = "...";
/// How a reader ends a command that goes on: it has shown what it should.
const ENOUGH: &str = "^C";

/// What the page has its reader do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Type this.
    Step(Step),
    /// Write this file of a box.
    File { number: usize, path: String, text: String },
    /// What the reader sees anyway, and the test looks at or brings about.
    Remark(String),
    /// A block that is neither: shown, not followed.
    Shown(String),
}

/// A command typed on a box.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) number: usize,
    pub(crate) command: String,
    /// What it prints; nothing is said where this is empty.
    pub(crate) prints: Vec<String>,
    /// It goes on until the reader has seen that.
    pub(crate) until_seen: bool,
}

impl Step {
    /// Whether the page says that it fails.
    pub(crate) fn fails(&self) -> bool {
        self.prints.last().is_some_and(|line| line.to_lowercase().starts_with("error:"))
    }
}

/// Everything the page has one do, in its order.
pub(crate) fn items(page: &str) -> Result<Vec<Item>> {
    let (mut items, mut remark) = (Vec::new(), None);
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(said) = line.strip_prefix(REMARK) {
            let said = said.strip_suffix(" -->").context("a remark ends in its line")?.to_owned();
            if said.starts_with("file ") {
                remark = Some(said);
            } else {
                items.push(Item::Remark(said));
            }
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
        match (language, remark.take()) {
            ("console", None) => items.extend(steps(&block)?.into_iter().map(Item::Step)),
            (_, None) => items.push(Item::Shown(block.join("\n"))),
            (_, Some(file)) => {
                let (path, name) = file["file ".len()..].split_once(" on ").context("file PATH on BOX")?;
                let (number, path) = (number(name).context("a file is on a box")?, path.to_owned());
                items.push(Item::File { number, path, text: block.join("\n") + "\n" });
            }
        }
    }
    Ok(items)
}

fn steps(block: &[&str]) -> Result<Vec<Step>> {
    let mut steps: Vec<Step> = Vec::new();
    for line in block {
        let typed = line.split_once("# ").and_then(|(name, command)| Some((number(name)?, command)));
        match (typed, steps.last_mut()) {
            (Some((number, command)), _) => {
                steps.push(Step { number, command: command.to_owned(), ..Step::default() });
            }
            (None, Some(step)) if *line == ENOUGH => step.until_seen = true,
            (None, Some(step)) => step.prints.push((*line).to_owned()),
            (None, None) => bail!("a block begins with a command: {line}"),
        }
    }
    Ok(steps)
}

/// The number in the name of a box.
fn number(name: &str) -> Option<usize> {
    name.strip_prefix("box")?.parse().ok()
}

/// What the first column of the page's first table names: what a reader replaces by his own.
pub(crate) fn replaced(page: &str) -> Vec<String> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let cells = rows.take_while(|line| line.starts_with('|')).filter_map(|row| row.split('|').nth(1));
    let words = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned));
    words.collect()
}

/// Whether a line is what the page says it is. How wide columns are depends on what is in them.
pub(crate) fn is(said: &str, line: &str) -> bool {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let (said, line) = (flat(said), flat(line));
    let Some((begin, rest)) = said.split_once(ANYTHING) else { return said == line };
    let Some(mut line) = line.strip_prefix(begin) else { return false };
    let mut parts: Vec<&str> = rest.split(ANYTHING).collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = line.find(part) else { return false };
        line = &line[at + part.len()..];
    }
    line.ends_with(end)
}

/// Whether lines are what the page says they are, those it leaves out in their places.
pub(crate) fn are(said: &[String], lines: &[&str]) -> bool {
    match said.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == ANYTHING => (0..=lines.len()).any(|skipped| are(rest, &lines[skipped..])),
        Some((first, rest)) => lines.split_first().is_some_and(|(line, lines)| is(first, line) && are(rest, lines)),
    }
}

#[test]
fn lines_are_compared_but_for_what_the_page_leaves_out() {
    for (said, line, same) in [
        ("web   3  ...", "web 3 12s", true),
        ("web   3  ...", "web 2 12s", false),
        ("built ... from BusyBox ...", "built x from BusyBox v1.35", true),
        ("a ... c", "a b c d", false),
        ("...", "", true),
        ("plain", "plain but", false),
    ] {
        assert_eq!(is(said, line), same, "{said:?} {line:?}");
    }
    let said = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    for (page, lines, same) in [
        ("a\n...\nc", &["a", "b", "b", "c"][..], true),
        ("a\n...\nc", &["a", "c"], true),
        ("a\n...\nc", &["a", "c", "d"], false),
        ("a\nc", &["a", "b", "c"], false),
        ("...\nc\n...", &["a", "c", "d"], true),
        ("a", &[], false),
    ] {
        assert_eq!(are(&said(page), lines), same, "{page:?} {lines:?}");
    }
}

#[test]
fn a_page_is_read_in_its_order() {
    let page = "| here | is |\n| --- | --- |\n| `box1`, `x` | y `z` |\n\ntext `code`\n<!-- test: look -->\n```console\nbox1# a # b\nout\n\
                box2# c -w\nd\n^C\n```\n<!-- test: file /etc/x on box2 -->\n```yaml\nk: v\n```\n```\nshown\n```\n";
    let step = |number, command: &str, prints: &str, until_seen| {
        Item::Step(Step { number, command: command.into(), prints: vec![prints.into()], until_seen })
    };
    let expected = [
        Item::Remark("look".into()),
        step(1, "a # b", "out", false),
        step(2, "c -w", "d", true),
        Item::File { number: 2, path: "/etc/x".into(), text: "k: v\n".into() },
        Item::Shown("shown".into()),
    ];
    assert_eq!(items(page).unwrap(), expected);
    assert_eq!(replaced(page), ["box1", "x"]);
}
