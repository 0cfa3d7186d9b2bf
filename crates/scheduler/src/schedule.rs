//! The decision: one pod, one picture of the cluster, one answer. No client, no clock, dice only as an argument.

use std::collections::HashMap;
use std::fmt;

use rand::{Rng, RngExt};

use crate::filter::{self, Reason};
use crate::node::{NodeInfo, NodeName};
use crate::pod::PodInfo;
use crate::score::{self, Scores};
use crate::snapshot::Snapshot;

/// Fewer candidates than this are never settled for (`minFeasibleNodesToFind`).
const CANDIDATES_MIN: usize = 100;
/// In large clusters at least this part of the nodes is looked for, in percent (`minFeasibleNodesPercentageToFind`).
const CANDIDATES_PERCENT_MIN: usize = 5;

/// Where a pod goes, and on what grounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The node.
    pub node: NodeName,
    /// Its scores.
    pub scores: Scores,
    /// How many nodes were asked.
    pub evaluated: usize,
    /// How many of them would take the pod.
    pub candidates: usize,
}

/// No node takes the pod. Displays as the text of the Event and the pod condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Unschedulable {
    /// How many nodes there are.
    pub nodes: usize,
    /// How many of them refuse for each reason; a node short of two resources counts for both.
    pub counts: HashMap<Reason, usize>,
}

impl fmt::Display for Unschedulable {
    /// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.` (`FitError.Error`; it sorts the
    /// texts with their counts, and so does this.)
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        let text = |(reason, count): (&Reason, &usize)| match reason.is_of_pod() {
            true => reason.to_string(),
            false => format!("{count} {reason}"),
        };
        let mut texts: Vec<String> = self.counts.iter().map(text).collect();
        texts.sort();
        write!(f, "0/{} nodes are available: {}.", self.nodes, texts.join(", "))
    }
}

/// Chooses the node for `pod`: of the nodes that every filter admits the one with the highest score, by lot where
/// several have it.
///
/// In clusters of more than [`CANDIDATES_MIN`] nodes the search starts at a random node and ends when enough candidates
/// are found, as upstream's does (`percentageOfNodesToScore`, `numFeasibleNodesToFind`): the choice stays good and
/// costs less. A pod is called unschedulable only when every node has refused.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, rng: &mut impl Rng) -> Result<Decision, Unschedulable> {
    let (candidates, evaluated) = find_candidates(pod, snapshot.nodes(), rng)?;
    let scores = score::score(pod, &candidates);
    let chosen = best(&scores, rng);
    Ok(Decision {
        node: candidates[chosen].spec.name.clone(),
        scores: scores[chosen],
        evaluated,
        candidates: candidates.len(),
    })
}

/// What one node would say to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It would take it, with these scores among all that would.
    Candidate(Scores),
    /// It refuses.
    Refused(Vec<Reason>),
}

/// Asks every node about `pod`, for a person who wants to know why.
pub fn explain(pod: &PodInfo, snapshot: &Snapshot) -> Vec<(NodeName, Verdict)> {
    let mut refused = Vec::new();
    let mut candidates = Vec::new();
    for node in snapshot.nodes() {
        let mut reasons = Vec::new();
        if filter::admits(pod, node, &mut reasons) {
            candidates.push(node);
        } else {
            refused.push((node.spec.name.clone(), Verdict::Refused(reasons)));
        }
    }
    let scores = score::score(pod, &candidates);
    let taken =
        candidates.iter().zip(scores).map(|(node, scores)| (node.spec.name.clone(), Verdict::Candidate(scores)));
    taken.chain(refused).collect()
}

fn find_candidates<'a>(
    pod: &PodInfo,
    nodes: &'a [NodeInfo],
    rng: &mut impl Rng,
) -> Result<(Vec<&'a NodeInfo>, usize), Unschedulable> {
    if nodes.is_empty() {
        return Err(Unschedulable::default());
    }
    let enough = candidates_wanted(nodes.len());
    let (before, from) = nodes.split_at(rng.random_range(0..nodes.len()));
    let mut candidates = Vec::with_capacity(enough);
    let mut reasons = Vec::new();
    let mut refusal = Unschedulable { nodes: nodes.len(), counts: HashMap::new() };
    for (asked, node) in from.iter().chain(before).enumerate() {
        if !filter::admits(pod, node, &mut reasons) {
            reasons.drain(..).for_each(|reason| *refusal.counts.entry(reason).or_insert(0) += 1);
            continue;
        }
        candidates.push(node);
        if candidates.len() == enough {
            return Ok((candidates, asked + 1));
        }
    }
    if candidates.is_empty() { Err(refusal) } else { Ok((candidates, nodes.len())) }
}

/// How many candidates are enough among `nodes`: all up to 100, then a part that shrinks from a half to a twentieth.
fn candidates_wanted(nodes: usize) -> usize {
    let percent = 50usize.saturating_sub(nodes / 125).max(CANDIDATES_PERCENT_MIN);
    (nodes * percent / 100).max(CANDIDATES_MIN.min(nodes))
}

/// The position of the highest total; each of several has the same chance.
fn best(scores: &[Scores], rng: &mut impl Rng) -> usize {
    let (mut chosen, mut total, mut ties) = (0, i64::MIN, 0u32);
    for (position, score) in scores.iter().enumerate() {
        let candidate = score.total();
        if candidate > total {
            (chosen, total, ties) = (position, candidate, 1);
        } else if candidate == total {
            ties += 1;
            if rng.random_range(0..ties) == 0 {
                chosen = position;
            }
        }
    }
    chosen
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
