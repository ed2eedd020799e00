#!/bin/sh
# Installs what the race detector needs (a C compiler) and what the end-to-end tests and the bench run through awe4lb, as
# Debian packages and only what is missing. It starts nothing: the tests start what they need themselves, on free ports and with directories of their own.
set -eu

# What the tests look for, and the package it is in. A path may have wildcards; without a slash it is a command.
wanted='
gcc                                           gcc
/usr/include/stdlib.h                         libc6-dev
nginx                                         nginx
/usr/lib/nginx/modules/ngx_stream_module.so   libnginx-mod-stream
haproxy                                       haproxy
curl                                          curl
openssl                                       openssl
wrk                                           wrk
redis-server                                  redis-server
redis-benchmark                               redis-tools
/usr/lib/postgresql/*/bin/pgbench             postgresql
psql                                          postgresql-client
sshd                                          openssh-server
ssh                                           openssh-client
iperf3                                        iperf3
socat                                         socat
strace                                        strace
prlimit                                       util-linux
ps                                            procps
ss                                            iproute2
ip                                            iproute2
nft                                           nftables
setpriv                                       util-linux
named                                         bind9
dig                                           bind9-dnsutils
sipp                                          sip-tester
dnsdist                                       dnsdist
mariadbd                                      mariadb-server-core
mariadb                                       mariadb-client-core
etcd                                          etcd-server
'
# With arguments, pairs such as those above: these instead.
[ $# -eq 0 ] || wanted=$*

# The services that come with them. One that came with this installation is not to start with the machine either.
services='nginx haproxy redis-server postgresql ssh iperf3 named nftables dnsdist etcd'

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export DEBIAN_FRONTEND=noninteractive

have() {
	case $1 in
	/*) for file in $1; do [ -e "$file" ] && return 0; done; return 1 ;;
	*) command -v "$1" >/dev/null ;;
	esac
}

list() {
	set -f
	# shellcheck disable=SC2086
	set -- $wanted
	set +f
	while [ $# -gt 0 ]; do
		have "$1" || echo "$2"
		shift 2
	done
}

missing=$(list | sort -u | tr '\n' ' ')
if [ -z "$missing" ]; then
	echo "deps: everything is there"
	exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	if ! command -v sudo >/dev/null; then
		echo "deps: missing: $missing" >&2
		echo "deps: want root or sudo to install them: apt-get install --no-install-recommends $missing" >&2
		exit 1
	fi
	as_root='sudo DEBIAN_FRONTEND=noninteractive'
fi
if ! command -v apt-get >/dev/null; then
	echo "deps: missing: $missing" >&2
	echo "deps: this machine has no apt-get; install by its own means what these Debian packages hold" >&2
	exit 1
fi

# Packages ask this program whether they may start their services.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
	trap '$as_root rm -f $policy' EXIT
	trap 'exit 1' HUP INT TERM
	printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
	$as_root chmod 755 $policy
fi

before=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' | sed -n 's/ installed$//p')
echo "deps: installing $missing"
$as_root apt-get update -q -o DPkg::Lock::Timeout=300
# shellcheck disable=SC2086
$as_root apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 $missing

if command -v systemctl >/dev/null; then
	for service in $services; do
		case $service in
		ssh) package=openssh-server ;;
		named) package=bind9 ;;
		etcd) package=etcd-server ;;
		*) package=$service ;;
		esac
		if ! echo "$before" | grep -qx "$package"; then
			$as_root systemctl --quiet disable "$service" 2>/dev/null || true
		fi
	done
fi

still=$(list | sort -u | tr '\n' ' ')
if [ -n "$still" ]; then
	echo "deps: installed, and still not found: what $still should have brought" >&2
	exit 1
fi
