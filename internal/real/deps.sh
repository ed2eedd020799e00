#!/bin/sh
# Installs the servers that these tests follow, as Debian packages and only what is missing. With arguments, only what those
# kinds need: Etcd, Redis, Bind, Docker, LXD; Kubernetes and Consul, which Debian does not have, are built once, in ten minutes each,
# into the folder AWE4LB_REAL. It starts nothing.
set -eu
[ $# -gt 0 ] || set -- Etcd Redis Bind Docker LXD
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

missing=
build=
need() { command -v "$1" >/dev/null || missing="$missing $2"; }
for kind; do
	case $kind in
	Etcd) need etcd etcd-server; need etcdctl etcd-client ;;
	Redis) need redis-server redis-server; need redis-cli redis-tools ;;
	Bind) need named bind9 ;;
	Docker) need dockerd docker.io; need containerd containerd; need docker docker.io; need ip iproute2; need iptables iptables ;;
	LXD) need lxd lxd; need lxc lxd-client; need ip iproute2 ;;
	Kubernetes) need etcd etcd-server; build="$build kubernetes" ;;
	Consul) build="$build consul" ;;
	*) echo "deps: got $kind; want Etcd, Redis, Bind, Docker, LXD, Kubernetes or Consul" >&2; exit 2 ;;
	esac
done
for name in $build; do
	"$(dirname "$0")/build-$name.sh" "${AWE4LB_REAL:-${XDG_CACHE_HOME:-$HOME/.cache}/awe4lb-real}"
done
if [ -z "$missing" ]; then
	echo "deps: everything is there"
	exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	command -v sudo >/dev/null || { echo "deps: missing:$missing; want root or sudo to install them" >&2; exit 1; }
	as_root='sudo DEBIAN_FRONTEND=noninteractive'
fi
# Packages ask this program whether they may start their services.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap '$as_root rm -f $policy' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
	$as_root chmod 755 $policy
fi
echo "deps: installing$missing"
$as_root apt-get update -q -o DPkg::Lock::Timeout=300
# shellcheck disable=SC2086
$as_root apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 $missing
