#!/usr/bin/env bash
# Makes the packages coracle-master, coracle-minion and coracle-kctl for Debian and Ubuntu.
#
#   deploy/package.sh [--from DIR] [--out DIR] [--version VERSION] [--compression xz|gzip|none]
#
# The programs are built for release, or taken from --from. They are linked to the C library of the machine they were
# built on: which version of it they need is read from the programs, and the packages ask for that one (Debian 12 makes
# programs for every distribution since Ubuntu 22.04 and Debian 12, which is glibc 2.34). Static programs would need a
# second C library here, and none of the two allocators is as good as the one they have.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'package: %s\n' "$*" >&2; exit 1; }
from='' out=dist compression=xz
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || die "$1 needs a value"
    case $1 in
    --from) from=$2 ;;
    --out) out=$2 ;;
    --version) version=$2 ;;
    --compression) compression=$2 ;;
    *) die "unknown option $1; there are --from, --out, --version and --compression" ;;
    esac
    shift 2
done
for tool in dpkg-deb objdump od; do
    command -v $tool >/dev/null || die "$tool is missing (packages dpkg and binutils)"
done
if [ -z "$from" ]; then
    cargo build --release --locked -p master -p minion -p kctl
    from=${CARGO_TARGET_DIR:-target}/release
fi
for program in master minion kctl; do
    [ -x "$from/$program" ] || die "no program $from/$program"
done

# The machine a program is for, as dpkg calls it.
architecture() {
    case $(od -An -tx1 -j4 -N1 "$1" | tr -d ' '):$(od -An -tx1 -j18 -N1 "$1" | tr -d ' ') in
    02:3e) echo amd64 ;;
    02:b7) echo arm64 ;;
    *) die "$1 is no program for x86_64 or aarch64" ;;
    esac
}

# The oldest C library that has all a program calls.
glibc() {
    objdump -T "$1" | grep -o 'GLIBC_[0-9][0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2
}

export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || date +%s)}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

file() { install -D -m "$1" "$2" "$root/$3"; }

begin() { # program
    package=coracle-$1 root=$work/coracle-$1
    mkdir -p "$root/DEBIAN"
    chmod 755 "$root"
    file 755 "$from/$1" "usr/bin/$1"
    file 644 README.md "usr/share/doc/$package/README.md"
    libraries="libc6 (>= $(glibc "$from/$1")), libgcc-s1"
}

finish() { # relations, description, text
    local script
    for script in preinst postinst prerm postrm; do
        [ ! -e "deploy/deb/$package.$script" ] || install -m 755 "deploy/deb/$package.$script" "$root/DEBIAN/$script"
    done
    [ ! -d "$root/etc" ] || (cd "$root" && find etc -type f -printf '/%p\n' | sort) >"$root/DEBIAN/conffiles"
    (cd "$root" && find usr etc -type f 2>/dev/null | sort | xargs md5sum) >"$root/DEBIAN/md5sums" || true
    cat >"$root/DEBIAN/control" <<END
Package: $package
Version: $version
Architecture: $(architecture "$root/usr/bin/${package#coracle-}")
Maintainer: Coracle
Section: admin
Priority: optional
Installed-Size: $(du -sk --exclude=DEBIAN "$root" | cut -f1)
$1
Description: $2
$3
END
    dpkg-deb --root-owner-group -Z"$compression" --build "$root" "$out" >/dev/null
    echo "$out/${package}_${version}_$(architecture "$root/usr/bin/${package#coracle-}").deb"
}

begin kctl
finish "Depends: $libraries" "command line of Coracle" " Works like kubectl, and checks machines (kctl doctor)."

begin master
file 644 deploy/etc/master.yaml etc/coracle/master.yaml
file 644 deploy/systemd/coracle-master.service usr/lib/systemd/system/coracle-master.service
for site in coracle.conf coracle-stream.conf; do
    file 644 "deploy/nginx/$site" "usr/share/doc/coracle-master/nginx/$site"
done
finish "Depends: $libraries, passwd, coracle-kctl (>= $version)
Recommends: systemd" "control plane of Coracle, a miniature Kubernetes" \
    " API server, scheduler and controller-manager in one process, over its own file
 or etcd."

begin minion
file 600 deploy/etc/minion.yaml etc/coracle/minion.yaml
file 644 deploy/systemd/coracle-minion.service usr/lib/systemd/system/coracle-minion.service
finish "Depends: $libraries, coracle-kctl (>= $version), nftables, iproute2, conntrack
Recommends: docker.io (>= 20.10) | docker-ce (>= 5:20.10) | moby-engine, systemd" \
    "node of Coracle, a miniature Kubernetes" " Kubelet and service proxy in one process, on a Docker Engine."
