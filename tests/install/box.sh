#!/usr/bin/env bash
# A box to install on: this machine's files under an overlay that forgets, with mounts, processes and network of its own
# and no systemd; its Docker Engine starts empty. Runs a command in it as root, and leaves nothing behind.
#
#   tests/install/box.sh COMMAND...
set -euo pipefail

if [ "${1:-}" != --inside ]; then
    export BOX_GROUP=coracle-install-$$
    trap 'find /sys/fs/cgroup -depth -type d -path "*/$BOX_GROUP*" -exec rmdir {} + 2>/dev/null || true; rmdir "$BOX" 2>/dev/null || true' EXIT
    BOX=$(mktemp -d)
    export BOX
    # The init of the box ends with this script, and everything in the box with its init.
    unshare --mount --net --pid --fork --kill-child=KILL --propagation private -- "$0" --inside "$@"
    exit
fi
shift

mount -t tmpfs -o size=4g box "$BOX"
mkdir "$BOX"/{upper,work,root}
mount -t overlay -o "lowerdir=/,upperdir=$BOX/upper,workdir=$BOX/work" overlay "$BOX/root"
cd "$BOX/root"
mkdir -p box
mount --bind "$BOX/upper" box
mount -t proc proc proc
mount --rbind /dev dev
mount --rbind /sys sys
mount -t tmpfs -o size=512m run run
mkdir -p run/lock var/lib/docker
mount -t tmpfs -o size=3g docker var/lib/docker
# What the test brings along is reached where it is.
for place in ${BOX_FOLDERS:-}; do
    mkdir -p ".$place"
    mount --bind "$place" ".$place"
done
mkdir -p run/old
pivot_root . run/old
cd /
umount -l /run/old
rmdir /run/old

ip link set lo up
ip link add eth0 type veth peer name uplink
ip link set uplink up
ip address add 10.77.0.1/24 dev eth0
ip link set eth0 up
ip route add default via 10.77.0.254 dev eth0 onlink
rm -f /etc/resolv.conf
echo nameserver 10.77.0.53 >/etc/resolv.conf
rm -f /etc/docker/daemon.json

dockerd --cgroup-parent "/$BOX_GROUP" >/run/dockerd.log 2>&1 &
timeout 60 sed '/API listen on/q' <(exec tail --pid $! -n +1 -F /run/dockerd.log 2>/dev/null) >/dev/null ||
    { tail -20 /run/dockerd.log >&2; exit 1; }

status=0
"$@" || status=$?
# Containers end while there is still an engine to tell their control groups.
docker ps -aq | xargs -r docker rm -f >/dev/null 2>&1 || true
exit $status
