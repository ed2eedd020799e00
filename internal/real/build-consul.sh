#!/bin/sh
# Builds consul from the module proxy, unless it is there already: build.sh FOLDER. Ten minutes of one CPU, 3 GB of memory and
# 1.8 GB of build cache the first time. Consul's licence is BUSL: a tool for tests, which nothing links or ships.
set -eu
version=1.22.3
bin=$1/consul-$version
[ -x "$bin" ] && exit 0
mkdir -p "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
source=$(go mod download -json "github.com/hashicorp/consul@v$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
# A main package of our own, since go install takes no module that replaces others. Consul's go.mod excludes two versions.
{
	echo 'module agent'
	sed -n 's/^\(go .*\)/\1/p' "$source/go.mod"
	echo "require github.com/hashicorp/consul v$version"
	sed -n '/^exclude (/,/^)/p; s/^exclude [^(].*/&/p' "$source/go.mod"
} >go.mod
cp "$source/main.go" main.go
cp "$source/go.sum" go.sum
chmod u+w main.go go.sum
go mod tidy
nice -n 15 go build -buildvcs=false -trimpath -ldflags='-s -w' -o "$bin" .
