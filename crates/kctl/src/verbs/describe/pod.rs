//! Pods.

use serde_json::Value;

use super::text::{Text, controller, date, truth};
use crate::object::{items, joined_pairs, text as at};

pub(super) fn describe(text: &mut Text, pod: &Value) {
    head(text, pod);
    for (title, specs, statuses) in [
        ("Init Containers", "initContainers", "initContainerStatuses"),
        ("Containers", "containers", "containerStatuses"),
    ] {
        let containers = items(pod, &["spec", specs]);
        if containers.is_empty() {
            continue;
        }
        text.line(0, &format!("{title}:"));
        for container in containers {
            let name = at(container, &["name"]);
            let status = items(pod, &["status", statuses]).iter().find(|s| at(s, &["name"]) == name);
            describe_container(text, "", container, status.unwrap_or(&Value::Null));
        }
    }
    text.conditions(pod);
    volumes(text, pod);
    text.field_if(0, "QoS Class", at(pod, &["status", "qosClass"]));
    text.pairs(0, "Node-Selectors", &pod["spec"]["nodeSelector"], "=");
    tolerations(text, 0, &pod["spec"]);
}

fn head(text: &mut Text, pod: &Value) {
    text.name(pod);
    if let Some(priority) = pod["spec"]["priority"].as_i64() {
        text.field(0, "Priority", priority);
    }
    text.field_if(0, "Service Account", at(pod, &["spec", "serviceAccountName"]));
    let node = at(pod, &["spec", "nodeName"]);
    text.field(
        0,
        "Node",
        if node.is_empty() { "<none>".to_owned() } else { format!("{node}/{}", at(pod, &["status", "hostIP"])) },
    );
    let start = at(pod, &["status", "startTime"]);
    if !start.is_empty() {
        text.field(0, "Start Time", date(start));
    }
    text.labels(0, &pod["metadata"]);
    match at(pod, &["metadata", "deletionTimestamp"]) {
        "" => text.field(0, "Status", at(pod, &["status", "phase"])),
        when => {
            text.field(0, "Status", format!("Terminating (since {})", date(when)));
            let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0);
            text.field(0, "Termination Grace Period", format!("{grace}s"));
        }
    }
    text.field_if(0, "Reason", at(pod, &["status", "reason"]));
    text.field_if(0, "Message", at(pod, &["status", "message"]));
    let ip = at(pod, &["status", "podIP"]);
    text.field(0, "IP", ip);
    if ip.is_empty() {
        text.field(0, "IPs", "<none>");
    } else {
        text.line(0, "IPs:");
        text.field(1, "IP", ip);
    }
    if let Some(controller) = controller(pod) {
        text.field(0, "Controlled By", controller);
    }
}

/// A container; `status` is null where there is none yet. In a template the name stands further in.
fn describe_container(text: &mut Text, indent: &str, container: &Value, status: &Value) {
    text.line(1, &format!("{indent}{}:", at(container, &["name"])));
    if !status.is_null() {
        text.field(2, "Container ID", at(status, &["containerID"]));
    }
    text.field(2, "Image", at(container, &["image"]));
    if !status.is_null() {
        text.field(2, "Image ID", at(status, &["imageID"]));
    }
    ports(text, container);
    for (key, field) in [("Command", "command"), ("Args", "args")] {
        let words = items(container, &[field]);
        if !words.is_empty() {
            text.line(2, &format!("{key}:"));
        }
        for word in words {
            for line in word.as_str().unwrap_or("").lines() {
                text.line(3, line);
            }
        }
    }
    if !status.is_null() {
        state(text, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|s| !s.is_empty()) {
            state(text, "Last State", &status["lastState"]);
        }
        text.field(2, "Ready", truth(&status["ready"]));
        text.field(2, "Restart Count", status["restartCount"].as_i64().unwrap_or(0));
    }
    text.amounts(2, "Limits", &container["resources"]["limits"]);
    text.amounts(2, "Requests", &container["resources"]["requests"]);
    for (key, field) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")] {
        if container[field].is_object() {
            text.field(2, key, probe(&container[field]));
        }
    }
    environment(text, container);
    mounts(text, container);
}

fn ports(text: &mut Text, container: &Value) {
    let ports = items(container, &["ports"]);
    let list = |field: &str| {
        let shown =
            |p: &Value| format!("{}/{}", p[field].as_i64().unwrap_or(0), p["protocol"].as_str().unwrap_or("TCP"));
        ports.iter().map(shown).collect::<Vec<_>>().join(", ")
    };
    let (key, host_key) = if ports.len() > 1 { ("Ports", "Host Ports") } else { ("Port", "Host Port") };
    let or_none = |list: String| if list.is_empty() { "<none>".to_owned() } else { list };
    text.field(2, key, or_none(list("containerPort")));
    text.field(2, host_key, or_none(list("hostPort")));
}

fn state(text: &mut Text, key: &str, state: &Value) {
    if let Some(running) = state.get("running") {
        text.field(2, key, "Running");
        text.field(3, "Started", date(at(running, &["startedAt"])));
    } else if let Some(terminated) = state.get("terminated") {
        text.field(2, key, "Terminated");
        text.field_if(3, "Reason", at(terminated, &["reason"]));
        text.field_if(3, "Message", &at(terminated, &["message"]).replace('\n', " "));
        text.field(3, "Exit Code", terminated["exitCode"].as_i64().unwrap_or(0));
        if let Some(signal) = terminated["signal"].as_i64().filter(|s| *s > 0) {
            text.field(3, "Signal", signal);
        }
        text.field(3, "Started", date(at(terminated, &["startedAt"])));
        text.field(3, "Finished", date(at(terminated, &["finishedAt"])));
    } else {
        text.field(2, key, "Waiting");
        text.field_if(3, "Reason", at(state, &["waiting", "reason"]));
    }
}

fn probe(probe: &Value) -> String {
    let number = |key: &str, otherwise: i64| probe[key].as_i64().unwrap_or(otherwise);
    let attributes = format!(
        "delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    let port = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let action = if let Some(exec) = probe.get("exec") {
        let words: Vec<&str> = items(exec, &["command"]).iter().filter_map(Value::as_str).collect();
        format!("exec [{}]", words.join(" "))
    } else if let Some(http) = probe.get("httpGet") {
        let scheme = http["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", at(http, &["host"]), port(&http["port"]), at(http, &["path"]))
    } else if let Some(tcp) = probe.get("tcpSocket") {
        format!("tcp-socket {}:{}", at(tcp, &["host"]), port(&tcp["port"]))
    } else if let Some(grpc) = probe.get("grpc") {
        format!("grpc <pod>:{} {}", port(&grpc["port"]), at(grpc, &["service"]))
    } else {
        "unknown".to_owned()
    };
    format!("{action} {attributes}")
}

fn environment(text: &mut Text, container: &Value) {
    for source in items(container, &["envFrom"]) {
        let (kind, reference) = match source.get("secretRef") {
            Some(secret) => ("Secret", secret),
            None => ("ConfigMap", &source["configMapRef"]),
        };
        text.line(2, "Environment Variables from:");
        text.line(3, &format!("{}\t{kind}\tOptional: {}", at(reference, &["name"]), reference["optional"] == true));
    }
    let variables = items(container, &["env"]);
    if variables.is_empty() {
        return text.field(2, "Environment", "<none>");
    }
    text.line(2, "Environment:");
    for variable in variables {
        let from = &variable["valueFrom"];
        let value = if let Some(field) = from.get("fieldRef") {
            format!(" ({}:{})", field["apiVersion"].as_str().unwrap_or("v1"), at(field, &["fieldPath"]))
        } else if let Some(key) = from.get("secretKeyRef") {
            let name = at(key, &["name"]);
            format!(
                "<set to the key '{}' in secret '{name}'>\tOptional: {}",
                at(key, &["key"]),
                key["optional"] == true
            )
        } else if let Some(key) = from.get("configMapKeyRef") {
            let name = at(key, &["name"]);
            format!(
                "<set to the key '{}' of config map '{name}'>\tOptional: {}",
                at(key, &["key"]),
                key["optional"] == true
            )
        } else {
            at(variable, &["value"]).replace('\n', " ")
        };
        text.field(3, at(variable, &["name"]), value);
    }
}

fn mounts(text: &mut Text, container: &Value) {
    let mounts = items(container, &["volumeMounts"]);
    if mounts.is_empty() {
        return text.field(2, "Mounts", "<none>");
    }
    text.line(2, "Mounts:");
    for mount in mounts {
        let access = if mount["readOnly"] == true { "ro" } else { "rw" };
        let sub_path = at(mount, &["subPath"]);
        let sub_path = if sub_path.is_empty() { String::new() } else { format!(",path=\"{sub_path}\"") };
        text.line(3, &format!("{} from {} ({access}{sub_path})", at(mount, &["mountPath"]), at(mount, &["name"])));
    }
}

fn volumes(text: &mut Text, pod: &Value) {
    let volumes = items(pod, &["spec", "volumes"]);
    if volumes.is_empty() {
        return text.field(0, "Volumes", "<none>");
    }
    text.line(0, "Volumes:");
    for volume in volumes {
        text.line(1, &format!("{}:", at(volume, &["name"])));
        let source = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
        let Some((kind, source)) = source else { continue };
        match kind.as_str() {
            "emptyDir" => {
                text.field(2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
                text.field(2, "Medium", at(source, &["medium"]));
                text.field(2, "SizeLimit", source["sizeLimit"].as_str().unwrap_or("<unset>"));
            }
            "hostPath" => {
                text.field(2, "Type", "HostPath (bare host directory volume)");
                text.field(2, "Path", at(source, &["path"]));
                text.field(2, "HostPathType", at(source, &["type"]));
            }
            "secret" => {
                text.field(2, "Type", "Secret (a volume populated by a Secret)");
                text.field(2, "SecretName", at(source, &["secretName"]));
                text.field(2, "Optional", source["optional"] == true);
            }
            "configMap" => {
                text.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
                text.field(2, "Name", at(source, &["name"]));
                text.field(2, "Optional", source["optional"] == true);
            }
            other => text.field(2, "Type", other),
        }
    }
}

fn tolerations(text: &mut Text, level: usize, spec: &Value) {
    let tolerations = items(spec, &["tolerations"]);
    if tolerations.is_empty() {
        return text.field(level, "Tolerations", "<none>");
    }
    for (i, toleration) in tolerations.iter().enumerate() {
        let mut shown = at(toleration, &["key"]).to_owned();
        for (sign, key) in [("=", "value"), (":", "effect")] {
            let value = at(toleration, &[key]);
            if !value.is_empty() {
                shown.push_str(&format!("{sign}{value}"));
            }
        }
        if at(toleration, &["operator"]) == "Exists" && at(toleration, &["value"]).is_empty() {
            shown.push_str(if shown.is_empty() { "op=Exists" } else { " op=Exists" });
        }
        if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
            shown.push_str(&format!(" for {seconds}s"));
        }
        text.line(level, &format!("{}\t{shown}", if i == 0 { "Tolerations:" } else { "" }));
    }
}

/// The template of a controller.
pub(super) fn describe_template(text: &mut Text, template: &Value) {
    text.line(0, "Pod Template:");
    text.field(1, "Labels", joined_pairs(&template["metadata"]["labels"]));
    for (title, field) in [("Init Containers", "initContainers"), ("Containers", "containers")] {
        let containers = items(template, &["spec", field]);
        if !containers.is_empty() {
            text.line(1, &format!("{title}:"));
        }
        for container in containers {
            describe_container(text, " ", container, &Value::Null);
        }
    }
    if items(template, &["spec", "volumes"]).is_empty() {
        text.field(1, "Volumes", "<none>");
    }
    text.field(1, "Node-Selectors", joined_pairs(&template["spec"]["nodeSelector"]));
    tolerations(text, 1, &template["spec"]);
}
