#!/usr/bin/env bash
# A Debian for machine.sh to boot: its files as one image, kernel and initial files, and an emulator for them.
#
#   tests/machine/image.sh         makes what is missing, as root, from Debian's packages; says where it is
#   tests/machine/image.sh find    says where it is, or what is missing
#   tests/machine/image.sh emulate ARGUMENT...   becomes the emulator
#
# It is kept in ~/.cache/coracle/machine, under the sum of this recipe: another recipe makes another image, and one that
# nobody asked for in a week goes. Nothing is installed on this machine; the image has no password and nothing in it listens
# for logins.
set -euo pipefail

die() { printf 'image: %s\n' "$*" >&2; exit 1; }
cache=${XDG_CACHE_HOME:-$HOME/.cache}/coracle/machine

[ "$(uname -m)" = x86_64 ] || die "the machine is made for x86_64; this is $(uname -m)"
# Programs that were linked here must start there.
libc=$(getconf GNU_LIBC_VERSION | cut -d' ' -f2)
if [ "$(printf '%s\n' "$libc" 2.36 | sort -V | head -1)" = "$libc" ]; then suite=bookworm; else suite=trixie; fi
image=$cache/$suite-$(sha256sum "$0" | cut -c1-12)
emulator=$cache/qemu

emulate() {
    LD_LIBRARY_PATH=$emulator/usr/lib/x86_64-linux-gnu:$emulator/lib/x86_64-linux-gnu exec "$emulator/usr/bin/qemu-system-x86_64" \
        -L "$emulator/usr/share/qemu" -L "$emulator/usr/share/seabios" "$@"
}
# It is linked with libraries of this machine, which may be others by now.
starts() { (emulate --version) >/dev/null 2>&1; }

case "${1:-}" in
find)
    [ -e "$image/root.img" ] && starts || die "there is no machine in $cache (deploy/setup.sh test makes it)"
    touch "$image" 2>/dev/null || true
    echo "$image"
    exit
    ;;
emulate)
    shift
    emulate "$@"
    ;;
esac
[ "$(id -u)" = 0 ] || die "must run as root"
mkdir -p "$cache"
# Another run makes the same, or something else in the same place. What one that was killed left behind goes.
exec {lock}>"$cache/lock"
flock "$lock"
work=$cache/work
rm -rf --one-file-system "$work"
mkdir "$work"
trap 'rm -rf --one-file-system "$work"' EXIT

# Unpacked, with the libraries that are missing here: a machine that has parts of another QEMU keeps them.
if ! starts; then
    mkdir -p "$work/archives/partial" "$work/qemu"
    awk -v RS= -v ORS='\n\n' '!/^Package: qemu-/' /var/lib/dpkg/status >"$work/status"
    fetch() {
        apt-get install -y --no-install-recommends --download-only -o Dir::State::status="$work/status" \
            -o Dir::Cache::archives="$work/archives" -o APT::Sandbox::User=root qemu-system-x86 >"$work/log" 2>&1
    }
    fetch || { apt-get update >"$work/log" 2>&1 && fetch; } || { tail -5 "$work/log" >&2; die "there is no QEMU to be had"; }
    for archive in "$work"/archives/*.deb; do dpkg-deb -x "$archive" "$work/qemu"; done
    rm -rf "$emulator"
    mv "$work/qemu" "$emulator"
    starts || die "the emulator does not start: $( (emulate --version) 2>&1 | tail -1)"
fi
[ ! -e "$image/root.img" ] || { echo "$image"; exit; }

# The kernel of Debian's own images for machines like this one: it has all that is shown, and few drivers to start.
packages=linux-image-cloud-amd64,systemd,systemd-sysv,udev,dbus,kmod,procps,ca-certificates,iproute2
packages+=,docker.io,nftables,iptables,conntrack,curl,busybox-static
packages+=,nfs-kernel-server,nfs-common,apparmor,python3-minimal
[ "$suite" = bookworm ] || packages+=,docker-cli
root=$work/root
mmdebstrap --quiet --mode=root --variant=minbase --include="$packages" --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --customize-hook='printf "MODULES=list\nCOMPRESS=gzip\n" >"$1/etc/initramfs-tools/conf.d/machine"' \
    --customize-hook='printf "virtio_pci\nvirtio_blk\n" >"$1/etc/initramfs-tools/modules"' \
    --customize-hook='chroot "$1" update-initramfs -u' \
    "$suite" "$root" >"$work/log" 2>&1 || { tail -20 "$work/log" >&2; die "there is no Debian to be had"; }

echo machine >"$root/etc/hostname"
printf '127.0.0.1 localhost\n192.168.0.93 machine\n' >"$root/etc/hosts"
# As the emulator's network has it. There is nobody who answers for names.
printf '[Match]\nName=e*\n[Network]\nAddress=192.168.0.93/24\nGateway=192.168.0.1\nLinkLocalAddressing=no\nIPv6AcceptRA=no\n' \
    >"$root/etc/systemd/network/machine.network"
rm -f "$root/etc/resolv.conf"
echo nameserver 192.168.0.1 >"$root/etc/resolv.conf"
# The journal outlives a boot.
mkdir -p "$root/var/log/journal"
printf 'LABEL=payload /mnt ext4 ro,nofail 0 0\n' >"$root/etc/fstab"
cat >"$root/etc/systemd/system/machine.service" <<'END'
[Unit]
Description=What this machine was started for
After=multi-user.target
RequiresMountsFor=/mnt

[Service]
Type=exec
Environment=HOME=/root
ExecStart=/mnt/run
StandardInput=null
StandardOutput=tty
StandardError=inherit
TTYPath=/dev/ttyS1

[Install]
WantedBy=graphical.target
END
systemctl --root "$root" --quiet enable systemd-networkd.service machine.service
systemctl --root "$root" --quiet set-default graphical.target
systemctl --root "$root" --quiet mask serial-getty@ttyS0.service getty@tty1.service apt-daily.timer apt-daily-upgrade.timer \
    e2scrub_all.timer fstrim.timer dpkg-db-backup.timer

mkdir "$work/image"
cp "$root"/boot/vmlinuz-* "$work/image/kernel"
cp "$root"/boot/initrd.img-* "$work/image/initrd"
truncate -s 6G "$work/image/root.img"
mkfs.ext4 -q -F -L machine -d "$root" "$work/image/root.img"
# Images of recipes that nobody has any more.
find "$cache" -mindepth 1 -maxdepth 1 -type d -name '*-????????????' -mtime +7 -exec rm -rf {} +
mv "$work/image" "$image"
echo "$image"
