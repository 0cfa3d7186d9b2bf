//! Probes and lifecycle hooks.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, Probe, SleepAction, TCPSocketAction,
};

use crate::field::{ErrorList, Path, forbidden, invalid, required};
use crate::kinds::rules;
use crate::names;

pub(super) fn of_container(container: &Container, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let lifecycle = container.lifecycle.as_ref();
    let hooks = [
        (lifecycle.and_then(|l| l.post_start.as_ref()), "postStart"),
        (lifecycle.and_then(|l| l.pre_stop.as_ref()), "preStop"),
    ];
    for (hook, field) in hooks.into_iter().filter_map(|(hook, field)| Some((hook?, field))) {
        let handler = Handler {
            exec: hook.exec.as_ref(),
            http_get: hook.http_get.as_ref(),
            tcp_socket: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        };
        handler.validate(grace, &path.child("lifecycle").child(field), errors);
    }
    if let Some(liveness) = &container.liveness_probe {
        probe(liveness, grace, &path.child("livenessProbe"), errors);
        succeeds_at_once(liveness, &path.child("livenessProbe"), errors);
    }
    if let Some(readiness) = &container.readiness_probe {
        probe(readiness, grace, &path.child("readinessProbe"), errors);
        if let Some(seconds) = readiness.termination_grace_period_seconds {
            let path = path.child("readinessProbe").child("terminationGracePeriodSeconds");
            errors.push(invalid(&path, seconds, "must not be set for readinessProbes"));
        }
    }
    if let Some(startup) = &container.startup_probe {
        probe(startup, grace, &path.child("startupProbe"), errors);
        succeeds_at_once(startup, &path.child("startupProbe"), errors);
    }
}

fn probe(probe: &Probe, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    handler.validate(grace, path, errors);
    let numbers = [
        (probe.initial_delay_seconds, "initialDelaySeconds"),
        (probe.timeout_seconds, "timeoutSeconds"),
        (probe.period_seconds, "periodSeconds"),
        (probe.success_threshold, "successThreshold"),
        (probe.failure_threshold, "failureThreshold"),
    ];
    for (number, field) in numbers {
        rules::not_negative(number.unwrap_or(0), &path.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds
        && seconds <= 0
    {
        errors.push(invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0"));
    }
}

fn succeeds_at_once(probe: &Probe, path: &Path, errors: &mut ErrorList) {
    let threshold = probe.success_threshold.unwrap_or(1);
    if threshold != 1 {
        errors.push(invalid(&path.child("successThreshold"), threshold, "must be 1"));
    }
}

/// What a probe or hook does; exactly one of these.
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

impl Handler<'_> {
    fn validate(&self, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
        let set = [
            (self.exec.is_some(), "exec"),
            (self.http_get.is_some(), "httpGet"),
            (self.tcp_socket.is_some(), "tcpSocket"),
            (self.grpc.is_some(), "grpc"),
            (self.sleep.is_some(), "sleep"),
        ];
        let mut fields = set.into_iter().filter(|(is_set, _)| *is_set).map(|(_, field)| field);
        match fields.next() {
            Some(first) => self.action(first, grace, &path.child(first), errors),
            None => errors.push(required(path, "must specify a handler type")),
        }
        for second in fields {
            errors.push(forbidden(&path.child(second), "may not specify more than 1 handler type"));
        }
    }

    fn action(&self, field: &str, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
        match field {
            "exec" if self.exec.is_some_and(|e| e.command.as_ref().is_none_or(Vec::is_empty)) => {
                errors.push(required(&path.child("command"), ""));
            }
            "httpGet" => self.http_get.into_iter().for_each(|action| http_get(action, path, errors)),
            "tcpSocket" => {
                self.tcp_socket
                    .into_iter()
                    .for_each(|a| rules::port_number_or_name(&a.port, &path.child("port"), errors));
            }
            "grpc" => self.grpc.into_iter().for_each(|a| rules::port_number(a.port, &path.child("port"), errors)),
            "sleep" => self.sleep.into_iter().for_each(|action| sleep(action, grace, path, errors)),
            _ => {}
        }
    }
}

fn http_get(action: &HTTPGetAction, path: &Path, errors: &mut ErrorList) {
    rules::given(action.path.as_deref().unwrap_or(""), &path.child("path"), errors);
    rules::port_number_or_name(&action.port, &path.child("port"), errors);
    let scheme = action.scheme.as_deref().unwrap_or("");
    rules::optional_one_of(Some(scheme), &["HTTP", "HTTPS"], &path.child("scheme"), errors);
    for header in action.http_headers.iter().flatten() {
        rules::all(names::is_http_header_name(&header.name), header.name.as_str(), &path.child("httpHeaders"), errors);
    }
}

fn sleep(action: &SleepAction, grace: Option<i64>, path: &Path, errors: &mut ErrorList) {
    let Some(grace) = grace else { return };
    if action.seconds < 0 || action.seconds > grace {
        let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        errors.push(invalid(path, action.seconds, &detail));
    }
}
