#!/usr/bin/env bash
# Installs Coracle on a Debian or Ubuntu box, as root.
#
#   deploy/install.sh master [--advertise-address IP] [KEY=VALUE...]
#   deploy/install.sh minion --server URL --token TOKEN [--node-ip IP] [KEY=VALUE...]
#   deploy/install.sh uninstall [master|minion|all] [--purge]
#
# --packages DIR says where the packages are (deploy/package.sh makes them; default: dist). Each KEY=VALUE is a flag that
# goes into /etc/coracle/master.yaml or minion.yaml; what stands there already and is not named here stays. Run again
# with newer packages, it upgrades; containers keep running. `kctl doctor` looks at the machine first (--no-doctor).
set -euo pipefail

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }
die() { printf 'install: %s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; exit "${1:-1}"; }

packages=$(dirname "$0")/../dist doctor=yes purge='' settings=()
what=${1:-}
[ -n "$what" ] || usage
shift
targets=()
while [ $# -gt 0 ]; do
    case $1 in
    --packages) packages=${2:?--packages needs a directory}; shift ;;
    --no-doctor) doctor=no ;;
    --purge) purge=yes ;;
    --help) usage 0 ;;
    --server | --token | --node-ip | --advertise-address)
        [ $# -gt 1 ] || die "$1 needs a value"
        settings+=("${1#--}=$2"); shift ;;
    *=*) settings+=("$1") ;;
    master | minion | all) targets+=("$1") ;;
    *) die "unknown argument $1 (deploy/install.sh --help)" ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || die "must run as root"
command -v dpkg >/dev/null || die "there is no dpkg: on other distributions put master, minion and kctl into /usr/bin and use deploy/systemd"
case "$(uname -m)" in x86_64 | aarch64) ;; *) die "a 64-bit machine is needed (x86_64 or aarch64); this is $(uname -m)" ;; esac

with_systemd() { [ -d /run/systemd/system ]; }

# Sets flags in a file: a line that is there is replaced (one that is commented out is not one that is there).
configure() { # file, settings...
    local config=$1 setting key value mask
    shift
    # A token may be among them: what is written is nobody else's to read until it has the file's own mode.
    mask=$(umask)
    umask 077
    for setting in "$@"; do
        key=${setting%%=*} value=${setting#*=}
        [[ $key =~ ^[a-z0-9-]+$ ]] || die "$setting: a flag looks like max-pods=50"
        [[ $value != *$'\n'* ]] || die "$key: a value is one line"
        # Quoted, so that nothing in it means anything to YAML.
        KEY=$key VALUE="'${value//\'/\'\'}'" awk '
            index($0, ENVIRON["KEY"] ":") == 1 { if (!done) print ENVIRON["KEY"] ": " ENVIRON["VALUE"]; done = 1; inside = 1; next }
            inside && /^([ \t]+|- )/ { next }
            { inside = 0; print }
            END { if (!done) print ENVIRON["KEY"] ": " ENVIRON["VALUE"] }' "$config" >"$config.new"
        chmod --reference="$config" "$config.new"
        mv "$config.new" "$config"
    done
    umask "$mask"
}

# The newest package of a name in the folder.
newest() {
    local found
    found=$(find "$packages" -maxdepth 1 -name "$1_*_$(dpkg --print-architecture).deb" | sort -V | tail -1)
    [ -n "$found" ] || die "no package $1 for $(dpkg --print-architecture) in $packages; deploy/package.sh makes it"
    printf '%s\n' "$found"
}

# The configuration is written before the program first starts: it starts as it shall be.
install_packages() { # program
    local program=$1 kctl main
    kctl=$(newest coracle-kctl) main=$(newest "coracle-$program")
    say "installing $(basename "$main") and $(basename "$kctl")"
    export DEBIAN_FRONTEND=noninteractive CORACLE_NO_START=1
    # shellcheck disable=SC2046
    if command -v apt-get >/dev/null && ! dpkg -s $(depends "$main") >/dev/null 2>&1; then
        apt-get update -qq
        apt-get install -y --no-install-recommends -o Dpkg::Options::=--force-confold "$(realpath "$kctl")" "$(realpath "$main")"
    else
        dpkg --force-confold -i "$kctl" "$main"
    fi
    configure "/etc/coracle/$program.yaml" "${settings[@]}"
    with_systemd || return 0
    say "starting coracle-$program"
    systemctl enable --quiet "coracle-$program.service"
    # A minion waits for its master, and whoever installs it need not.
    local wait=()
    [ "$program" = master ] || wait=(--no-block)
    systemctl "${wait[@]}" restart "coracle-$program.service" ||
        die "it does not start; journalctl -u coracle-$program says why"
}

# Names of the packages a package asks for, but for our own.
depends() {
    dpkg-deb -f "$1" Depends | tr ',' '\n' | sed 's/(.*//; s/ //g' | grep -v '^coracle-'
}

check() { # program
    [ "$doctor" = yes ] || return 0
    local from setting server=()
    for setting in "${settings[@]}"; do
        case $setting in server=*) server=(--server "${setting#server=}") ;; esac
    done
    from=$(mktemp -d)
    dpkg-deb -x "$(newest coracle-kctl)" "$from"
    say "looking at this machine"
    "$from/usr/bin/kctl" doctor --role "$1" "${server[@]}" || { rm -rf "$from"; die "put right what is named above (kctl doctor --fix does what is safe), or use --no-doctor"; }
    rm -rf "$from"
}

# What the master's configuration says of a flag.
told() {
    sed -n "s/^$1: *['\"]\{0,1\}\([^'\" ]*\).*/\1/p" /etc/coracle/master.yaml
}

# A token that lets in for an hour at least: that of the first start, or a new one once that ends or was taken back.
join_token() { # the admin's kubeconfig, the file with the token of the first start
    local first left='^<forever>$|[hd]$'
    first=$(cut -d. -f1,2 "$2") || return
    if kctl token list --kubeconfig "$1" | FIRST=$first LEFT=$left awk \
        '$1 == ENVIRON["FIRST"] && $2 ~ ENVIRON["LEFT"] { found = 1 } END { exit !found }'; then
        cat "$2"
    else
        kctl token create --description "Printed by install.sh." --kubeconfig "$1"
    fi
}

after_master() {
    local address port dir admin token
    address=$(told advertise-address) port=$(told secure-port) dir=$(told data-dir)
    dir=${dir:-/var/lib/coracle}
    admin=$dir/admin.kubeconfig
    [ -n "$address" ] || address=$(ip -4 route get 192.0.2.1 2>/dev/null | sed -n 's/.* src \([0-9.]*\).*/\1/p') || true
    # Where the master does not run, or another part of it, nobody can ask for a token.
    if ! with_systemd || ! token=$(join_token "$admin" "$dir/join-token"); then
        token=TOKEN
        say "once the API is served, this prints a TOKEN:"
        echo "    kctl token create --kubeconfig $admin"
    fi
    say "on each box that shall run pods:"
    echo "    deploy/install.sh minion --server https://${address:-MASTER-IP}:${port:-6443} --token $token"
    say "here: export KUBECONFIG=$admin"
}

uninstall() {
    local program present=()
    [ ${#targets[@]} -gt 0 ] || targets=(all)
    for program in minion master; do
        case " ${targets[*]} " in *" $program "* | *" all "*) ;; *) continue ;; esac
        dpkg -s "coracle-$program" >/dev/null 2>&1 && present+=("coracle-$program")
    done
    # The command line goes with the last daemon.
    case " ${targets[*]} " in *" all "*) dpkg -s coracle-kctl >/dev/null 2>&1 && present+=(coracle-kctl) ;; esac
    if [ ${#present[@]} -eq 0 ]; then
        echo "nothing of Coracle is installed"
        return
    fi
    say "removing ${present[*]}"
    if [ -n "$purge" ]; then dpkg --purge "${present[@]}"; else dpkg --remove "${present[@]}"; fi
    [ -n "$purge" ] || echo "kept: /etc/coracle, and the cluster's state in /var/lib/coracle if there was a master (--purge removes them)"
}

case $what in
master)
    check master
    install_packages master
    after_master
    ;;
minion)
    given=" ${settings[*]} "
    [[ $given == *" server="* || $given == *" pod-manifest-path="* ]] || grep -qs '^server:' /etc/coracle/minion.yaml ||
        die "--server is needed: the master's URL, https://IP:6443"
    check minion
    install_packages minion
    ;;
uninstall) uninstall ;;
--help | -h) usage 0 ;;
*) die "unknown command $what (deploy/install.sh --help)" ;;
esac
