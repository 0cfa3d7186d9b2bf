#!/usr/bin/env bash
# Boots the Debian that image.sh made, with a kernel and a systemd of its own, and a folder as /mnt, whose `run` is
# started at each boot; prints what that says. The disk is as it was made each time. Nobody else's network is reached.
#
#   tests/machine/machine.sh FOLDER [SECONDS]
#
# Ends when the machine is turned off, or after so many seconds (2700), then with the last lines of its console.
set -euo pipefail

folder=$1 limit=${2:-2700}
image=$("$(dirname "$0")/image.sh" find)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

truncate -s "$(($(du -sm --apparent-size "$folder" | cut -f1) * 9 / 8 + 16))M" "$work/payload.img"
mkfs.ext4 -q -F -O ^has_journal -m 0 -L payload -d "$folder" "$work/payload.img"

# A machine in a machine may have the device and not be able to use it.
accelerator=tcg,thread=multi
if [ -w /dev/kvm ] && grep -qE '^flags.* (vmx|svm)( |$)' /proc/cpuinfo; then accelerator=kvm; fi
options=(
    -machine "q35,usb=off,smbus=off,hpet=off" -accel "$accelerator" -cpu max -smp 2 -m 3G
    -nodefaults -no-user-config -display none
    -kernel "$image/kernel" -initrd "$image/initrd"
    -append "root=LABEL=machine rw quiet console=ttyS0 systemd.show_status=0 mitigations=off random.trust_cpu=on rcupdate.rcu_expedited=1"
    -drive "file=$image/root.img,format=raw,if=virtio,snapshot=on,cache=unsafe"
    -drive "file=$work/payload.img,format=raw,if=virtio,readonly=on"
    -netdev "user,id=net,restrict=on,ipv6=off,net=192.168.0.0/24,host=192.168.0.1,dhcpstart=192.168.0.200"
    -device "virtio-net-pci,netdev=net,romfile="
    -device virtio-rng-pci
    -serial "file:$work/console"
    -chardev "file,id=said,path=$work/said" -device isa-serial,chardev=said
)

# It ends with this script, however that ends. The disk's changes are in $work, without a name.
TMPDIR=$work setpriv --pdeathsig KILL "$(dirname "$0")/image.sh" emulate "${options[@]}" </dev/null &
machine=$!
touch "$work/said"
tail --pid $machine -n +1 -F "$work/said" 2>/dev/null | sed -u 's/\r//' &
status=0
timeout "$limit" tail --pid $machine -f /dev/null || status=$?
[ $status = 0 ] || kill -KILL $machine
wait $machine || status=$?
wait
if [ $status != 0 ]; then
    echo "the machine did not end well ($status); its console:" >&2
    tail -n 30 "$work/console" >&2
fi
exit $status
