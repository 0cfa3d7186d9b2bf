//! Nodes taken out of service and back, each judge with a node of its own.

use harness::kubectl::Kubectl;

use super::{ALL, cells, judge};

/// The node of a judge; pods have one more to go to.
fn own(kubectl: &Kubectl) -> String {
    format!("box-{}", ALL.iter().position(|minor| *minor == kubectl.minor).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_are_taken_out_of_service_and_back() {
    judge(ALL.len() + 1, async |kubectl| {
        cordons(&kubectl).await;
        taints(&kubectl).await;
        drains(&kubectl).await;
    })
    .await;
}

async fn cordons(kubectl: &Kubectl) {
    let node = own(kubectl);
    kubectl.prints(&format!("cordon {node}"), &format!("node/{node} cordoned\n")).await;
    kubectl.prints(&format!("cordon {node}"), &format!("node/{node} already cordoned\n")).await;
    let table = kubectl.says(&format!("get node {node}")).await;
    assert_eq!(cells(&table)[0][1], "Ready,SchedulingDisabled");
    let look = format!("get node {node} -o 'jsonpath={{.spec.taints[*].key}}'");
    kubectl.prints(&look, "node.kubernetes.io/unschedulable").await;
    kubectl.prints(&format!("uncordon {node}"), &format!("node/{node} uncordoned\n")).await;
}

async fn taints(kubectl: &Kubectl) {
    let node = own(kubectl);
    let taint = format!("taint node {node} dedicated");
    kubectl.prints(&format!("{taint}=x:NoSchedule"), &format!("node/{node} tainted\n")).await;
    kubectl.fails(&format!("{taint}=y:NoSchedule"), "already has dedicated taint(s) with same effect(s)").await;
    kubectl.prints(&format!("{taint}=y:NoSchedule --overwrite"), &format!("node/{node} modified\n")).await;
    let look = format!("get node {node} -o 'jsonpath={{.spec.taints[?(@.key==\"dedicated\")].value}}'");
    kubectl.prints(&look, "y").await;
    kubectl.prints(&format!("{taint}-"), &format!("node/{node} untainted\n")).await;
    kubectl.fails(&format!("{taint}-"), "taint \"dedicated\" not found").await;
    kubectl.fails(&format!("{taint}=y:Sometimes"), "invalid taint effect: Sometimes").await;
}

async fn drains(kubectl: &Kubectl) {
    let node = own(kubectl);
    let pod = format!(
        r#"run bare --image=x --overrides={{"spec":{{"nodeName":"{node}","terminationGracePeriodSeconds":1}}}}"#
    );
    kubectl.prints(&pod, "pod/bare created\n").await;
    kubectl.says("wait --for=condition=Ready pod/bare --timeout=60s").await;
    let refused = kubectl.ends(&format!("drain {node}")).await;
    let complaint = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && complaint.contains("use --force to override"), "{complaint}");
    kubectl.says("get pod bare").await;
    if kubectl.minor >= 22 {
        // Older ones look among custom resource definitions for what they know, and there are none.
        kubectl.says(&format!("drain {node} --force --dry-run=server")).await;
        kubectl.says("get pod bare").await;
    }
    // Versions up to 1.21 delete, as they look for evictions among groups of kinds, of which there are none.
    let drained = kubectl.says(&format!("drain {node} --force --ignore-daemonsets")).await;
    let words = if kubectl.minor < 22 { ["pod/bare deleted", "node/"] } else { ["pod/bare evicted", "drained"] };
    assert!(words.iter().all(|word| drained.contains(word)), "{drained}");
    kubectl.fails("get pod bare", "not found").await;
    kubectl.prints("run other --image=x", "pod/other created\n").await;
    kubectl.says("wait --for=condition=Ready pod/other --timeout=60s").await;
    assert_ne!(kubectl.says("get pod other -o jsonpath={.spec.nodeName}").await, node);
    kubectl.prints(&format!("uncordon {node}"), &format!("node/{node} uncordoned\n")).await;
}
