//! Random operations on a store and on a plain model of it: both must say the same, on both backends.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use store::embedded::{Embedded, Options};
use store::etcd::Etcd;
use store::{Action, Error, Event, Expect, ListRequest, Op, Revision, Store};
use support::{EtcdServer, events, prefix, within};

const KEYS: u8 = 5;

/// An expectation, in words that do not name revisions: those are known only when it runs.
#[derive(Clone, Copy, Debug)]
enum Hope {
    Absent,
    /// Unchanged since the version that many writes of the key ago.
    Unchanged(usize),
    Any,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Put(u8),
    Delete,
    Check,
}

#[derive(Clone, Debug)]
enum Step {
    Commit(BTreeMap<u8, (Hope, Deed)>),
    /// Read everything as of that many revisions ago.
    Read {
        ago: i64,
        limit: usize,
        after: Option<u8>,
    },
    Compact {
        ago: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let hope = prop_oneof![
        2 => Just(Hope::Absent),
        4 => Just(Hope::Unchanged(0)),
        1 => (1..3usize).prop_map(Hope::Unchanged),
        3 => Just(Hope::Any),
    ];
    let deed = prop_oneof![5 => any::<u8>().prop_map(Deed::Put), 3 => Just(Deed::Delete), 1 => Just(Deed::Check)];
    let commit = prop::collection::btree_map(0..KEYS, (hope, deed), 0..4).prop_map(Step::Commit);
    let read = (0..8i64, 0..6usize, prop::option::of(0..KEYS)).prop_map(|(ago, limit, after)| Step::Read {
        ago,
        limit,
        after,
    });
    prop_oneof![12 => commit, 4 => read, 1 => (0..6i64).prop_map(|ago| Step::Compact { ago })]
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    value: Vec<u8>,
    created: Revision,
    modified: Revision,
}

type View = BTreeMap<String, Held>;

/// What the store should hold: every revision's view and events.
struct Model {
    root: String,
    start: Revision,
    compacted: Revision,
    views: Vec<View>,
    changes: Vec<(Revision, String, Option<Held>)>,
}

impl Model {
    fn new(root: String, start: Revision) -> Model {
        Model { root, start, compacted: 0, views: vec![View::new()], changes: Vec::new() }
    }

    fn newest(&self) -> Revision {
        self.start + self.views.len() as Revision - 1
    }

    fn view(&self, revision: Revision) -> &View {
        &self.views[usize::try_from((revision - self.start).max(0)).unwrap()]
    }

    fn key(&self, key: u8) -> String {
        format!("{}{key}", self.root)
    }

    fn op(&self, key: u8, hope: Hope, deed: Deed) -> Op {
        let key = self.key(key);
        let writes = self.changes.iter().rev().filter(|(_, changed, _)| *changed == key);
        let expect = match hope {
            Hope::Absent => Expect::Absent,
            Hope::Any => Expect::Any,
            Hope::Unchanged(ago) => {
                Expect::Unchanged(writes.map(|(revision, ..)| *revision).nth(ago).unwrap_or(self.start))
            }
        };
        let action = match deed {
            Deed::Put(value) => Action::Put(vec![value; usize::from(value) * 20].into(), None),
            Deed::Delete => Action::Delete,
            Deed::Check => Action::Check,
        };
        Op { key, expect, action }
    }

    /// The key in conflict, or the revision.
    fn commit(&mut self, ops: &[Op]) -> Result<Revision, String> {
        let mut view = self.views.last().unwrap().clone();
        for op in ops {
            let current = view.get(&op.key);
            let holds = match op.expect {
                Expect::Any => true,
                Expect::Absent => current.is_none(),
                Expect::Unchanged(revision) => current.is_some_and(|held| held.modified == revision),
            };
            if !holds {
                return Err(op.key.clone());
            }
        }
        let next = self.newest() + 1;
        let mut changes = Vec::new();
        for op in ops {
            match &op.action {
                Action::Put(value, _) => {
                    let created = view.get(&op.key).map_or(next, |held| held.created);
                    let held = Held { value: value.to_vec(), created, modified: next };
                    view.insert(op.key.clone(), held.clone());
                    changes.push((next, op.key.clone(), Some(held)));
                }
                Action::Delete if view.remove(&op.key).is_some() => changes.push((next, op.key.clone(), None)),
                _ => {}
            }
        }
        if changes.is_empty() {
            return Ok(self.newest());
        }
        self.views.push(view);
        self.changes.extend(changes);
        Ok(next)
    }
}

async fn run(store: &dyn Store, model: &mut Model, steps: Vec<Step>) {
    for step in steps {
        match step {
            Step::Commit(changes) => {
                let ops: Vec<Op> = changes.iter().map(|(key, (hope, deed))| model.op(*key, *hope, *deed)).collect();
                commit(store, model, ops).await;
            }
            Step::Read { ago, limit, after } => read(store, model, ago, limit, after).await,
            Step::Compact { ago } => compact(store, model, ago).await,
        }
    }
    let newest = model.newest();
    assert_eq!(store.revision().await.unwrap(), newest);
    let from = model.compacted.max(model.start);
    watch(store, model, from).await;
}

async fn commit(store: &dyn Store, model: &mut Model, ops: Vec<Op>) {
    let expected = model.commit(&ops);
    match within(store.commit(ops)).await {
        Ok(revision) => assert_eq!(Ok(revision), expected),
        Err(Error::Conflict { key, current }) => {
            let held = model.view(model.newest()).get(&key).cloned();
            assert_eq!(Err(key), expected);
            assert_eq!(current.map(held_of), held);
        }
        Err(error) => panic!("{error}, expected {expected:?}"),
    }
}

async fn read(store: &dyn Store, model: &Model, ago: i64, limit: usize, after: Option<u8>) {
    let revision = (model.newest() - ago).max(model.start);
    let after = after.map(|key| model.key(key));
    let request = ListRequest {
        revision: Some(revision).filter(|_| ago > 0),
        limit: Some(limit).filter(|limit| *limit < 5),
        after: after.clone(),
        ..prefix(&model.root)
    };
    let bound = request.limit.unwrap_or(usize::MAX);
    let answer = within(store.list(request)).await;
    if revision < model.compacted {
        assert!(matches!(answer, Err(Error::Compacted { compacted, .. }) if compacted == model.compacted));
        return;
    }
    let (answer, view) = (answer.unwrap(), model.view(revision));
    let expected: Vec<_> = view.iter().filter(|(key, _)| after.as_ref().is_none_or(|after| *key > after)).collect();
    assert_eq!((answer.revision, answer.remaining), (revision, expected.len().saturating_sub(bound)));
    let found: Vec<_> = answer.items.into_iter().map(|item| (item.key.to_string(), held_of(item))).collect();
    let expected: Vec<_> = expected.into_iter().take(bound).map(|(key, held)| (key.clone(), held.clone())).collect();
    assert_eq!(found, expected);
    for key in (0..KEYS).map(|key| model.key(key)) {
        let (found, at) = store.get(&key, Some(revision)).await.unwrap();
        assert_eq!((found.map(held_of), at), (view.get(&key).cloned(), revision));
    }
}

async fn compact(store: &dyn Store, model: &mut Model, ago: i64) {
    let revision = (model.newest() - ago).max(model.start);
    match within(store.compact(revision)).await {
        Ok(()) => assert!(revision > model.compacted),
        Err(Error::Compacted { compacted, .. }) => assert!(revision <= model.compacted && compacted == model.compacted),
        Err(error) => panic!("{error}"),
    }
    model.compacted = model.compacted.max(revision);
}

async fn watch(store: &dyn Store, model: &Model, from: Revision) {
    let expected: Vec<_> = model.changes.iter().filter(|(revision, ..)| *revision > from).collect();
    let mut stream = store.watch(&model.root, from).await.unwrap();
    let seen = events(&mut stream, expected.len()).await;
    assert_eq!(seen.len(), expected.len());
    for (event, (revision, key, held)) in seen.into_iter().zip(expected) {
        match event {
            Event::Put { current } => {
                assert_eq!((current.key.to_string(), Some(held_of(current))), (key.clone(), held.clone()));
            }
            Event::Delete { key: gone, revision: at } => {
                assert_eq!((gone.to_string(), at, held), (key.clone(), *revision, &None));
            }
        }
    }
}

fn held_of(found: store::KeyValue) -> Held {
    Held { value: found.value.to_vec(), created: found.create_revision, modified: found.mod_revision }
}

fn check(cases: u32, mut try_steps: impl FnMut(Vec<Step>)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 200, ..Config::default() };
    let steps = prop::collection::vec(step(), 1..60);
    let try_steps = std::cell::RefCell::new(&mut try_steps);
    TestRunner::new(config)
        .run(&steps, |steps| {
            (try_steps.borrow_mut())(steps);
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_embedded_store_does_what_the_model_does_and_again_when_reopened() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    check(48, |steps| {
        let dir = tempfile::tempdir().unwrap();
        let reopened = steps.clone();
        // A ring of a few events, so that watches and reads also go to the log.
        let open = || Embedded::open(dir.path(), Options { event_bytes: 2000, ..Options::default() }).unwrap();
        let store = open();
        let mut model = Model::new("/m/".into(), runtime.block_on(store.revision()).unwrap());
        runtime.block_on(run(&store, &mut model, steps));
        drop(store);
        runtime.block_on(run(&open(), &mut model, reopened));
    });
}

#[test]
fn the_store_in_memory_does_what_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    check(48, |steps| {
        let store = Embedded::in_memory().unwrap();
        let mut model = Model::new("/m/".into(), runtime.block_on(store.revision()).unwrap());
        runtime.block_on(run(&store, &mut model, steps));
    });
}

#[test]
fn etcd_does_what_the_model_does() {
    let Some(server) = EtcdServer::start() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoints = [server.url.clone()];
    let store = runtime.block_on(Etcd::connect(&endpoints, store::etcd::Options::default())).unwrap();
    let mut round = 0;
    check(16, |steps| {
        round += 1;
        let mut model = Model::new(format!("/m/{round}/"), runtime.block_on(store.revision()).unwrap());
        // Its history is shared with the rounds before, its keys are not.
        if let Err(Error::Compacted { compacted, .. }) = runtime.block_on(store.watch("", 0)) {
            model.compacted = compacted;
        }
        runtime.block_on(run(&store, &mut model, steps));
    });
}
