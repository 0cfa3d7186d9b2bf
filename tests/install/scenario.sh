#!/usr/bin/env bash
# Install, configure, upgrade, uninstall, install again: run in a box (box.sh) where no systemd runs.
#
#   scenario.sh REPOSITORY PACKAGES-OF-0.1.0 PACKAGES-OF-0.2.0
set -euo pipefail
repository=$1 old=$2 new=$3
install=$repository/deploy/install.sh
export KUBECONFIG=/var/lib/coracle/admin.kubeconfig
export HOME=/root

step() { printf '\n=== %s\n' "$*"; }
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }
has() { grep -qF -- "$2" <<<"$1" || fail "$3: no $2 in: $1"; } # text, what, sentence
same() { [ "$1" = "$2" ] || fail "$3: $(diff <(echo "$1") <(echo "$2") || true)"; } # before, after, sentence

# Reads lines of a command until one matches. $1: seconds, $2: pattern.
until_line() {
    local limit=$1 pattern=$2
    shift 2
    timeout "$limit" grep -qm1 -E -- "$pattern" < <(exec "$@" 2>/dev/null)
}

# What is on the machine: files beside dpkg's own, mounts, links, routes, rules, containers, images, users, processes.
state() {
    echo "files:"
    (cd /box && find . -mindepth 1 ! -type d -printf '%p %y\n') |
        grep -Ev '^\./(var/lib/dpkg|var/log|var/cache|run|tmp|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|etc/\.pwd\.lock)\b' | sort
    echo "mounts:"; cut -d' ' -f5 /proc/self/mountinfo | grep -v /netns/ | sort
    echo "links:"; ip -o link | cut -d' ' -f2 | sort
    echo "routes:"; ip route | sort
    echo "rules:"; nft -s list ruleset 2>/dev/null | grep -v 'counter' | sort
    echo "containers:"; docker ps -aq
    echo "networks:"; docker network ls --format '{{.Name}}' | sort
    echo "images:"; docker images --format '{{.Repository}}:{{.Tag}}' | sort
    echo "users:"; getent passwd coracle || true
    echo "processes:"; for exe in /proc/[0-9]*/exe; do readlink "$exe" || true; done 2>/dev/null | grep -E '/(master|minion|nft|kctl)\b' || true
    echo "directories:"; ls -d /etc/coracle /var/lib/coracle* /var/log/coracle /usr/lib/systemd/system/coracle* 2>/dev/null || true
}

start_master() {
    setpriv --reuid coracle --regid coracle --clear-groups env -i PATH="$PATH" \
        master --config /etc/coracle/master.yaml >/run/master.log 2>&1 &
    until_line 60 'API server ready' tail --pid $! -n +1 -F /run/master.log || { cat /run/master.log; fail "the master starts"; }
}

start_minion() {
    minion --config /etc/coracle/minion.yaml >/run/minion.log 2>&1 &
    minion=$!
    until_line 60 'minion runs' tail --pid $minion -n +1 -F /run/minion.log || { cat /run/minion.log; fail "the minion starts"; }
}

stop_minion() { kill "$minion"; wait "$minion" || true; }

until_ready() {
    until_line 90 'True' kctl get nodes -w -o \
        'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}{.status.conditions[?(@.type=="Ready")].status}{"\n"}' ||
        { tail -20 /run/minion.log; fail "the node becomes ready"; }
}

until_pods() { # how many
    until_line 90 "^$1 $1\$" kctl get rc web -w -o 'jsonpath={.spec.replicas} {.status.readyReplicas}{"\n"}' ||
        { kctl get pods -o wide; kctl describe pods; fail "$1 pods are ready"; }
}

running() { docker ps -q --no-trunc --filter label=io.kubernetes.pod.name | sort | xargs docker inspect -f '{{.Id}} {{.State.StartedAt}} {{.RestartCount}}'; }
configz() { kctl get --raw "$1" 2>/dev/null || curl -s --cacert /var/lib/coracle/ca.crt --cert /run/admin.crt --key /run/admin.key "https://10.77.0.1:6443$1?pretty=false"; }

admin_pair() {
    for what in certificate key; do
        sed -n "s/.*client-$what-data: *//p" $KUBECONFIG | tr -d '"' | base64 -d >"/run/admin.${what/certificate/crt}"
    done
}

pods() {
    cat <<END
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: users/web:1
        command: [sh, -c, "echo kept > /data/\$HOSTNAME; exec sleep 100000"]
        volumeMounts:
        - {name: data, mountPath: /data}
        - {name: data, mountPath: /part, subPath: part}
        - {name: scratch, mountPath: /scratch}
      volumes:
      - {name: data, hostPath: {path: /srv/data, type: DirectoryOrCreate}}
      - {name: scratch, emptyDir: {medium: Memory}}
END
}

# What install.sh prints for the next box, run again over a master that runs, as where systemd would have started it.
printed_token() {
    local said
    mkdir -p /run/systemd/system
    printf '#!/bin/sh\n' >/usr/local/bin/systemctl
    chmod +x /usr/local/bin/systemctl
    said=$("$install" master --packages "$new" --no-doctor 2>&1) || { echo "$said" >&2; return 1; }
    rm -r /run/systemd /usr/local/bin/systemctl
    sed -n 's/.* minion --server .* --token //p' <<<"$said"
}

users_image() {
    local root
    root=$(mktemp -d)
    mkdir -p "$root/bin"
    cp /bin/busybox "$root/bin/busybox"
    for applet in sh sleep echo; do ln -s busybox "$root/bin/$applet"; done
    tar -C "$root" -c . | docker import --change 'ENV PATH=/bin' - users/web:1 >/dev/null
    rm -rf "$root"
}

install_both() {
    "$install" master --packages "$1" --advertise-address 10.77.0.1
    start_master
    "$install" minion --packages "$1" --server https://10.77.0.1:6443 --token "$(cat /var/lib/coracle/join-token)" node-name=box
    start_minion
    until_ready
}

users_image
mkdir -p /srv/data/part
echo dear >/srv/data/part/letter

step "a machine that is not ready is named, and not installed on"
mkdir -p /etc/ufw
printf '# policies\nDEFAULT_FORWARD_POLICY="DROP"\n' >/etc/default/ufw
echo ENABLED=yes >/etc/ufw/ufw.conf
said=$("$install" minion --packages "$old" --server https://10.77.0.1:6443 2>&1) && fail "it installs in spite of UFW"
has "$said" "/etc/default/ufw:2: write DEFAULT_FORWARD_POLICY=\"ACCEPT\"" "the fix has file and line"
has "$said" "this machine is not ready: ufw" "the item is named"
[ ! -e /usr/bin/minion ] || fail "nothing was installed"
rm -r /etc/default/ufw /etc/ufw

before=$(state)

step "install"
said=$("$install" master --packages "$old" --advertise-address 10.77.0.1 2>&1)
echo "$said"
has "$said" "systemd does not run here" "it says what it cannot do"
has "$said" "kctl token create --kubeconfig /var/lib/coracle/admin.kubeconfig" "how to come by a token"
has "$said" "--server https://10.77.0.1:6443 --token TOKEN" "where it goes"
same "$(stat -c '%U %a' /var/lib/coracle)" "coracle 700" "the master's files are its own"
same "$(stat -c %a /etc/coracle/master.yaml)" 644 "its configuration can be read by it"
start_master
said=$("$install" minion --packages "$old" --server https://10.77.0.1:6443 \
    --token "$(cat /var/lib/coracle/join-token)" node-name=box 2>&1)
has "$said" "systemd does not run here" "it says what it cannot do"
same "$(stat -c '%U %a' /etc/coracle/minion.yaml)" "root 600" "the token is nobody else's"
start_minion
until_ready
pods | kctl apply -f -
until_pods 2
first=$(running)
same "$(wc -l <<<"$first")" 4 "two pods are two sandboxes and two containers"
kctl doctor --server https://10.77.0.1:6443 || fail "the doctor is content with a machine that works"

step "a value in the file is what the daemon runs with; a bad one is refused with its line"
admin_pair
has "$(configz /configz)" '"advertise-address":"10.77.0.1"' "the master shows what it was told"
stop_minion
"$install" minion --packages "$old" --no-doctor max-pods=7 >/dev/null
start_minion
has "$(configz /api/v1/nodes/box/proxy/configz)" '"maxPods":7' "the kubelet has the value"
has "$(configz /api/v1/nodes/box/proxy/configz)" '"max-pods":"7"' "the minion shows what it was told"
has "$(configz /api/v1/nodes/box/proxy/configz)" '"token":"(hidden)"' "the token is not shown"
same "$first" "$(running)" "containers run on while a minion restarts"
for line in 'max-pods: many' 'max-pots: 7' 'image-gc-low-threshold: 99'; do
    cp /etc/coracle/minion.yaml /run/bad.yaml
    sed -i '/^max-pods/d' /run/bad.yaml
    echo "$line" >>/run/bad.yaml
    said=$(minion --config /run/bad.yaml 2>&1) && fail "$line is refused"
    has "$said" "/run/bad.yaml:$(wc -l </run/bad.yaml): " "$line is refused with its line"
done

step "upgrade"
said=$("$install" master --packages "$new" 2>&1 && "$install" minion --packages "$new" 2>&1) || fail "upgrade: $said"
same "$(dpkg-query -W -f '${Version} ' coracle-master coracle-minion coracle-kctl)" "0.2.0 0.2.0 0.2.0 " "all are new"
has "$(cat /etc/coracle/minion.yaml)" "max-pods: '7'" "the configuration stays"
same "$first" "$(running)" "no container was touched"
stop_minion
start_minion
until_ready
same "$first" "$(running)" "the new minion takes the containers over"

step "what is to be typed on the next box has a token that counts"
first=$(printed_token)
same "$first" "$(cat /var/lib/coracle/join-token)" "that of the first start, while it does"
kctl token delete "$first"
second=$(printed_token)
[ "${second%%.*}" != "${first%%.*}" ] || fail "a token that was taken back is printed"
kctl token list | grep -q "^${second%.*} .*Printed by install.sh" || fail "$second is not there"
same "${first##*.}" "${second##*.}" "both pin the cluster's CA"

step "uninstall"
# As a minion with --shutdown-grace-period leaves it where there is a logind.
mkdir -p /etc/systemd/logind.conf.d
printf '# Pods have so long to end when the machine shuts down\n[Login]\nInhibitDelayMaxSec=30\n' \
    >/etc/systemd/logind.conf.d/99-minion.conf
# As the doctor leaves a machine that it has put right.
echo 0 >/proc/sys/net/ipv4/ip_forward
kctl doctor --fix >/dev/null || true
same "$(cat /proc/sys/net/ipv4/ip_forward /etc/sysctl.d/99-coracle.conf)" "1
net.ipv4.ip_forward = 1" "the doctor puts forwarding right"
"$install" uninstall --purge
after=$(state)
same "$before" "$(grep -v '^./srv/data/[a-z0-9-]* f$' <<<"$after")" "nothing is left"
same "$(cat /srv/data/part/letter)" dear "what the user has stays"
same "$(cat /srv/data/web-* | sort -u)" kept "and what pods wrote for him"
"$install" uninstall --purge

step "install again; removed and installed, the cluster is as it was"
install_both "$new"
pods | kctl apply -f -
until_pods 2
"$install" uninstall
same "$(docker ps -aq)" "" "no container is left"
[ -d /var/lib/coracle/store ] || fail "the cluster's state is kept"
[ ! -e /var/lib/coracle-minion ] || fail "the node's is not"
install_both "$new"
until_pods 2
"$install" uninstall minion
until_line 60 'API server' cat /run/master.log || true
kctl get rc web >/dev/null || fail "the master runs on"
"$install" uninstall --purge
same "$before" "$(state | grep -v '^./srv/data/[a-z0-9-]* f$')" "nothing is left"
echo "all of it holds"
