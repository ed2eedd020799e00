#!/bin/sh
# Three network namespaces for docs/udp-transparent.md, with the routes and rules it asks for.
#
#   transparent.sh up a       variant a: an ip rule by the backends' port
#   transparent.sh up b       variant b: an nft rule by our own sockets
#   transparent.sh up none    without a rule on the balancer
#   transparent.sh up ... fragments    and answers larger than the path takes
#   transparent.sh down       takes them down; nothing there is fine
#
#   awe4lb-client             awe4lb-balancer                        awe4lb-backend
#   10.1.0.2  fd00:1::2 ----- 10.1.0.1  fd00:1::1
#                             10.2.0.1  fd00:2::1 (if backend) ----- 10.2.0.2  fd00:2::2
#
# Backends take datagrams at port 53. Needs root.
set -eu
PATH=$PATH:/usr/sbin:/sbin

usage() {
	echo "usage: transparent.sh up a|b|none [fragments] | down" >&2
	exit 2
}

down() {
	for name in client balancer backend; do
		ip netns delete "awe4lb-$name" 2>/dev/null || true
	done
}

# within runs a command in a namespace.
within() {
	space=$1
	shift
	ip netns exec "awe4lb-$space" "$@"
}

# link joins the balancer and another namespace by a pair of interfaces, each named after the other end.
link() {
	name=$1 net4=$2 net6=$3
	ip link add name balancer netns "awe4lb-$name" type veth peer name "$name" netns awe4lb-balancer
	within "$name" ip addr add "$net4.2/24" dev balancer
	within "$name" ip addr add "$net6::2/64" dev balancer nodad
	within balancer ip addr add "$net4.1/24" dev "$name"
	within balancer ip addr add "$net6::1/64" dev "$name" nodad
	within "$name" ip link set balancer up
	within balancer ip link set "$name" up
	# Clients and backends are behind the balancer.
	within "$name" ip route add default via "$net4.1"
	within "$name" ip -6 route add default via "$net6::1"
}

up() {
	down
	trap down EXIT # what fails half-way leaves nothing behind
	for name in client balancer backend; do
		ip netns add "awe4lb-$name"
		within $name ip link set lo up
		# Neighbours are asked from link-local addresses, which would not be usable in their first second.
		within $name sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
	done
	link client 10.1.0 fd00:1
	link backend 10.2.0 fd00:2

	case $1 in
	a)
		within balancer ip rule add pref 100 iif backend ipproto udp sport 53 lookup 100
		within balancer ip -6 rule add pref 100 iif backend ipproto udp sport 53 lookup 100
		;;
	b)
		within balancer nft 'table inet awe4lb { chain divert { type filter hook prerouting priority mangle; policy accept; meta l4proto udp socket transparent 1 meta mark set 0x1 accept; }; }'
		within balancer ip rule add pref 100 fwmark 0x1 lookup 100
		within balancer ip -6 rule add pref 100 fwmark 0x1 lookup 100
		;;
	esac
	# Only the first fragment of a datagram has ports, so neither variant knows the others, unless connection tracking puts
	# them together first. It does once any rule asks for it.
	if [ -n "${2-}" ]; then
		within balancer nft 'table inet fragments { chain defrag { type filter hook prerouting priority -300; ct state invalid counter; }; }'
	fi
	within balancer ip route add local default dev lo table 100
	within balancer ip -6 route add local default dev lo table 100
	for name in client balancer backend; do
		settle $name
	done
	trap - EXIT
}

# settle waits until every interface of a namespace has its link-local address, from which neighbours are asked: the kernel
# gives them once it has noticed, up to a second late, that the other end is there.
settle() {
	tries=0
	while within "$1" ip -6 -o addr show scope link | grep -q tentative ||
		[ "$(within "$1" ip -6 -o addr show scope link | wc -l)" != "$(within "$1" ip -o link show type veth | wc -l)" ]; do
		tries=$((tries + 1))
		[ $tries -lt 100 ] || { echo "transparent.sh: no link-local addresses in awe4lb-$1" >&2 && exit 1; }
		sleep 0.1
	done
}

case ${1-} in
up)
	[ $# = 2 ] || [ "${3-}" = fragments ] || usage
	case ${2-} in a | b | none) up "$2" "${3-}" ;; *) usage ;; esac
	;;
down) down ;;
*) usage ;;
esac
