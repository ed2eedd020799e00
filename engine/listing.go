package engine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Who is there, and ending them by order. Nothing of this costs those anything who are not asked about.

var errEnded = errors.New("the engine has ended")

// SessionID names a session or a flow for as long as the process lives: no two have the same. As text it is the number of its
// shard and when it began, "1-5f3a27c1".
type SessionID struct {
	shard   uint32
	started int64 // loop time, ns; 0: the zero SessionID
}

func (id SessionID) String() string {
	return strconv.FormatUint(uint64(id.shard), 10) + "-" + strconv.FormatInt(id.started, 16)
}

// ParseSessionID returns the SessionID of a text.
func ParseSessionID(text string) (SessionID, error) {
	shard, started, ok := strings.Cut(text, "-")
	n, err := strconv.ParseUint(shard, 10, 32)
	at, err2 := strconv.ParseUint(started, 16, 63)
	if !ok || err != nil || err2 != nil || at == 0 {
		return SessionID{}, fmt.Errorf("got %q; want the id of a session, such as 1-5f3a27c1", text)
	}
	return SessionID{uint32(n), int64(at)}, nil
}

// stamp returns now, or a little later, as the time at which a session or a flow begins: no other of the shard has it.
func (sh *shard) stamp(now int64) int64 {
	sh.stamped = max(now, sh.stamped+1)
	return sh.stamped
}

// SessionFilter says which sessions and flows are meant. What is zero does not matter.
type SessionFilter struct {
	ID       SessionID
	Protocol string // tcp or udp
	Frontend string
	Pool     string
	Backend  string       // its address
	Client   netip.Prefix // that the client is in
}

// client reports whether f means clients at address.
func (f *SessionFilter) client(address netip.Addr) bool {
	return !f.Client.IsValid() || f.Client.Contains(address.Unmap().WithZone(""))
}

func (f *SessionFilter) session(s *session) bool {
	return (f.ID.started == 0 || f.ID.started == s.started) && f.Protocol != "udp" &&
		(f.Frontend == "" || f.Frontend == s.front.Name) &&
		(f.Pool == "" || s.pool != nil && f.Pool == s.pool.Config.Name) &&
		(f.Backend == "" || s.target != nil && f.Backend == s.target.Name) && f.client(s.address.Addr())
}

func (f *SessionFilter) flow(fl *flows, x *flow) bool {
	b := fl.targets[x.target].backend
	return (f.ID.started == 0 || f.ID.started == x.started) && f.Protocol != "tcp" &&
		(f.Frontend == "" || f.Frontend == fl.fronts[x.front].name) && (f.Pool == "" || f.Pool == b.Pool) &&
		(f.Backend == "" || f.Backend == b.Name) && f.client(x.key.clientIP())
}

// SessionInfo is what is known of a session or a flow.
type SessionInfo struct {
	ID       SessionID
	Protocol string // tcp or udp
	Frontend string
	Pool     string         // "" while it is not known
	Backend  string         // its address; "" between attempts to connect
	Client   netip.AddrPort // zero on a unix socket
	Proxy    netip.AddrPort // who has told who the client is; zero: nobody
	State    string         // greeting, tls_client, connecting, asking, tls_backend, open, aborting; unreplied, replied, spent
	Started  time.Time
	Age      time.Duration
	Idle     time.Duration // since a byte moved, as of the last look: up to a quarter of idle_timeout is missing; flows: exact
	C2B, B2C uint64        // bytes, as sent

	ServerName string // that the client asked for, where somebody wants to know
	TLSVersion uint16 // of the client's TLS, where it ends here; else 0

	Asked, Answered uint64 // datagrams of a flow, as sent
}

var (
	sessionStates = [...]string{greeting: "greeting", handshakingClient: "tls_client", queued: "queued", connecting: "connecting", asking: "asking",
		handshakingBackend: "tls_backend", open: "open", aborting: "aborting", ended: "ended"}
	flowStates = [...]string{unreplied: "unreplied", replied: "replied", spent: "spent"}
)

func (s *session) info(now int64) SessionInfo {
	i := SessionInfo{ID: SessionID{uint32(s.sh.number), s.started}, Protocol: "tcp", Frontend: s.front.Name, Client: s.address, Proxy: s.proxy,
		State: sessionStates[s.state], Started: s.sh.loop.Time(s.started), Age: time.Duration(max(now-s.started, 0)),
		C2B: s.backend.sent, B2C: s.client.sent, ServerName: s.name, TLSVersion: s.version}
	if s.pool != nil {
		i.Pool = s.pool.Config.Name
	}
	if s.target != nil {
		i.Backend = s.target.Name
	}
	if s.state == open && !s.moved {
		i.Idle = time.Duration(max(now-s.quiet, 0))
	}
	return i
}

func (fl *flows) info(f *flow, now int64) SessionInfo {
	b := fl.targets[f.target].backend
	return SessionInfo{ID: SessionID{uint32(fl.sh.number), f.started}, Protocol: "udp", Frontend: fl.fronts[f.front].name, Pool: b.Pool, Backend: b.Name,
		Client: f.key.clientAddr(), State: flowStates[f.state], Started: fl.sh.loop.Time(f.started), Age: time.Duration(max(now-f.started, 0)),
		Idle: time.Duration(uint32(now>>tickBits)-f.last) << tickBits, C2B: f.bytes[ToBackend], B2C: f.bytes[ToClient],
		Asked: f.datagrams[ToBackend], Answered: f.datagrams[ToClient]}
}

// MaxPage is the most that ListSessions returns at once.
const MaxPage = 1000

// position is where a page ends: on a shard, after the session that began then, or with started 0 before a flow.
type position struct {
	shard   int
	started int64
	flow    uint32
	flows   bool // the sessions of the shard are done
}

func (p position) String() string {
	if p.flows {
		return fmt.Sprintf("%d-f%x", p.shard, p.flow)
	}
	return fmt.Sprintf("%d-s%x", p.shard, p.started)
}

func parsePosition(text string) (p position, err error) {
	if text == "" {
		return p, nil
	}
	shard, rest, _ := strings.Cut(text, "-")
	if p.shard, err = strconv.Atoi(shard); err == nil && p.shard >= 0 && len(rest) > 1 {
		n, err := strconv.ParseUint(rest[1:], 16, 63)
		switch {
		case err != nil:
		case rest[0] == 's':
			p.started = int64(n)
			return p, nil
		case rest[0] == 'f' && n < 1<<32:
			p.flow, p.flows = uint32(n), true
			return p, nil
		}
	}
	return p, fmt.Errorf("got %q; want what a page before this one said is next", text)
}

// ListSessions returns up to limit sessions and flows that f means, MaxPage at the most, and what to give as after to have those that
// follow; "" when these are all. after is "" for the first page. Whoever is there from the first page to the last is on
// exactly one of them. The order is by shard, sessions before flows, sessions in the order in which they began. It returns an
// error when after makes no sense, ctx ends or the engine has ended. It waits for the shards, which it never keeps from
// their work for longer than some 100 us; safe from any goroutine.
func (e *Engine) ListSessions(ctx context.Context, f SessionFilter, after string, limit int) (page []SessionInfo, next string, err error) {
	from, err := parsePosition(after)
	if err != nil {
		return nil, "", err
	}
	limit = min(max(limit, 1), MaxPage)
	page = []SessionInfo{}
	for ; from.shard < len(e.shards); from = (position{shard: from.shard + 1}) {
		if f.ID.started != 0 && int(f.ID.shard) != from.shard {
			continue
		}
		if err := e.shards[from.shard].list(ctx, &f, &from, limit, &page); err != nil {
			return nil, "", err
		}
		if len(page) == limit {
			return page, from.String(), nil
		}
	}
	return page, "", nil
}

// list adds those of sh that f means to the page, from a position on, until it has limit, and moves the position.
func (sh *shard) list(ctx context.Context, f *SessionFilter, from *position, limit int, page *[]SessionInfo) error {
	at, out := *from, *page // of the loop, until it is done
	now := int64(0)
	w := &walk{flow: func(x *flow) bool {
		fl := sh.flows
		at.flows, at.flow = true, x.number+1
		if f.flow(fl, x) {
			out = append(out, fl.info(x, sh.loop.Now()))
		}
		return len(out) < limit
	}}
	if !from.flows {
		w.session = func(s *session) bool {
			if s.started <= at.started {
				return true
			}
			at.started = s.started
			if f.session(s) {
				if now == 0 || len(out)%64 == 0 {
					now = sh.loop.Now()
				}
				out = append(out, s.info(now))
			}
			return len(out) < limit && ctx.Err() == nil
		}
	}
	if err := w.run(ctx, sh, from.flow); err != nil {
		return err
	}
	*from, *page = at, out
	return ctx.Err()
}

// KillSessions ends the sessions and flows that f means, for the reason killed, and returns their number. Those that begin
// meanwhile may be among them or not. The error is as ListSessions'; then some may have ended. Safe from any goroutine.
func (e *Engine) KillSessions(ctx context.Context, f SessionFilter) (killed int, err error) {
	for _, sh := range e.shards {
		if f.ID.started != 0 && int(f.ID.shard) != sh.number {
			continue
		}
		n := 0
		w := &walk{
			session: func(s *session) bool {
				if f.session(s) {
					s.end(Killed)
					n++
				}
				return ctx.Err() == nil
			},
			flow: func(x *flow) bool {
				if f.flow(sh.flows, x) {
					sh.flows.end(x, Killed)
					n++
				}
				return ctx.Err() == nil
			},
		}
		if err := w.run(ctx, sh, 0); err != nil {
			return killed, err
		}
		killed += n
	}
	return killed, ctx.Err()
}
