#!/usr/bin/env bash
# Installs what is missing to build, run and test Coracle on Debian or Ubuntu, and starts Docker if none runs.
#
#   deploy/setup.sh build   what the build needs
#   deploy/setup.sh run     ... and what a minion needs (Docker, nftables)
#   deploy/setup.sh test    ... and what the tests need (etcd, Nginx, a registry; kept in ~/.cache/coracle: an old kubectl, the
#                           Python client, one that is built with client-go, a Debian and an emulator to boot it in)
#
# Says what it does; run a second time it does nothing and takes no time.
set -euo pipefail

level=${1:-run}
say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

[ "$(uname -s)" = Linux ] || die "Coracle's daemons run on Linux; this is $(uname -s)"
case "$(uname -m)" in x86_64 | aarch64) ;; *) die "a 64-bit machine is needed (x86_64 or aarch64); this is $(uname -m)" ;; esac

missing=()
need() { # command package...
    local command=$1
    shift
    have "$command" || missing+=("$@")
}

[ -e /etc/ssl/certs/ca-certificates.crt ] || missing+=(ca-certificates)
need cc gcc libc6-dev
need protoc protobuf-compiler
[ -e /usr/include/google/protobuf/descriptor.proto ] || missing+=(libprotobuf-dev)
if [ "$level" != build ]; then
    need dockerd docker.io
    # Newer distributions have the command line in a package of its own.
    have docker || ! apt-cache show docker-cli >/dev/null 2>&1 || missing+=(docker-cli)
    need iptables iptables
    need nft nftables
    need conntrack conntrack
    need ip iproute2
    need curl curl
    [ -x /bin/busybox ] && ! ldd /bin/busybox >/dev/null 2>&1 || missing+=(busybox-static)
fi
if [ "$level" = test ]; then
    need etcd etcd-server
    need dbus-daemon dbus
    need etcdctl etcd-client
    need dig bind9-dnsutils
    need openssl openssl
    need docker-registry docker-registry
    need nginx nginx-light libnginx-mod-stream
    need objdump binutils
    need systemd-analyze systemd
    need mmdebstrap mmdebstrap
    need mkfs.ext4 e2fsprogs
    [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
fi

if [ ${#missing[@]} -gt 0 ]; then
    [ "$(id -u)" = 0 ] || die "these packages are missing: ${missing[*]}; run as root, or install them yourself"
    have apt-get || die "these packages are missing: ${missing[*]}; install them with your distribution's tools"
    say "installing ${missing[*]}"
    # etcd, Nginx and the registry are only run by the tests, on ports of their own: they must not start as services.
    policy=/usr/sbin/policy-rc.d
    if [ "$level" = test ] && [ ! -e $policy ]; then
        printf '#!/bin/sh\ncase "$1" in etcd | nginx | docker-registry) exit 101 ;; esac\nexit 0\n' >$policy
        chmod +x $policy
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    apt-get update >"$log" 2>&1 || { tail -5 "$log" >&2; die "apt-get update failed"; }
    apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1 || { tail -20 "$log" >&2; die "apt-get install failed"; }
    rm -f "$log"
    # Nor with the machine the next time.
    if [ -d /etc/systemd/system ] && have systemctl; then
        for pair in etcd:etcd-server nginx:nginx-light docker-registry:docker-registry; do
            case " ${missing[*]} " in *" ${pair#*:} "*) systemctl disable --quiet "${pair%%:*}" 2>/dev/null || true ;; esac
        done
    fi
fi

# shellcheck disable=SC1091
have cargo || { [ -f "$HOME/.cargo/env" ] && . "$HOME/.cargo/env"; } || true
if ! have cargo; then
    say "installing Rust with rustup"
    if apt-get install -y --no-install-recommends rustup >/dev/null 2>&1; then
        rustup default stable
    else
        have curl || apt-get install -y --no-install-recommends curl ca-certificates >/dev/null
        curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal -c rustfmt -c clippy
    fi
fi

docker_answers() { [ "$(curl -s --max-time 5 --unix-socket /var/run/docker.sock http://docker/_ping)" = OK ]; }
if [ "$level" != build ] && ! docker_answers; then
    [ "$(id -u)" = 0 ] || die "no Docker answers on /var/run/docker.sock; start it, or run as root"
    say "starting Docker"
    if [ -d /run/systemd/system ]; then
        systemctl start docker
    else
        # A Docker that was killed leaves behind the number of a process that is dead, or another by now.
        for pidfile in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
            [ -f $pidfile ] || continue
            status=/proc/$(cat $pidfile)/status
            grep -qsE '^Name:.(dockerd|containerd)$' "$status" && grep -qs '^State:.[^ZX]' "$status" || rm -f $pidfile
        done
        mkdir -p /var/log
        # In its own session: it outlives this script and the terminal.
        setsid dockerd >>/var/log/coracle-dockerd.log 2>&1 </dev/null &
    fi
    deadline=$((SECONDS + 30))
    until docker_answers; do
        [ $SECONDS -lt $deadline ] || die "Docker did not answer within 30 s; see /var/log/coracle-dockerd.log or journalctl -u docker"
        sleep 0.1
    done
fi

# Clients that judge the API from outside. They are kept, not installed: a kubectl the user has stays the one there is.
if [ "$level" = test ]; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/clients
    mkdir -p "$cache"
    if have apt-get && ! compgen -G "$cache/kubectl.*" >/dev/null; then
        say "fetching the distribution's kubectl"
        fetched=$(mktemp -d)
        if (cd "$fetched" && { apt-get download kubernetes-client || { apt-get update && apt-get download kubernetes-client; }; }) \
            >"$fetched/log" 2>&1 && dpkg-deb -x "$fetched"/*.deb "$fetched"; then
            version=$("$fetched/usr/bin/kubectl" version --client -o json | sed -n 's/.*"minor": "\([0-9]*\).*/\1/p')
            install -m 755 "$fetched/usr/bin/kubectl" "$cache/kubectl.1.$version"
        else
            say "there is none here ($(tail -1 "$fetched/log")); the tests say what they leave out"
        fi
        rm -rf "$fetched"
    fi
    # logind itself, without systemd: run by a test on a bus of its own, where it turns nothing off.
    logind=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/elogind
    if have apt-get && [ ! -x "$logind/lib/elogind/elogind" ] && [ ! -x "$logind/usr/libexec/elogind" ]; then
        say "fetching elogind"
        fetched=$(mktemp -d)
        if (cd "$fetched" && { apt-get download elogind || { apt-get update && apt-get download elogind; }; }) >"$fetched/log" 2>&1; then
            dpkg-deb -x "$fetched"/elogind_*.deb "$logind"
        else
            say "there is none here ($(tail -1 "$fetched/log")); the tests say what they leave out"
        fi
        rm -rf "$fetched"
    fi
    wanted=$(dirname "$0")/../tests/tests/clients/requirements.txt
    if ! cmp -s "$wanted" "$cache/python/requirements.txt"; then
        say "fetching the Python client"
        rm -rf "$cache/python"
        python3 -m venv "$cache/python"
        "$cache/python/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
        cp "$wanted" "$cache/python/requirements.txt"
    fi
    if have apt-get && ! "$(dirname "$0")/client-go.sh" "$cache"; then
        say "there is no Go client here; the tests say what they leave out"
    fi
    # A machine with a kernel and a systemd of its own. It takes two minutes, once.
    image=$(dirname "$0")/../tests/machine/image.sh
    if have apt-get && [ "$(id -u)" = 0 ] && ! "$image" find >/dev/null 2>&1; then
        say "making a Debian to boot in an emulator"
        "$image" >/dev/null || say "there is none here; the tests say what they leave out"
    fi
fi
