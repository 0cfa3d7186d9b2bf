//! Probes, hooks, sidecars, ephemeral containers and confinement on real Docker, and kubelets that die there.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};

use super::Desired;
use super::bench::{first, pod, waits_for};
use super::docker_tests::{IMAGE, SERVES, on_docker, script};
use crate::runtime::Runtime;

/// Serves the files below `/www`; a test of theirs says whether the container is ready.
const WEB: &str = "mkdir -p /www; exec busybox httpd -f -p 80 -h /www";

fn named(name: &str, command: &str) -> Value {
    let mut container = script(command);
    container["name"] = json!(name);
    container
}

fn is_up(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_ephemeral_containers_see_into_the_pod() {
    on_docker(|node| async move {
        let mut web = script(&WEB.replace("mkdir", "busybox mkdir"));
        web["readinessProbe"] = json!({"httpGet": {"path": "/ready", "port": 80}, "periodSeconds": 1});
        web["livenessProbe"] = json!({"exec": {"command": ["/bin/sh", "-c", "[ ! -e /www/dead ]"]}, "periodSeconds": 1,
            "failureThreshold": 1});
        let mut side = named("side", SERVES);
        side["restartPolicy"] = json!("Always");
        side["startupProbe"] = json!({"exec": {"command": ["/bin/sh", "-c", "exit 0"]}, "periodSeconds": 1});
        let spec = json!({"initContainers": [side], "containers": [web], "terminationGracePeriodSeconds": 2});
        let mut bench = node.bench(spec);
        let status = bench.until_phase("Running").await;
        assert!(!first(&status).ready);
        bench.api.until_event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404").await;
        node.exec(&status, "echo yes >/www/ready").await;
        bench.until("readiness", |s| first(s).ready).await;

        let mut object = bench.handle.desired().pod.as_ref().clone();
        let debug = json!([{"name": "debug", "image": IMAGE, "imagePullPolicy": "Never", "targetContainerName": "c",
            "command": ["/bin/sh", "-c", SERVES]}]);
        object.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(debug).unwrap();
        bench.handle.set(Desired { pod: Arc::new(object), gone: false });
        let ephemeral = |s: &PodStatus| s.ephemeral_container_statuses.clone().unwrap_or_default();
        let status = bench.until("the debugger", |s| ephemeral(s).first().is_some_and(is_up)).await;
        let id = ephemeral(&status)[0].container_id.clone().unwrap();
        let command = ["/bin/sh", "-c", "busybox ps"].map(str::to_owned);
        let id = id.trim_start_matches("docker://");
        let seen = node.runtime.exec_sync(id, &command, Duration::from_secs(10)).await.unwrap().output;
        assert!(seen.contains("httpd -f -p 80"), "it sees the processes of its target: {seen}");

        node.exec(&status, "echo >/www/dead").await;
        bench.until("a restart", |s| first(s).restart_count == 1 && is_up(first(s))).await;
        bench.api.until_event("Killing", "Container c failed liveness probe, will be restarted").await;
        bench.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_are_confined_as_they_ask() {
    on_docker(|node| async move {
        let mut container = script(SERVES);
        container["securityContext"] = json!({"runAsUser": 1001, "runAsGroup": 1002, "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}});
        let free = named("free", SERVES);
        let pod_context = json!({"supplementalGroups": [77], "sysctls": [
            {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]});
        let mut bench = node.bench(json!({"containers": [container, free], "securityContext": pod_context,
            "subdomain": "sub", "setHostnameAsFQDN": true, "shareProcessNamespace": true,
            "terminationGracePeriodSeconds": 1}));
        let status = bench.until_phase("Running").await;
        for (script, expected) in [
            ("busybox id -u; busybox id -g; busybox id -G", "1001\n1002\n1002 77\n"),
            ("(echo >/f) 2>/dev/null || echo read-only", "read-only\n"),
            (
                "busybox grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status",
                "CapEff:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\n",
            ),
            ("busybox cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n"),
            ("busybox hostname", "web.sub.ns.svc.cluster.local\n"),
            ("busybox ps | busybox grep -c '[/]pause'", "1\n"),
        ] {
            assert_eq!(node.exec(&status, script).await, expected, "{script}");
        }
        let free = status.container_statuses.as_ref().unwrap().iter().find(|s| s.name == "free").unwrap().clone();
        let alone = PodStatus { container_statuses: Some(vec![free]), ..PodStatus::default() };
        let seccomp = node.exec(&alone, "busybox grep ^Seccomp: /proc/self/status").await;
        assert_eq!(seccomp, "Seccomp:\t0\n", "who asks for no filter has none");
        bench.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_of_the_host_are_shared_where_asked() {
    on_docker(|node| async move {
        let of_host = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string();
        for (field, shared) in
            [("hostNetwork", "net"), ("hostPID", "pid"), ("hostIPC", "ipc"), ("enableServiceLinks", "")]
        {
            let mut spec = json!({"containers": [script(SERVES)], "terminationGracePeriodSeconds": 1});
            spec[field] = json!(true);
            let mut bench = node.bench_of(pod(&format!("{}-{shared}", node.uid), spec));
            let status = bench.until_phase("Running").await;
            for kind in ["net", "pid", "ipc"] {
                let seen = node.exec(&status, &format!("busybox readlink /proc/self/ns/{kind}")).await;
                assert_eq!(seen.trim_end() == of_host(kind), kind == shared, "{field}: {kind} is {seen}");
            }
            assert_eq!(status.pod_ip == status.host_ip, shared == "net", "{field}");
            bench.end().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_of_the_nodes_own_and_a_bare_proc_are_had() {
    on_docker(|node| async move {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
        let dir = node.dir.path().join("seccomp/profiles");
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("no-mkdir.json"), profile.to_string()).unwrap();
        let mut filtered = script(SERVES);
        filtered["securityContext"] = json!({"procMount": "Unmasked",
            "seccompProfile": {"type": "Localhost", "localhostProfile": "profiles/no-mkdir.json"}});
        let spec = json!({"containers": [filtered, named("usual", SERVES)], "terminationGracePeriodSeconds": 1});
        let mut bench = node.bench(spec);
        let status = bench.until_phase("Running").await;
        let made = "busybox mkdir /made 2>&1 || echo refused";
        let masks = "busybox grep -c ' /proc/' /proc/mounts";
        let said = node.exec(&status, made).await;
        assert_eq!(said, "mkdir: can't create directory '/made': Operation not permitted\nrefused\n");
        assert_eq!(node.exec(&status, masks).await, "0\n", "nothing of /proc is covered");
        let usual = status.container_statuses.as_ref().unwrap().iter().find(|s| s.name == "usual").unwrap().clone();
        let usual = PodStatus { container_statuses: Some(vec![usual]), ..PodStatus::default() };
        assert_eq!(node.exec(&usual, made).await, "");
        assert_ne!(node.exec(&usual, masks).await, "0\n");
        bench.end().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_told_and_had_once_it_is_free() {
    on_docker(|node| async move {
        let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut container = script("busybox httpd -f -p 80");
        container["ports"] = json!([{"containerPort": 80, "hostPort": port}]);
        let mut bench = node.bench(json!({"containers": [container], "terminationGracePeriodSeconds": 1}));
        bench
            .api
            .until_told("FailedCreatePodSandBox", "Failed to create pod sandbox: Error response from daemon: ")
            .await;
        bench.api.until_told("FailedCreatePodSandBox", "address already in use").await;
        let status = bench.status.borrow().status.clone().unwrap();
        assert!(waits_for(&status, "ContainerCreating") && status.phase.as_deref() == Some("Pending"), "{status:?}");
        drop(taken);
        bench.until_phase("Running").await;
        let state = node.runtime.pod_state(&node.uid).await.unwrap();
        assert_eq!((state.sandboxes.len(), state.containers.len()), (1, 1), "what failed has left nothing behind");
        bench.end().await;
        std::net::TcpListener::bind(("0.0.0.0", port)).expect("the port is free again");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kubelet_that_dies_on_docker_is_followed_by_one_that_knows() {
    on_docker(|node| async move {
        let init = named("init", "exit 0");
        let spec = json!({"initContainers": [init], "containers": [script(SERVES), named("d", SERVES)],
            "terminationGracePeriodSeconds": 5});
        for (round, millis) in [20, 150, 300, 500, 800].into_iter().enumerate() {
            let uid = format!("{}-{round}", node.uid);
            let kubelet = node.bench_of(pod(&uid, spec.clone()));
            tokio::time::sleep(Duration::from_millis(millis)).await;
            kubelet.worker.abort();
            let running = || async {
                let state = node.runtime.pod_state(&uid).await.unwrap();
                let mut names: Vec<(String, String)> = Vec::new();
                names
                    .extend(state.containers.iter().filter(|c| c.is_running()).map(|c| (c.name.clone(), c.id.clone())));
                names.sort();
                (names, state.sandboxes.iter().filter(|s| s.running).count())
            };
            let (ran, _) = running().await;
            let status = kubelet.status.borrow().status.clone();
            let object = Pod { status: status.map(|s| (*s).clone()), ..pod(&uid, spec.clone()) };
            let was_up = object.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
            drop(kubelet);
            let mut next = node.bench_of(object);
            if !was_up {
                next.until_phase("Running").await;
            }
            let (runs, sandboxes) = running().await;
            let names: Vec<&str> = runs.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!((names, sandboxes), (vec!["c", "d"], 1), "after {millis} ms");
            let kept = ran.iter().filter(|(name, _)| name != "init");
            assert!(kept.into_iter().all(|c| runs.contains(c)), "after {millis} ms: {ran:?} ran, {runs:?} runs");
            next.delete(5);
            next.until_deleted().await;
            next.end().await;
            assert!(!crate::volumes::pod_dir(node.dir.path(), &uid).exists());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_told_in_upstreams_words() {
    on_docker(|node| async move {
        let with = |change: Value| {
            let mut container = script(SERVES);
            container.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"containers": [container], "terminationGracePeriodSeconds": 1})
        };
        let cases = [
            (with(json!({"image": "Not An Image"})), "InvalidImageName"),
            (with(json!({"image": "coracle-test/none:1"})), "ErrImageNeverPull"),
            (with(json!({"securityContext": {"runAsNonRoot": true}})), "CreateContainerConfigError"),
            (with(json!({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "no", "key": "k"}}}]})),
                "CreateContainerConfigError"),
            (with(json!({"securityContext": {"seccompProfile": {"type": "Localhost", "localhostProfile": "no.json"}}})),
                "CreateContainerError"),
        ];
        for (round, (spec, reason)) in cases.into_iter().enumerate() {
            let mut bench = node.bench_of(pod(&format!("{}-{round}", node.uid), spec.clone()));
            let told = |s: &PodStatus| waits_for(s, reason) || waits_for(s, "CrashLoopBackOff");
            let status = tokio::time::timeout(Duration::from_secs(20), bench.until(reason, told)).await;
            let status = status.unwrap_or_else(|_| panic!("{reason} never comes of {spec}"));
            assert!(waits_for(&status, reason), "{spec}: {status:?}");
            bench.end().await;
        }
    })
    .await;
}

/// What the kernel allows the container: bytes of memory, and microseconds of processor time in each 100 ms.
const ALLOWED: &str = "cd /sys/fs/cgroup; busybox cat memory.max 2>/dev/null || busybox cat memory/memory.limit_in_bytes; \
     (busybox cat cpu.max 2>/dev/null || busybox cat cpu/cpu.cfs_quota_us) | busybox cut -d' ' -f1";

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_given_more_and_less_while_it_runs() {
    on_docker(|node| async move {
        let sized = |cpu: &str, memory: &str| {
            let mut container = script(SERVES);
            container["resources"] = json!({"requests": {"cpu": "50m"}, "limits": {"cpu": cpu, "memory": memory}});
            container["resizePolicy"] = json!([{"resourceName": "memory", "restartPolicy": "NotRequired"}]);
            json!({"containers": [container], "terminationGracePeriodSeconds": 1})
        };
        let mut bench = node.bench(sized("100m", "32Mi"));
        let before = bench.until_phase("Running").await;
        assert_eq!(node.exec(&before, ALLOWED).await, "33554432\n10000\n");
        for (generation, cpu, memory, expected) in
            [(2, "200m", "64Mi", "67108864\n20000\n"), (3, "50m", "16Mi", "16777216\n5000\n")]
        {
            let mut object = pod(&node.uid, sized(cpu, memory));
            object.metadata.generation = Some(generation);
            bench.handle.set(Desired { pod: Arc::new(object), gone: false });
            let in_force = |s: &PodStatus| json!(first(s).resources)["limits"] == json!({"cpu": cpu, "memory": memory});
            let status = bench.until("the resize", in_force).await;
            assert_eq!(node.exec(&status, ALLOWED).await, expected);
            assert_eq!(first(&status).container_id, first(&before).container_id, "it is the same container");
        }
        // Whoever comes after this kubelet finds it so.
        let state = node.runtime.pod_state(&node.uid).await.unwrap();
        assert_eq!(state.containers[0].resources.memory, Some(16 << 20));
        bench.end().await;
    })
    .await;
}
