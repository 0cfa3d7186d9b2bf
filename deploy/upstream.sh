#!/usr/bin/env bash
# Makes kube-apiserver and kube-controller-manager 1.20 from Debian 12's source package, to compare Coracle with.
#
#   deploy/upstream.sh     makes what is missing in target/upstream; says where the two programs are
#
# It takes five minutes and 3 GB on the way, once. The package is fetched by apt into folders of its own, which checks Debian's
# signatures and leaves the machine's lists as they are. The programs are the reference of `make bench` and of the recorded
# answers in tests/tests/clients/recorded; nothing else here needs them.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'upstream: %s\n' "$*" >&2; exit 1; }
target=${CARGO_TARGET_DIR:-target}
mkdir -p "$target/upstream"
out=$(cd "$target/upstream" && pwd)
programs=(kube-apiserver kube-controller-manager)
answer() { printf 'KUBE_APISERVER=%s KUBE_CONTROLLER_MANAGER=%s\n' "$out/kube-apiserver" "$out/kube-controller-manager"; }

# Another run makes the same. What one that was killed left behind goes.
exec {lock}>"$out/lock"
flock "$lock"
if [ -x "$out/kube-apiserver" ] && [ -x "$out/kube-controller-manager" ]; then
    answer
    exit
fi
. deploy/debian.sh
work=$out/work
log=$out/log
rm -rf "$work"
mkdir -p "$work/source"
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
run() { "$@" >>"$log" 2>&1 || { tail -20 "$log" >&2; die "$1 failed; see $log"; }; }
: >"$log"
if ! command -v go >/dev/null; then
    [ "$(id -u)" = 0 ] || die "Go is missing: run as root, or install golang-go yourself"
    say "installing Go"
    run apt-get update
    DEBIAN_FRONTEND=noninteractive run apt-get install -y --no-install-recommends golang-go
fi

say "fetching the source package"
debian_init "$work/apt" "deb-src http://deb.debian.org/debian bookworm main"
run debian update
# The reflect2 that is part of Kubernetes writes anywhere in memory when a Go since 1.18 has compiled it; Debian's own does not.
(cd "$work/source" && run debian source --download-only kubernetes golang-github-modern-go-reflect2)
unpack() { # archive folder
    rm -rf "$2"
    mkdir -p "$2"
    tar -x -f "$1" -C "$2" --strip-components=1
}
archive=$(echo "$work"/source/kubernetes_*.orig.tar.*)
# Debian's 1.20.5 is 1.20.2 in truth, and says so.
version=${archive##*/kubernetes_}
version=v$(sed -E 's/.*really//; s/\.orig\..*//' <<<"$version")

export GOPATH=$work/go GO111MODULE=off GOCACHE=$work/build CGO_ENABLED=0
tree=$GOPATH/src/k8s.io/kubernetes
unpack "$archive" "$tree"
unpack "$(echo "$work"/source/golang-*reflect2_*.orig.tar.*)" "$tree/vendor/github.com/modern-go/reflect2"
cd "$tree"

# As upstream's Makefile.generated_files does; all else that is generated is part of the archive.
say "generating the schema of $version"
packages=$(grep -rl --include='*.go' '+k8s:openapi-gen=true' staging/src/k8s.io pkg | xargs -n1 dirname | sort -u |
    grep -vE '/(testdata|test|examples|code-generator|kube-openapi)(/|$)|/sample-|^pkg/generated' |
    sed -e 's,^staging/src/,vendor/,' -e 's,^,k8s.io/kubernetes/,' | paste -sd,)
run go build -o "$work/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
run "$work/openapi-gen" -h hack/boilerplate/boilerplate.go.txt -i "$packages" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi -r "$work/violations"

say "building $version (some minutes; the log is $log)"
flags=()
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    package=k8s.io/kubernetes/vendor/$package
    flags+=("-X $package.gitVersion=$version" "-X $package.gitMajor=1" "-X $package.gitMinor=$(cut -d. -f2 <<<"$version")")
done
for program in "${programs[@]}"; do
    run go build -ldflags "-s -w ${flags[*]}" -o "$work/$program" "./cmd/$program"
done
for program in "${programs[@]}"; do mv "$work/$program" "$out/$program"; done
rm -f "$log"
answer
