package engine

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"strings"
)

// flowSource is an address that flows leave from, with a local port for each; or in AnyIP a prefix, with an address for each.
// Owned by the shard's goroutine.
type flowSource struct {
	address netip.Addr    // the unspecified address: the system chooses by route
	first   int           // where among the shard's ports counting begins, and
	step    int           // how far it goes on: see scatter
	shared  *sharedSocket // AnyIP; nil where each flow has a socket and a port
	leases  leases        // of the ports, or of the addresses
}

// scatter returns a beginning and a step for going through count ports, each once: another balancer on this host may hold
// thousands, and where both went through them in order one would find a long row of ports taken.
func scatter(count int) (first, step int) {
	if count < 2 {
		return 0, 1
	}
	for step = 1 + rand.IntN(count); gcd(step, count) != 1; step = 1 + rand.IntN(count) {
	}
	return rand.IntN(count), step
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// leases gives out numbers below limit, the longest unused first. A number that a flow gave back while an answer may still
// be on its way rests until that answer is overdue, so that a late reply can never reach another client. Owned by the
// shard's goroutine.
//
// The kernel could choose ports, but at random: the port of a flow that ended now may be another's in a millisecond.
type leases struct {
	limit uint32
	fresh uint32 // the first number never given out

	ring []lease // a queue of numbers given back
	head int
	n    int
}

type lease struct {
	until  int64 // tick
	number uint32
}

// leaseLooks is the number of resting numbers passed over for one that is not. They rest for the timeouts of different
// frontends, so the first in the queue need not be the first that is ready.
const leaseLooks = 8

// take returns a number that is ready at now, or false when there is none.
func (p *leases) take(now int64) (number uint32, ok bool) {
	if p.fresh < p.limit {
		p.fresh++
		return p.fresh - 1, true
	}
	for range min(leaseLooks, p.n) {
		l := p.ring[p.head]
		if p.head++; p.head == len(p.ring) {
			p.head = 0
		}
		p.n--
		if l.until <= now {
			return l.number, true
		}
		p.give(l.number, l.until)
	}
	return 0, false
}

// give takes a number back, to rest until the tick given. It allocates while more of them rest than ever before.
func (p *leases) give(number uint32, until int64) {
	if p.n == len(p.ring) {
		ring := make([]lease, max(2*len(p.ring), 64))
		for i := range p.n {
			ring[i] = p.ring[(p.head+i)%len(p.ring)]
		}
		p.ring, p.head = ring, 0
	}
	p.ring[(p.head+p.n)%len(p.ring)] = lease{until, number}
	p.n++
}

// localPorts returns the ports that programs may take on this host for outgoing traffic: ip_local_port_range without
// ip_local_reserved_ports. Both hold for IPv6 too.
func localPorts() []uint16 {
	return parsePorts(readSysctl("ip_local_port_range"), readSysctl("ip_local_reserved_ports"))
}

func readSysctl(name string) string {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/" + name)
	return string(b)
}

// parsePorts reads the two sysctls: "32768	60999" and "8080,9000-9010". Where they cannot be read it takes the kernel's
// default, and none reserved.
func parsePorts(portRange, reserved string) []uint16 {
	low, high := uint64(32768), uint64(60999)
	if f := strings.Fields(portRange); len(f) == 2 {
		l, err1 := strconv.ParseUint(f[0], 10, 16)
		h, err2 := strconv.ParseUint(f[1], 10, 16)
		if err1 == nil && err2 == nil && l > 0 && l <= h {
			low, high = l, h
		}
	}
	out := map[uint64]bool{}
	for entry := range strings.SplitSeq(strings.TrimSpace(reserved), ",") {
		first, last, isRange := strings.Cut(entry, "-")
		if !isRange {
			last = first
		}
		l, err1 := strconv.ParseUint(first, 10, 16)
		h, err2 := strconv.ParseUint(last, 10, 16)
		if err1 == nil && err2 == nil {
			for p := l; p <= h; p++ {
				out[p] = true
			}
		}
	}
	var ports []uint16
	for p := low; p <= high; p++ {
		if !out[p] {
			ports = append(ports, uint16(p))
		}
	}
	return ports
}
