package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"awe4lb/bench/sys"
	"awe4lb/bench/wire"
)

const (
	datagramBatch   = 64                           // messages per system call, and clients that share a port before the next takes over
	datagramBudget  = 4                            // batches received per event, and sent per wake
	proofWindow     = 64                           // round trips in flight while clients are proved: kind to what must make a flow for each
	proofTries      = 10                           // datagrams a client may lose before it counts as cut off
	maxBehind       = int64(20 * time.Millisecond) // open loop: what is later than this is never sent
	datagramRing    = 1 << 18                      // datagrams whose fate is remembered
	defaultPatience = 500 * time.Millisecond       // then a datagram is lost
)

// datagrams sends UDP from many clients, takes the answers, and proves that each one reached the client that asked, with
// every byte as it was. A client is an address of 127.64.0.0/10 and one of a few ports: each port is one socket, bound to
// the wildcard, that speaks for all addresses by IP_PKTINFO. Clients take turns; a train is several datagrams of one
// client that leave in one system call (UDP_SEGMENT).
//
// The fate of each datagram is kept in a ring, by sequence number:
//
//	unused --send--> out --answer--> answered (again: a duplicate)
//	                  '--patience over--> lost --answer--> answered, counted as late
//
// Every client is proved by one round trip before anything is measured, so that the proxy has its flow; with Fresh the
// flows are what is measured. Closed loop: Window datagrams are out at any time. Open loop: sends follow a schedule as in
// requests, but what cannot be sent in time is left out and counted, since a queue in the generator is no offered load.
type datagrams struct {
	// Set once.
	l       *loop
	cfg     *Config
	clients int     // of this loop
	socks   []int   // one per port
	body    int     // bytes after the header
	window  int     // of this loop
	quota   int64   // Count: how many datagrams this loop sends; 0 = no limit
	period  float64 // open loop: nanoseconds between intended sends; 0 = closed loop
	offset  float64
	run     uint32 // drawn for the whole run; loop i stamps run + i

	// Owned by the loop's goroutine.
	in      *sys.Inbox
	out     *sys.Outbox
	heads   [][wire.DatagramHeader]byte // of what waits in out
	pending int                         // heads in use
	on      int                         // the socket that out is for

	ring     []fate
	next     uint64 // sequence number of the next datagram
	tail     uint64 // none before this is out
	inFlight int
	issued   int64 // towards quota
	turn     int   // the client whose turn it is

	proving int      // the next client to be proved
	proved  int      // clients that had an answer, or were given up
	again   []uint32 // clients whose proof was lost
	tries   []uint8  // by client
	seen    []uint16 // by client: the port the backend saw last

	running bool
	due     int64 // open loop: the next number of the schedule
	to      int64 // open loop: no intended send after this
}

type fateState uint8

const (
	fateUnused fateState = iota
	fateOut
	fateAnswered
	fateLost
)

type fate struct {
	at       int64 // when it was sent, or should have been
	client   uint32
	state    fateState
	measured bool // sent within the window
}

// newRunNumber draws one number per run; see wire.Datagram.
func newRunNumber() uint32 { return rand.Uint32N(math.MaxUint32 - 1024) }

func newDatagrams(l *loop) (*datagrams, error) {
	cfg := &l.r.cfg
	m := &datagrams{l: l, cfg: cfg, clients: int(l.share(int64(cfg.Conns))), body: cfg.DatagramBytes - wire.DatagramHeader,
		window: int(l.share(int64(cfg.Window))), quota: l.share(cfg.Count), run: l.r.runNumber + uint32(l.index),
		in: sys.NewInbox(datagramBatch, cfg.DatagramBytes+1), out: sys.NewOutbox(datagramBatch, 2*cfg.Train),
		heads: make([][wire.DatagramHeader]byte, datagramBatch*cfg.Train), ring: make([]fate, datagramRing)}
	m.tries, m.seen = make([]uint8, m.clients), make([]uint16, m.clients)
	m.again = make([]uint32, 0, m.clients)
	if cfg.Rate > 0 {
		m.period = 1e9 * float64(cfg.Threads*cfg.Train) / cfg.Rate
		m.offset = m.period * float64(l.index) / float64(cfg.Threads)
	}
	for i := range cfg.Ports {
		port := 0
		if cfg.FirstPort > 0 {
			port = cfg.FirstPort + l.index*cfg.Ports + i
		}
		fd, _, err := sys.ListenDatagrams(sys.AnyAddr(port), true, false)
		if err != nil {
			m.closeAll()
			return nil, fmt.Errorf("the clients' port %d: %w", port, err)
		}
		m.socks = append(m.socks, fd)
		if errno := l.ep.Add(fd, sys.In, i, 0); errno != 0 {
			m.closeAll()
			return nil, fmt.Errorf("epoll_ctl add: %w", errno)
		}
	}
	return m, nil
}

// place returns where a client of this loop sits: blocks of clients share a port, so that a batch leaves by one call.
func (m *datagrams) place(client int) (sock, address int) {
	block := client / datagramBatch
	return block % len(m.socks), m.cfg.FirstAddress + block/len(m.socks)*datagramBatch + client%datagramBatch
}

// clientAt is place backwards; -1 when nobody sits there.
func (m *datagrams) clientAt(sock int, ip [4]byte) int {
	at := sys.ClientIndex(ip) - m.cfg.FirstAddress
	if at < 0 {
		return -1
	}
	client := (at/datagramBatch*len(m.socks)+sock)*datagramBatch + at%datagramBatch
	if client >= m.clients {
		return -1
	}
	return client
}

func (m *datagrams) enter(p phase) {
	switch p {
	case phaseConnect:
		if m.cfg.Fresh || m.cfg.OneWay {
			m.proving, m.proved = m.clients, m.clients
		}
	case phaseRun:
		m.running = true
		m.to = m.l.r.t0 + int64(m.cfg.Warmup) + int64(m.cfg.Duration)
	case phaseDrain:
		m.running = false
	}
}

func (m *datagrams) ready() bool { return m.proved == m.clients }

func (m *datagrams) done() bool {
	if m.quota > 0 && m.issued < m.quota {
		return false
	}
	return (m.quota > 0 || !m.running) && m.inFlight == 0
}

// wake gives up on what is overdue and sends what is due.
func (m *datagrams) wake(now int64) {
	m.giveUp(now)
	switch {
	case !m.ready():
		m.prove(now)
	case !m.running:
	case m.period > 0:
		m.sendDue(now)
	default:
		m.fillWindow(now)
	}
	m.flush()
}

func (m *datagrams) wait(now int64) time.Duration {
	switch {
	case m.period > 0 && m.running:
		if at := m.intended(m.due); at < m.to {
			return time.Duration(max(0, min(at-now, int64(phasePoll))))
		}
	case m.cfg.OneWay && m.running && (m.quota == 0 || m.issued < m.quota):
		return 0
	}
	return phasePoll
}

// event receives what has come to one port.
func (m *datagrams) event(sock int, _ int32, _ uint32) {
	for range datagramBudget {
		n, errno := m.in.Receive(m.socks[sock])
		if errno != 0 {
			return
		}
		now := m.l.r.now()
		measuring := m.l.r.measuring.Load()
		for i := range n {
			m.take(sock, i, now, measuring)
		}
		if n < m.in.Cap() {
			return
		}
	}
}

// prove sends to the clients that had no answer yet.
func (m *datagrams) prove(now int64) {
	for m.inFlight < proofWindow {
		switch {
		case len(m.again) > 0:
			client := m.again[len(m.again)-1]
			m.again = m.again[:len(m.again)-1]
			m.compose(int(client), 1, now, false)
		case m.proving < m.clients:
			m.compose(m.proving, 1, now, false)
			m.proving++
		default:
			return
		}
	}
}

// fillWindow sends until as much is out as may be, and as the quota allows.
func (m *datagrams) fillWindow(now int64) {
	measured := m.l.r.measuring.Load()
	for range datagramBudget * datagramBatch {
		n := m.cfg.Train
		if m.quota > 0 {
			n = int(min(int64(n), m.quota-m.issued))
		}
		if n == 0 || !m.cfg.OneWay && m.inFlight+n > m.window {
			return
		}
		m.issue(n, now, measured)
	}
}

// intended returns when number k of the schedule should be sent.
func (m *datagrams) intended(k int64) int64 {
	return m.l.r.t0 + int64(m.offset+float64(k)*m.period)
}

// sendDue sends what the schedule says, and leaves out what is too late for it.
func (m *datagrams) sendDue(now int64) {
	measured := m.l.r.measuring.Load()
	for range datagramBudget * datagramBatch {
		at := m.intended(m.due)
		if at > now || at >= m.to {
			return
		}
		if now-at > maxBehind {
			skip := int64(float64(now-maxBehind-at)/m.period) + 1
			m.due += skip
			if measured {
				m.l.datagrams.Unsent += skip * int64(m.cfg.Train)
			}
			continue
		}
		m.due++
		if measured {
			m.l.lag.Record(time.Duration(now - at))
		}
		m.issue(m.cfg.Train, at, measured)
	}
}

// issue sends n datagrams of the client whose turn it is.
func (m *datagrams) issue(n int, at int64, measured bool) {
	client := m.turn
	if m.turn++; m.turn == m.clients {
		m.turn = 0
	}
	m.issued += int64(n)
	m.compose(client, n, at, measured)
}

func (m *datagrams) closeAll() {
	for _, fd := range m.socks {
		sys.Close(fd)
	}
}
