#!/bin/sh
# Puts Debian's prometheus and promtool below the directory given, unpacked and not installed: installed it would be 330 MB
# with what it recommends, and a service that starts. Says nothing when they are there already.
set -eu
dir=$1
[ -x "$dir/usr/bin/promtool" ] && exit 0

if ! command -v apt-get >/dev/null; then
	echo "prometheus: this machine has no apt-get; put prometheus and promtool of 2.42 or later in $dir/usr/bin" >&2
	exit 1
fi
if ! apt-cache show prometheus >/dev/null 2>&1; then
	as_root=
	[ "$(id -u)" = 0 ] || as_root=sudo
	$as_root apt-get update -q -o DPkg::Lock::Timeout=300
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
(cd "$work" && apt-get download -q prometheus)
mkdir -p "$dir"
dpkg -x "$work"/prometheus_*.deb "$dir"
