//! The text of a kubelet's `metrics/resource`, and what was used between two of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::kinds::metrics;
use api::quantity::{Format, Quantity};
use jiff::Timestamp;

/// What was measured at one moment, for the node and each of its containers.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Scrape {
    node: Point,
    /// By namespace and pod, then by container.
    pods: HashMap<(String, String), BTreeMap<String, Point>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Point {
    at: Option<Timestamp>,
    cpu_seconds: Option<f64>,
    memory: Option<f64>,
    started: Option<f64>,
}

/// Two moments of one node.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) before: Arc<Scrape>,
    pub(super) now: Arc<Scrape>,
}

/// What was used over a window that ends at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Usage {
    pub(super) at: Timestamp,
    window_millis: i64,
    nano_cores: i64,
    memory: i64,
}

impl Scrape {
    /// Reads what is known of the text and skips the rest.
    pub(super) fn parse(text: &str) -> Scrape {
        let mut scrape = Scrape::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some(sample) = Sample::parse(line) else { continue };
            let Some((point, what)) = scrape.place(&sample) else { continue };
            match what {
                "cpu_usage_seconds_total" => {
                    point.cpu_seconds = Some(sample.value);
                    point.at = sample.at.or(point.at);
                }
                "memory_working_set_bytes" => point.memory = Some(sample.value),
                "start_time_seconds" => point.started = Some(sample.value),
                _ => {}
            }
        }
        scrape
    }

    fn place<'a>(&mut self, sample: &Sample<'a>) -> Option<(&mut Point, &'a str)> {
        if let Some(what) = sample.name.strip_prefix("node_") {
            return Some((&mut self.node, what));
        }
        let what = sample.name.strip_prefix("container_")?;
        let [container, namespace, pod] = ["container", "namespace", "pod"].map(|label| sample.labels.get(label));
        let pod = self.pods.entry((namespace?.clone(), pod?.clone())).or_default();
        Some((pod.entry(container?.clone()).or_default(), what))
    }
}

impl Pair {
    /// What the node used.
    pub(super) fn node(&self) -> Option<Usage> {
        usage(Some(&self.before.node), &self.now.node)
    }

    /// What each container of the pod used; `None` unless that is known of all that run.
    pub(super) fn pod(&self, namespace: &str, name: &str) -> Option<Vec<(String, Usage)>> {
        let key = (namespace.to_owned(), name.to_owned());
        let (before, now) = (self.before.pods.get(&key), self.now.pods.get(&key)?);
        let of = |(container, point): (&String, &Point)| {
            let earlier = before.and_then(|before| before.get(container));
            Some((container.clone(), usage(earlier, point)?))
        };
        now.iter().map(of).collect()
    }
}

/// What was used between two points of one counter. A container that was started in between counted from zero then.
fn usage(before: Option<&Point>, now: &Point) -> Option<Usage> {
    let at = now.at?;
    let same = before.filter(|before| before.started == now.started);
    let (from_millis, from_seconds) = match same {
        Some(before) => (before.at?.as_millisecond(), before.cpu_seconds?),
        None => ((now.started? * 1e3) as i64, 0.0),
    };
    let window_millis = at.as_millisecond().checked_sub(from_millis).filter(|window| *window > 0)?;
    let busy = now.cpu_seconds? - from_seconds;
    if busy < 0.0 {
        return None;
    }
    let nano_cores = (busy * 1e12 / window_millis as f64).round() as i64;
    Some(Usage { at, window_millis, nano_cores, memory: now.memory? as i64 })
}

impl Usage {
    /// `15.062s`, as Go prints a duration below a minute, or `1m2s`.
    pub(super) fn window(&self) -> String {
        let (minutes, millis) = (self.window_millis / 60_000, self.window_millis % 60_000);
        let seconds = millis as f64 / 1e3;
        match (minutes, self.window_millis) {
            (0, ..1000) => format!("{}ms", self.window_millis),
            (0, _) => format!("{seconds}s"),
            (..60, _) => format!("{minutes}m{seconds}s"),
            _ => format!("{}h{}m{seconds}s", minutes / 60, minutes % 60),
        }
    }

    /// Processor and memory, as metrics-server writes them.
    pub(super) fn amounts(&self) -> metrics::Usage {
        let cpu = format!("{}n", self.nano_cores).parse().unwrap_or(Quantity::ZERO);
        let memory = Quantity::from_units(self.memory, Format::BinarySi);
        [("cpu".to_owned(), cpu.to_api()), ("memory".to_owned(), memory.to_api())].into()
    }
}

/// A line: `name{label="value",...} value [millis]`.
#[derive(Debug, PartialEq)]
struct Sample<'a> {
    name: &'a str,
    labels: BTreeMap<&'a str, String>,
    value: f64,
    at: Option<Timestamp>,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Sample<'a>> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest),
        };
        let mut words = rest.split_ascii_whitespace();
        let value = words.next()?.parse().ok()?;
        let at = words.next().and_then(|millis| Timestamp::from_millisecond(millis.parse().ok()?).ok());
        Some(Sample { name, labels, value, at })
    }
}

/// Labels up to the closing brace, and what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<&str, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquote(quoted)?;
        labels.insert(name, value);
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            _ => value.push(character),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(millis: i64, node: f64, c: f64, started: f64) -> String {
        format!(
            "# HELP container_cpu_usage_seconds_total x\n# TYPE container_cpu_usage_seconds_total counter\n\
             container_cpu_usage_seconds_total{{container=\"c\",namespace=\"ns\",pod=\"web\"}} {c} {millis}\n\
             container_memory_working_set_bytes{{container=\"c\",namespace=\"ns\",pod=\"web\"}} 1.048576e+06 {millis}\n\
             container_start_time_seconds{{container=\"c\",namespace=\"ns\",pod=\"web\"}} {started}\n\
             node_cpu_usage_seconds_total {node} {millis}\nnode_memory_working_set_bytes 2097152 {millis}\n\
             pod_cpu_usage_seconds_total{{namespace=\"ns\",pod=\"web\"}} 99 {millis}\nresource_scrape_error 0\n"
        )
    }

    fn pair(before: &str, now: &str) -> Pair {
        Pair { before: Arc::new(Scrape::parse(before)), now: Arc::new(Scrape::parse(now)) }
    }

    fn shown(usage: &Usage) -> (String, String, String) {
        let amounts = usage.amounts();
        (amounts["cpu"].0.clone(), amounts["memory"].0.clone(), usage.window())
    }

    #[test]
    fn usage_is_what_was_counted_between_two_moments() {
        let pair = pair(&text(10_000, 5.0, 1.0, 2.0), &text(25_000, 20.0, 1.15, 2.0));
        assert_eq!(shown(&pair.node().unwrap()), ("1".into(), "2Mi".into(), "15s".into()));
        let containers = pair.pod("ns", "web").unwrap();
        assert_eq!(containers[0].0, "c");
        assert_eq!(shown(&containers[0].1), ("10m".into(), "1Mi".into(), "15s".into()));
        assert_eq!(pair.pod("ns", "other"), None);
    }

    #[test]
    fn counters_that_began_anew_count_from_their_start() {
        let before = text(10_000, 5.0, 100.0, 2.0);
        let restarted = pair(&before, &text(25_000, 20.0, 0.5, 20.0));
        assert_eq!(shown(&restarted.pod("ns", "web").unwrap()[0].1), ("100m".into(), "1Mi".into(), "5s".into()));
        let new = pair("", &text(25_000, 20.0, 0.5, 24.5));
        assert_eq!(shown(&new.pod("ns", "web").unwrap()[0].1), ("1".into(), "1Mi".into(), "500ms".into()));
        assert_eq!(new.node(), None, "a node is not known by when it started");
        let backwards = pair(&before, &text(25_000, 4.0, 99.0, 2.0));
        assert_eq!((backwards.node(), backwards.pod("ns", "web")), (None, None));
        let standing = pair(&before, &before);
        assert_eq!(standing.node(), None);
    }

    #[test]
    fn lines_are_read_with_their_escapes_and_bad_ones_skipped() {
        let sample = Sample::parse(r#"m{a="x\"y\\z\n",b=""} 1.5e3 7"#).unwrap();
        assert_eq!((sample.labels["a"].as_str(), sample.labels["b"].as_str(), sample.value), ("x\"y\\z\n", "", 1500.0));
        assert_eq!(sample.at, Timestamp::from_millisecond(7).ok());
        for line in ["", "m", "m{a=\"x", "m{a} 1", "m x", "m{a=\"b\"}"] {
            assert_eq!(Sample::parse(line), None, "{line}");
        }
    }
}
