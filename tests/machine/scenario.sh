#!/usr/bin/env bash
# What only a machine with a kernel and a systemd of its own can show: run by machine.sh at each of three boots, with
# deploy/, the packages of two versions in old/ and new/, and this folder in /mnt. Between the first and the second boot the machine
# shuts down as it should, between the second and the third its power goes.
set -euo pipefail
cd /mnt
export HOME=/root KUBECONFIG=/var/lib/coracle/admin.kubeconfig
address=192.168.0.93
# It is only ever used up by a failure. An emulated processor is some twenty times slower than one.
patience=600
kept=/root/kept
mkdir -p $kept
boot=$(($(cat $kept/boot 2>/dev/null || echo 0) + 1))
echo $boot >$kept/boot

step() { printf '\n=== boot %s, %s s: %s\n' "$boot" "$(cut -d. -f1 /proc/uptime)" "$*"; }
fail() { printf 'FAILED: %s\n' "$*"; exit 1; }
has() { grep -qF -- "$2" <<<"$1" || fail "$3: no $2 in: $1"; } # text, what, sentence
same() { [ "$1" = "$2" ] || fail "$3: $(diff <(echo "$1") <(echo "$2") || true)"; } # expected, found, sentence

leave() {
    local status=$?
    [ $status != 0 ] || return 0
    echo "boot $boot failed; what is to be seen:"
    { kctl get nodes -o wide; kctl get pods -A -o wide; kctl get events -A; docker ps -a; journalctl -b -n 80 --no-pager; } 2>&1 | cut -c1-300 | tail -n 200
    systemctl poweroff -ff
}
trap leave EXIT

# Reads lines of a command until one matches.
until_line() { # pattern, command...
    local pattern=$1 found=0 reader
    shift
    exec {lines}< <(exec "$@" 2>/dev/null)
    reader=$!
    timeout $patience grep -qm1 -E -- "$pattern" <&"$lines" || found=$?
    exec {lines}<&-
    kill $reader 2>/dev/null || true
    return $found
}

until_pod() { # name, jsonpath, pattern
    until_line "$3" kctl get pod "$1" -w -o "jsonpath=$2{\"\n\"}" || fail "pod $1: $2 becomes $3"
}

until_ready() { for pod in "$@"; do until_pod "$pod" '{.status.conditions[?(@.type=="Ready")].status}' '^True$'; done; }

until_web() {
    until_line '^2 2$' kctl get rc web -w -o 'jsonpath={.spec.replicas} {.status.readyReplicas}{"\n"}' || fail "two pods of web are ready"
}

until_said() { # unit, pattern
    until_line "$2" journalctl -b -f --no-tail -u "$1" || fail "$1 says $2"
}

# The process of a pod's container.
process() { # pod, container
    docker inspect -f '{{.State.Pid}}' "$(docker ps -qf "label=io.kubernetes.pod.name=$1" -f "label=io.kubernetes.container.name=$2")"
}

# Its control group.
group() { echo "/sys/fs/cgroup$(cut -d: -f3 "/proc/$(process "$1" "$2")/cgroup")"; } # pod, container

web_answers() {
    has "$(curl -s --max-time 60 "http://$(kctl get service web -o 'jsonpath={.spec.clusterIP}')")" web- "the service answers"
}

web_pods() { kctl get pods -l app=web -o 'jsonpath={range .items[?(@.status.phase=="Running")]}{.metadata.name}{"\n"}{end}' | sort; }
running() { docker ps -q --no-trunc --filter label=io.kubernetes.pod.name | sort | xargs docker inspect -f '{{.Id}} {{.State.StartedAt}}'; }

# What is on the machine.
state() {
    echo "rules:"; nft list tables
    echo "links:"; ip -o link | cut -d' ' -f2
    echo "routes:"; ip route
    echo "containers:"; docker ps -aq
    echo "networks:"; docker network ls --format '{{.Name}}'
    echo "mounts:"; cut -d' ' -f5 /proc/self/mountinfo | grep -v '/docker/' | sort -u
    echo "files:"; find / -xdev -iname '*coracle*' -not -path '/proc/*' -o -path /etc/systemd/logind.conf.d/99-minion.conf
    echo "units:"; systemctl list-units --all --no-legend 'coracle*'
    echo "inhibitors:"; systemd-inhibit --list | grep -o kubelet || true
    echo "users:"; getent passwd coracle || true
}

install_and_join() {
    step "master and minion are installed, and join"
    local said join
    said=$(deploy/install.sh master --packages old --advertise-address $address 2>&1) || fail "the master is installed: $said"
    join=$(sed -n 's/^ *deploy\/install.sh minion //p' <<<"$said")
    has "$join" "--server https://$address:6443 --token " "what to type is said"
    # shellcheck disable=SC2086
    said=$(deploy/install.sh minion --packages old $join shutdown-grace-period=60s shutdown-grace-period-critical-pods=20s 2>&1) || fail "the minion is installed: $said"
    has "$said" "cgroups          version 2, systemd driver" "the doctor has seen this machine"
    # There may be none yet.
    until_line '^True$' kctl get nodes -w -o \
        'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}{.status.conditions[?(@.type=="Ready")].status}{"\n"}' ||
        fail "the node is ready"

    step "a controller's pods run behind their service"
    deploy/demo.sh image
    sed 's/replicas: 3/replicas: 2/' deploy/examples/web.yaml | kctl apply -f -
    until_web
    web_answers
}

of_process() { grep -P "^$2:\t" "/proc/$1/status" | cut -f2; } # pid, field

confined_by_systemd() {
    step "the daemons run as their units say, and tell the journal"
    local master minion
    for unit in coracle-master coracle-minion; do
        same "active 0" "$(systemctl show -p ActiveState -p NRestarts --value $unit | sort -r | xargs)" "$unit runs, and has from the start"
        same "" "$(journalctl -b -q -u $unit -p err --no-pager)" "$unit has no errors"
    done
    until_said coracle-master 'API server ready'
    until_said coracle-minion 'pods will have time'
    # Info is below warning: lines have their priority.
    has "$(journalctl -u coracle-minion -p info --no-pager)" "minion runs" "the line is there"
    ! journalctl -u coracle-minion -p warning --no-pager | grep "minion runs" || fail "it is no warning"
    master=$(systemctl show -p MainPID --value coracle-master) minion=$(systemctl show -p MainPID --value coracle-minion)
    same "$(id -u coracle) 0000000000000000 1 2" \
        "$(of_process "$master" Uid) $(of_process "$master" CapBnd) $(of_process "$master" NoNewPrivs) $(of_process "$master" Seccomp)" "the master may nothing"
    same "0 1 2" "$(of_process "$minion" Uid) $(of_process "$minion" NoNewPrivs) $(of_process "$minion" Seccomp)" "the minion is root, and no more"
    [ "$(of_process "$minion" CapBnd)" != "$(of_process 1 CapBnd)" ] || fail "the minion may not everything"
    [ "$(readlink "/proc/$master/ns/mnt")" != "$(readlink /proc/1/ns/mnt)" ] || fail "the master sees a file system of its own"
    same "$(readlink /proc/1/ns/mnt)" "$(readlink "/proc/$minion/ns/mnt")" "the minion mounts for all to see"
}

limits() {
    step "control groups of version 2"
    local group
    until_ready limited
    group=$(group limited main)
    same "25000 100000|4|67108864|0|1" "$(cd "$group" && cat cpu.max cpu.weight memory.max memory.swap.max memory.oom.group | paste -sd '|')" "limits are the group's"
    until_pod greedy '{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}' '^OOMKilled 137$'

    local metrics summary
    metrics=$(kctl get --raw /apis/metrics.k8s.io/v1beta1/namespaces/default/pods/limited)
    grep -qE '"memory":"[1-9][0-9]*Ki"' <<<"$metrics" || fail "kubectl top has numbers: $metrics"
    summary=$(kctl get --raw /api/v1/nodes/machine/proxy/stats/summary)
    python3 - "$summary" <<'END' || fail "the summary has numbers: $summary"
import json, sys
pod = next(p for p in json.loads(sys.argv[1])["pods"] if p["podRef"]["name"] == "limited")
memory, cpu = pod["containers"][0]["memory"], pod["containers"][0]["cpu"]
assert 0 < memory["workingSetBytes"] < 64 << 20 and memory["availableBytes"] == (64 << 20) - memory["workingSetBytes"]
assert cpu["usageCoreNanoSeconds"] > 0 and pod["process_stats"]["process_count"] == 2
END

    for what in certificate key; do
        sed -n "s/.*client-$what-data: *//p" $KUBECONFIG | tr -d '"' | base64 -d >"/run/admin.${what/certificate/crt}"
    done
    curl -sf --cacert /var/lib/coracle/ca.crt --cert /run/admin.crt --key /run/admin.key -X PATCH -H 'content-type: application/strategic-merge-patch+json' \
        -d '{"spec":{"containers":[{"name":"main","resources":{"limits":{"cpu":"500m","memory":"96Mi"}}}]}}' \
        "https://$address:6443/api/v1/namespaces/default/pods/limited/resize" >/dev/null || fail "a pod is made larger"
    until_pod limited '{.status.containerStatuses[0].resources.limits.memory}' '^96Mi$'
    same "50000 100000|100663296|0|1" "$(cd "$group" && cat cpu.max memory.max memory.swap.max memory.oom.group | paste -sd '|')" "new limits are the same group's"
}

nfs() {
    step "a volume of the machine's own NFS server"
    until_ready writer reader
    same "/srv/shared nfs4 rw
/srv/shared nfs4 ro" "$(sed -n 's/^[0-9.]*:\(\S*\) \S* \(nfs4\) \(r[ow]\),.*/\1 \2 \3/p' /proc/mounts | sort -r)" "both are mounted"
    same dear "$(cat /srv/shared/letter)" "the server has what was written"
    same dear "$(docker exec "$(docker ps -qf label=io.kubernetes.pod.name=reader -f label=io.kubernetes.container.name=main)" cat /shared/letter)" "the other pod reads it"
}

apparmor() {
    step "profiles of AppArmor"
    until_ready confined
    same "docker-default (enforce)|letters-only (enforce)|unconfined" \
        "$(for container in default local free; do cat "/proc/$(process confined $container)/attr/current"; done | paste -sd '|')" "each has its own"
    until_pod unknown-profile '{.status.phase} {.status.containerStatuses[0].state.terminated.message}' '^Failed .*apparmor failed to apply profile'
}

sctp() {
    step "a service over SCTP"
    modprobe sctp
    nsenter -t "$(process writer main)" -n setsid python3 sctp.py serve >/run/sctp 2>&1 &
    until_line listens tail --pid $! -n +1 -F /run/sctp || fail "it listens: $(cat /run/sctp)"
    same hello "$(python3 sctp.py ask "$(kctl get service writer -o 'jsonpath={.spec.clusterIP}')" 9999)" "its address answers"
    same hello "$(python3 sctp.py ask $address 30999)" "its node port answers"
}

first_boot() {
    same "" "$(systemctl --failed --no-legend)" "the machine is well"
    state >$kept/before
    install_and_join
    confined_by_systemd

    mkdir -p /srv/shared
    chmod 777 /srv/shared
    echo "/srv/shared 192.168.0.0/24(rw,sync,no_subtree_check)" >/etc/exports
    exportfs -ra
    printf 'profile letters-only flags=(attach_disconnected,mediate_deleted) {\n  file,\n  signal,\n}\n' | apparmor_parser -a
    kctl apply -f pods.yaml
    limits
    nfs
    apparmor
    sctp
    step "what pods had mounted goes with them"
    kctl delete -f pods.yaml
    ! grep -E ' nfs4? ' /proc/mounts || fail "an export is still mounted"

    step "upgrade"
    local before cursor group
    before=$(running)
    cursor=$(journalctl -b -n 0 --show-cursor | sed -n 's/^-- cursor: //p')
    same 4 "$(wc -l <<<"$before")" "two pods are two sandboxes and two containers"
    DEBIAN_FRONTEND=noninteractive apt-get install -y ./new/*.deb >/run/apt 2>&1 || fail "apt-get: $(cat /run/apt)"
    same "0.2.0 0.2.0 0.2.0 " "$(dpkg-query -W -f '${Version} ' coracle-master coracle-minion coracle-kctl)" "all are new"
    until_line 'pods will have time' journalctl -b -f --no-tail -u coracle-minion --after-cursor="$cursor" || fail "the new minion looks out for a shutdown"
    same "t 60000000" "$(busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager InhibitDelayMaxUSec)" "logind will wait"
    same "$before" "$(running)" "no container was touched"
    web_answers

    step "a minion that finds containers of an older version"
    group=$(group "$(web_pods | sed -n 1p)" web)
    echo 0 >"$group/memory.oom.group"
    systemctl restart coracle-minion
    same 1 "$(cat "$group/memory.oom.group")" "what it found ends as a whole"
    same "$before" "$(running)" "no container was touched"

    step "shutdown"
    kctl apply -f ends.yaml
    until_ready ordinary
    until_line '^True$' kctl -n kube-system get pod critical -w -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}{"\n"}' || fail "the critical pod is ready"
    web_pods >$kept/web
    systemctl reboot
}

second_boot() {
    step "pods have ended in their order, and others have taken their place"
    same "ordinary
critical" "$(cat /srv/ends/order)" "the critical ends last"
    until_web
    web_answers
    same "" "$(web_pods | comm -12 - $kept/web)" "none of the old ones runs"
    same 2 "$(docker ps -q --filter label=io.kubernetes.container.name=web | wc -l)" "none runs twice"
    same "Failed Terminated TerminationByKubelet" \
        "$(kctl get pod ordinary -o 'jsonpath={.status.phase} {.status.reason} {.status.conditions[?(@.type=="DisruptionTarget")].reason}')" "it has ended for a reason"
    until_line "Rebooted.*Node machine has been rebooted, boot id: $(cat /proc/sys/kernel/random/boot_id)" kctl get events -w || fail "the reboot is an event"

    step "the power goes"
    kctl delete -f ends.yaml
    web_pods >$kept/web
    sync $kept/boot $kept/web $kept
    # Acknowledged is on the disk, whatever else is not.
    kctl create configmap acknowledged --from-literal=word=dear
    echo gone >$kept/unsynced
    echo b >/proc/sysrq-trigger
}

third_boot() {
    step "what was acknowledged is there, and the same pods run again"
    [ ! -s $kept/unsynced ] || fail "nothing was lost: the power did not go"
    until_line '^dear$' kctl get configmap acknowledged -w -o 'jsonpath={.data.word}{"\n"}' || fail "what was acknowledged is there"
    for pod in $(cat $kept/web); do
        until_pod "$pod" '{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}' '^1 true$'
    done
    web_answers
    same "$(cat $kept/web)" "$(web_pods)" "there are no others"
    same 2 "$(docker ps -q --filter label=io.kubernetes.container.name=web | wc -l)" "none runs twice"

    step "uninstall"
    deploy/install.sh uninstall --purge >/run/uninstall 2>&1 || fail "uninstall: $(cat /run/uninstall)"
    same "$(cat $kept/before)" "$(state)" "nothing is left"
    step "all of it holds"
    systemctl poweroff
}

case $boot in
1) first_boot ;;
2) second_boot ;;
3) third_boot ;;
*) fail "it starts once more" ;;
esac
