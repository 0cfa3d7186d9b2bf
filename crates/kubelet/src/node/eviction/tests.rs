use std::net::IpAddr;

use client::Tasks;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;
use crate::Config;
use crate::clock::Clock;
use crate::runtime::hollow::Hollow;
use crate::runtime::{ImageStore, Runtime};
use crate::stats::node::FileSystem;
use crate::stats::{Memory, Usage};

const LIMIT: Duration = Duration::from_secs(20);

struct Box1 {
    hollow: Hollow,
    pods: Pods,
    manager: Manager,
    measured: Arc<Mutex<NodeUsage>>,
    pressure: watch::Receiver<Pressure>,
    tasks: Tasks,
}

fn usage(free_memory: u64, free_disk: u64) -> NodeUsage {
    let memory = Memory { working_set: (1 << 30) - free_memory, limit: Some(1 << 30), ..Memory::default() };
    let fs = FileSystem { capacity: 1000, available: free_disk, ..FileSystem::default() };
    let usage = Usage { memory: Some(memory), ..Usage::default() };
    NodeUsage { usage, fs: Some(fs), image_fs: Some(fs), ..NodeUsage::default() }
}

impl Box1 {
    async fn new(mutate: impl FnOnce(&mut Config)) -> Box1 {
        Box1::by(Clock::Wall, mutate).await
    }

    /// One whose time is `clock`'s.
    async fn by(clock: Clock, mutate: impl FnOnce(&mut Config)) -> Box1 {
        let hollow = Hollow::new(clock);
        hollow.ensure_network("10.0.0.0/24".parse().unwrap()).await.unwrap();
        let mut config = Config::new("box1", IpAddr::from([127, 0, 0, 1]), "/nonexistent");
        config.clock = clock;
        mutate(&mut config);
        let client = crate::testing::empty_api();
        let machine = hollow.machine().await.unwrap();
        let kubelet = crate::testing::kubelet(&hollow, &machine, config, &client);
        let tasks = Tasks::new();
        let pods = Pods::new(kubelet.clone(), client, &tasks);
        let measured = Arc::new(Mutex::new(usage(1 << 30, 1000)));
        let (sender, pressure) = watch::channel(Pressure::default());
        let measure: Measure = Arc::new({
            let measured = measured.clone();
            move || measured.lock().clone()
        });
        tasks.spawn(pods.clone().follow_runtime());
        let manager = Manager::new(kubelet, pods.clone(), measure, sender);
        Box1 { hollow, pods, manager, measured, pressure, tasks }
    }

    /// Runs a pod.
    async fn run(&self, name: &str, requests: Value) {
        let before = self.hollow.running();
        let pod = serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "uid": name},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]},
        }));
        self.pods.set(Arc::new(pod.unwrap()));
        self.until(before + 1).await;
    }

    /// Waits until so many containers run.
    async fn until(&self, running: usize) {
        let wait = self.hollow.until_running(running);
        tokio::time::timeout(LIMIT, wait).await.expect("another number of containers is to run");
    }

    async fn runs(&self, name: &str) -> bool {
        let state = self.hollow.pod_state(name).await.unwrap();
        state.containers.iter().any(crate::runtime::Container::is_running)
    }

    fn have(&self, usage: NodeUsage) {
        *self.measured.lock() = usage;
    }

    fn pressure(&self) -> Pressure {
        *self.pressure.borrow()
    }

    async fn end(self) {
        assert!(self.tasks.stop(Duration::from_secs(5)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_pod_goes_at_a_time_and_only_while_memory_is_short() {
    let mut node = Box1::new(|_| ()).await;
    node.run("asked", json!({"memory": "64Mi"})).await;
    node.run("greedy", json!({})).await;
    node.run("greedier", json!({"memory": "1Mi"})).await;
    node.manager.round().await;
    assert_eq!((node.hollow.running(), node.pressure()), (3, Pressure::default()), "there is enough");

    node.have(usage(50 << 20, 1000));
    node.manager.round().await;
    assert!(node.pressure().memory);
    node.until(2).await;
    assert!(!node.runs("greedy").await, "it uses most beyond what it asked for");

    node.have(usage(1 << 30, 1000));
    node.manager.round().await;
    assert_eq!(node.hollow.running(), 2, "measured again, there is enough");
    assert!(node.pressure().memory, "the condition stays for a while");

    node.have(usage(50 << 20, 1000));
    // The first one may still be being cleared away, and until then no other goes.
    let goes = async {
        while node.hollow.running() > 1 {
            node.manager.round().await;
            let _ = tokio::time::timeout(Duration::from_millis(20), node.hollow.until_running(1)).await;
        }
    };
    tokio::time::timeout(LIMIT, goes).await.expect("the next one goes");
    assert!(node.runs("asked").await);
    node.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_soft_threshold_leaves_pods_their_grace_up_to_a_bound() {
    let soft = Threshold { grace: Some(Duration::ZERO), .."memory.available<500Mi".parse().unwrap() };
    let mut node = Box1::by(Clock::tokio(), |config| {
        config.eviction_soft = vec![soft];
        config.eviction_max_pod_grace_period = 7;
    })
    .await;
    node.run("web", json!({})).await;
    node.hollow.ignore_terminate(true);
    node.have(usage(400 << 20, 1000));
    node.manager.round().await;
    assert!(node.pressure().memory);
    let pod = node.pods.list().remove(0);
    assert_eq!((soft_grace(&pod, 7), soft_grace(&pod, 0), soft_grace(&pod, 90), soft_grace(&pod, -1)), (7, 1, 30, 30));
    let asked_at = Instant::now();
    node.until(0).await;
    assert_eq!(asked_at.elapsed().as_secs(), 7, "it had seven seconds, not one");
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_is_short_unused_images_go_before_pods() {
    let mut node = Box1::new(|config| config.image_gc.min_age = jiff::SignedDuration::ZERO).await;
    node.hollow.put_image("i", 400);
    node.hollow.put_image("unused", 300);
    node.run("web", json!({})).await;
    node.have(usage(1 << 30, 50));
    // The first look takes away what is unused; the disk is as full as before, as nothing told the measure.
    node.manager.look().await;
    node.manager.images.remove_unused(Timestamp::now()).await;
    let left: Vec<String> =
        node.hollow.images().await.unwrap().into_iter().map(|image| image.names[0].clone()).collect();
    assert_eq!(left, ["i"], "a container was made from it");

    node.manager.round().await;
    assert!(node.pressure().disk);
    node.until(0).await;
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_disk_is_short_only_pods_that_are_over_lose_their_containers() {
    let node = Box1::new(|_| ()).await;
    node.run("web", json!({})).await;
    let once = json!({
        "metadata": {"name": "once", "namespace": "ns", "uid": "once"},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
    });
    node.pods.set(Arc::new(serde_json::from_value(once).unwrap()));
    node.until(2).await;
    assert!(node.hollow.exit("ns", "web", "c", 1) && node.hollow.exit("ns", "once", "c", 0));
    let stopped = tokio::time::timeout(LIMIT, node.pods.until_stopped("once"));
    stopped.await.expect("the pod is over");
    node.until(1).await;
    node.manager.remove_dead_containers(Timestamp::now()).await;
    let lives = async |uid: &str| node.hollow.pod_state(uid).await.unwrap().containers.len();
    assert_eq!(lives("web").await, 2, "it runs again, and the log of its previous life may be asked for");
    assert_eq!(lives("once").await, 0);
    node.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn images_go_down_to_the_low_mark() {
    let node = Box1::new(|config| config.image_gc.min_age = jiff::SignedDuration::ZERO).await;
    for (name, size) in [("a", 60), ("b", 60), ("c", 60)] {
        node.hollow.put_image(name, size);
    }
    let mut node = node;
    // 160 of 1000 are free at first: enough.
    node.have(usage(1 << 30, 160));
    node.manager.round().await;
    assert_eq!(node.hollow.images().await.unwrap().len(), 3);
    // At 140 free, 60 must go to have 200 free again.
    let mut collector = ImageCollector::new(node.manager.kubelet.clone());
    collector.round(&usage(1 << 30, 140), Timestamp::now()).await;
    assert_eq!(node.hollow.images().await.unwrap().len(), 2);
    node.end().await;
}
