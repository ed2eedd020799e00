package engine

import (
	"encoding/binary"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// What the routing tables say of this host, read by netlink before a configuration is applied, never on a shard.

// hasDivert reports whether a routing rule of a family leads to a table whose default route is local.
func hasDivert(family int) (bool, error) {
	local := map[uint32]bool{}
	err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, family, func(h []byte, attributes func(kind uint16) []byte) {
		// struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
		if h[1] == 0 && h[7] == unix.RTN_LOCAL {
			local[tableOf(uint32(h[4]), attributes(unix.RTA_TABLE))] = true
		}
	})
	if err != nil {
		return false, err
	}
	found := false
	err = dump(unix.RTM_GETRULE, unix.RTM_NEWRULE, family, func(h []byte, attributes func(kind uint16) []byte) {
		// struct fib_rule_hdr has the same shape.
		found = found || local[tableOf(uint32(h[4]), attributes(unix.FRA_TABLE))]
	})
	return found, err
}

// hasLocalRoute reports whether a local route covers an IPv6 prefix.
func hasLocalRoute(p netip.Prefix) (found bool, err error) {
	err = dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, unix.AF_INET6, func(h []byte, attributes func(kind uint16) []byte) {
		to := attributes(unix.RTA_DST)
		if h[7] == unix.RTN_LOCAL && int(h[1]) <= p.Bits() && len(to) == 16 {
			route := netip.PrefixFrom(netip.AddrFrom16([16]byte(to)), int(h[1]))
			found = found || route.Contains(p.Addr())
		}
	})
	return found, err
}

// tableOf returns the number of a routing table, which is in an attribute where it does not fit the header.
func tableOf(header uint32, attribute []byte) uint32 {
	if len(attribute) >= 4 {
		return binary.NativeEndian.Uint32(attribute)
	}
	return header
}

// headerBytes is the length of struct rtmsg and of struct fib_rule_hdr.
const headerBytes = 12

// dump asks the kernel for everything of a kind and calls each with every message's header and a way to its attributes.
func dump(ask, want, family int, each func(header []byte, attributes func(kind uint16) []byte)) error {
	answer, err := syscall.NetlinkRIB(ask, family)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if int(m.Header.Type) == want && len(m.Data) >= headerBytes {
			each(m.Data[:headerBytes], func(kind uint16) []byte { return attribute(m.Data[headerBytes:], kind) })
		}
	}
	return nil
}

// attribute returns the value of the first netlink attribute of a kind, or nil.
func attribute(b []byte, kind uint16) []byte {
	for len(b) >= 4 {
		length := int(binary.NativeEndian.Uint16(b))
		if length < 4 || length > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED == kind {
			return b[4:length]
		}
		b = b[min((length+3)&^3, len(b)):]
	}
	return nil
}
