//! Boxes with a router between them.

use anyhow::{Result, ensure};
use lab::cluster::Settings;
use lab::network::Topology;
use lab::{Cluster, Plan};
use serde_json::json;

use crate::common::{PATH, fetch, inside, place, pod, ready, web};

#[test]
fn boxes_behind_a_router_need_the_overlay() -> Result<()> {
    lab::lab::test(async || {
        let settings = Settings {
            plan: Plan { boxes: 2, topology: Topology::Routed },
            minion: vec!["--overlay".to_owned()],
            ..Settings::default()
        };
        let mut cluster = Cluster::start(settings).await?;
        pods_reach_each_other_through_the_overlay(&mut cluster).await?;
        cluster.stop().await
    })
}

async fn pods_reach_each_other_through_the_overlay(cluster: &mut Cluster) -> Result<()> {
    pod(cluster, "left", web(json!({ "nodeName": "box1" }))).await?;
    pod(cluster, "right", web(json!({ "nodeName": "box2" }))).await?;
    let (left, right) = (ready(cluster, "left", 1).await?, ready(cluster, "right", 1).await?);
    let (_, _, address) = place(&right[0]);
    let (url, own) = (format!("http://{address}{PATH}"), place(&left[0]).2);
    ensure!(fetch(cluster, &left[0], &url).await?.trim() == format!("right {own}"), "the pod's own address is seen");
    let mtu = inside(cluster, &left[0], &["cat", "/sys/class/net/eth0/mtu"]).await?;
    ensure!(mtu == "1450", "{mtu}");
    // A full packet, which nobody may cut, fits through; a longer one would not leave the pod.
    let full = ["ping", "-c", "1", "-W", "2", "-s", "1422", &address];
    inside(cluster, &left[0], &full).await?;

    // From the box itself, also after the device was taken away.
    let machine = &cluster.lab.boxes[0];
    machine.run(&crate::common::curl(&url)).await?;
    machine.run(&["ip", "link", "del", "coracle-vxlan"]).await?;
    machine.run(&crate::common::curl(&url)).await?;
    fetch(cluster, &left[0], &url).await.map(drop)
}
