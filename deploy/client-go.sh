#!/usr/bin/env bash
# Builds the Go client of the tests (tests/tests/clients/go) with Debian 13's client-go and Go, whatever this machine runs.
#
#   deploy/client-go.sh FOLDER    puts it there as client-go, unless the one there was made of the same; some minutes, once
set -euo pipefail
out=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
. deploy/debian.sh
sources=tests/tests/clients/go
made_of=$(cat deploy/client-go.sh deploy/debian.sh "$sources"/*.go | sha256sum | cut -d' ' -f1)
[ "$(cat "$out/client-go.made-of" 2>/dev/null)" != "$made_of" ] || exit 0

echo "building a client with client-go" >&2
work=$(mktemp -d)
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
run() { "$@" >>"$work/log" 2>&1 || { tail -20 "$work/log" >&2; echo "client-go: $1 failed" >&2; exit 1; }; }
debian_init "$work/apt" "deb http://deb.debian.org/debian trixie main"
run debian update
run debian install -y --download-only --no-install-recommends golang-k8s-client-go-dev golang-1.24-go
for package in "$work"/apt/cache/archives/golang-*.deb; do dpkg-deb -x "$package" "$work/root"; done
rm -r "$work/apt"
# Debian keeps Go's sources apart from its programs.
ln -sfn ../../share/go-1.24/src "$work/root/usr/lib/go-1.24/src"

export GOROOT=$work/root/usr/lib/go-1.24 GOPATH=$work/root/usr/share/gocode GOCACHE=$work/build GO111MODULE=off CGO_ENABLED=0
export GOTOOLCHAIN=local GOFLAGS=
[ -z "$("$GOROOT/bin/gofmt" -l "$sources")" ] || { "$GOROOT/bin/gofmt" -d "$sources" >&2; exit 1; }
run "$GOROOT/bin/go" vet "./$sources"
run "$GOROOT/bin/go" build -ldflags '-s -w' -o "$work/client-go" "./$sources"
mv "$work/client-go" "$out/client-go"
echo "$made_of" >"$out/client-go.made-of"
