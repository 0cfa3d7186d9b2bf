#!/usr/bin/env bash
# The demo: one master, one minion, three web servers that heal before your eyes. See `make demo` and `make demo-down`.
set -euo pipefail
cd "$(dirname "$0")/.."

dir=${DEMO_DIR:-$PWD/.demo}
port=${DEMO_PORT:-6443}
bin=${CARGO_TARGET_DIR:-$PWD/target}/release
image=coracle/demo-web:1
export KUBECONFIG=$dir/master/admin.kubeconfig
kctl=$bin/kctl

bold() { printf '\n\033[1m==> %s\033[0m\n' "$*"; }
run() { printf '\033[2m$ kctl %s\033[0m\n' "$*"; "$kctl" "$@"; }
die() { printf 'demo: %s\n' "$*" >&2; exit 1; }
# Ends, after the troubles of the cluster, the newest last: they often name the cause.
give_up() {
    "$kctl" get events -A --field-selector type=Warning --sort-by=.lastTimestamp 2>&1 | tail -20 >&2 || true
    die "$*"
}
now() { date +%s%N; }
seconds_since() { awk -v ns=$(($(now) - $1)) 'BEGIN { printf "%.2f s", ns / 1e9 }'; }
# A process that was killed and not yet buried is not alive.
alive() { [ -f "$1" ] && grep -qs '^State:.[^ZX]' "/proc/$(cat "$1")/status"; }

# Reads lines of a command until one matches a pattern; the command is ended then. $1: seconds, $2: pattern.
until_line() {
    local limit=$1 pattern=$2 line
    shift 2
    exec {lines}< <(exec timeout "$limit" "$@" 2>/dev/null)
    local reader=$!
    while read -r -u "$lines" line; do
        if [[ $line =~ $pattern ]]; then
            kill "$reader" 2>/dev/null || true
            exec {lines}<&-
            printf '%s\n' "$line"
            return 0
        fi
    done
    exec {lines}<&-
    return 1
}

build() {
    if [ ! -x "$bin/master" ] || [ ! -x "$bin/minion" ] || [ ! -x "$kctl" ] ||
        [ -n "$(find crates proto Cargo.toml Cargo.lock -newer "$bin/master" -type f -print -quit)" ]; then
        bold "Building master, minion and kctl (the first time takes some minutes)"
        cargo build --release --locked -p master -p minion -p kctl
        touch "$bin/master"
    fi
}

start_master() {
    if alive "$dir/master.pid"; then
        echo "master already runs (pid $(cat "$dir/master.pid"))"
        return
    fi
    mkdir -p "$dir"
    local begun
    begun=$(now)
    setsid "$bin/master" --data-dir "$dir/master" --bind-address 127.0.0.1 --secure-port "$port" >"$dir/master.log" 2>&1 </dev/null &
    echo $! >"$dir/master.pid"
    until_line 20 'API server ready' tail --pid "$(cat "$dir/master.pid")" -n +1 -F "$dir/master.log" >/dev/null ||
        { tail -5 "$dir/master.log" >&2; die "the master did not start; see $dir/master.log"; }
    echo "master ready after $(seconds_since "$begun") (pid $(cat "$dir/master.pid"), log $dir/master.log)"
}

start_minion() {
    if alive "$dir/minion.pid"; then
        echo "minion already runs (pid $(cat "$dir/minion.pid"))"
        return
    fi
    local begun
    begun=$(now)
    CORACLE_TOKEN=$(cat "$dir/master/join-token") setsid "$bin/minion" --server "https://127.0.0.1:$port" \
        --data-dir "$dir/minion" --node-name demo --kubelet-port 0 --healthz-port 0 >"$dir/minion.log" 2>&1 </dev/null &
    echo $! >"$dir/minion.pid"
    until_line 30 'True' "$kctl" get nodes demo -w \
        -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}{"\n"}' >/dev/null || wait_for_node ||
        { tail -5 "$dir/minion.log" >&2; give_up "the minion did not become ready; see $dir/minion.log"; }
    echo "minion joined and is Ready after $(seconds_since "$begun") (pid $(cat "$dir/minion.pid"), log $dir/minion.log)"
}

# The node may not be registered yet when it is first asked for by name: then follow all nodes.
wait_for_node() {
    until_line 30 'demo True' "$kctl" get nodes -w \
        -o 'jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}' >/dev/null
}

web_image() {
    docker image inspect "$image" >/dev/null 2>&1 && return
    local root
    root=$(mktemp -d)
    mkdir -p "$root/bin" "$root/www"
    cp /bin/busybox "$root/bin/busybox"
    for applet in sh httpd hostname sleep cat echo; do ln -s busybox "$root/bin/$applet"; done
    tar -C "$root" -c . | docker import --change 'ENV PATH=/bin' \
        --change 'CMD ["sh","-c","hostname > /www/index.html; exec httpd -f -p 80 -h /www"]' - "$image" >/dev/null
    rm -rf "$root"
    echo "built $image from $(/bin/busybox | head -1 | cut -d' ' -f1-2)"
}

# Waits until exactly $1 pods of the demo run and are ready, following the controller's own count.
wait_ready() {
    until_line 60 "^$1 $1 $1\$" "$kctl" get rc web -w \
        -o 'jsonpath={.spec.replicas} {.status.replicas} {.status.readyReplicas}{"\n"}' >/dev/null ||
        give_up "the web servers did not become ready; try: $kctl describe rc web"
}

# Those that are not on their way out.
web_pods() {
    "$kctl" get pods -l app=web -o 'jsonpath={range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{"\n"}{end}' |
        awk 'NF == 1 { print $1 }'
}

show_spread() {
    local ip=$1
    echo "30 requests to http://$ip:"
    for _ in $(seq 30); do curl -s --max-time 5 "http://$ip/"; done | sort | uniq -c | sed 's/^/  /'
}

# The proxy programs the service within milliseconds; curl itself waits for the first answer.
wait_service() { curl -s --retry 50 --retry-delay 0 --retry-max-time 20 --retry-all-errors --max-time 2 -o /dev/null "http://$1/"; }

heal_container() {
    bold "Killing a container: docker kill"
    local pod id begun before
    pod=$(web_pods | head -1)
    id=$("$kctl" get pod "$pod" -o 'jsonpath={.status.containerStatuses[0].containerID}')
    before=$("$kctl" get pod "$pod" -o 'jsonpath={.status.containerStatuses[0].restartCount}')
    begun=$(now)
    docker kill "${id#docker://}" >/dev/null
    until_line 60 "^$((before + 1)) true\$" "$kctl" get pod "$pod" -w \
        -o 'jsonpath={.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready}{"\n"}' >/dev/null ||
        give_up "the container was not restarted"
    echo "pod $pod runs again after $(seconds_since "$begun")"
    run get pods -l app=web
}

heal_pod() {
    bold "Deleting a pod"
    local pod begun
    pod=$(web_pods | tail -1)
    begun=$(now)
    "$kctl" delete pod "$pod" --wait=false
    wait_ready 3
    until_new_pod "$pod"
    echo "its replacement runs after $(seconds_since "$begun")"
    run get pods -l app=web
}

until_new_pod() {
    local count=0
    while [ "$count" -lt 3 ]; do
        count=$("$kctl" get pods -l app=web --no-headers | grep -v "^$1 " | grep -c '1/1 *Running' || true)
    done
}

up() {
    local begun=$SECONDS
    build
    alive "$dir/master.pid" || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null &&
        ! alive "$dir/master.pid" && die "port $port is taken by another program; choose one with DEMO_PORT=..."
    bold "Starting the master and a minion"
    start_master
    start_minion
    run get nodes -o wide

    bold "A Replication Controller of three, and a Service"
    web_image
    run apply -f deploy/examples/web.yaml
    "$kctl" scale rc web --replicas=3 >/dev/null
    wait_ready 3
    run get rc,pods,svc -o wide
    local ip
    ip=$("$kctl" get svc web -o 'jsonpath={.spec.clusterIP}')
    wait_service "$ip"
    show_spread "$ip"

    heal_container
    heal_pod
    show_spread "$ip"

    bold "Scaling to five, then to two"
    run scale rc web --replicas=5
    wait_ready 5
    run get rc web
    run scale rc web --replicas=2
    wait_ready 2
    run get rc web

    bold "Done in $((SECONDS - begun)) s"
    if [ "${DEMO_EXIT:-0}" = 1 ]; then
        down
        return
    fi
    cat <<END
The cluster keeps running. Use it:
  export KUBECONFIG=$KUBECONFIG
  $kctl get pods -o wide        (stock kubectl works too)
  $kctl describe rc web
Stop it, leaving nothing behind:
  make demo-down
END
}

stop() { # pid file
    alive "$1" || { rm -f "$1"; return 0; }
    local pid
    pid=$(cat "$1")
    kill -TERM "$pid"
    timeout 30 tail --pid "$pid" -f /dev/null || kill -KILL "$pid"
    rm -f "$1"
}

down() {
    bold "Stopping the demo"
    if alive "$dir/master.pid" && alive "$dir/minion.pid"; then
        "$kctl" delete rc,svc web --ignore-not-found >/dev/null 2>&1 || true
    fi
    stop "$dir/minion.pid"
    stop "$dir/master.pid"
    if [ -d "$dir/minion" ] && [ -x "$bin/minion" ]; then
        "$bin/minion" --cleanup --data-dir "$dir/minion"
    fi
    if docker version >/dev/null 2>&1; then docker image rm -f "$image" >/dev/null 2>&1 || true; fi
    rm -rf "$dir"
    echo "nothing is left"
}

case "${1:-up}" in
up) up ;;
down) down ;;
image) web_image ;;
*) die "usage: deploy/demo.sh up|down|image" ;;
esac
