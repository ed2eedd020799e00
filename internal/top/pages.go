package top

import (
	"cmp"
	"time"

	"awe4lb/internal/client"
	"awe4lb/internal/human"
)

// The tables, one for each tab.

// backend is a row: what the last second says, with what is known of it beside.
type backend struct {
	pool string
	client.SampleBackend
	known *client.Backend // by the last status; nil: it is younger
}

func (b *backend) id() string { return b.pool + "/" + b.Address }

// check returns what the health check says.
func (b *backend) check() string {
	if b.known == nil || b.known.Health == nil {
		return ""
	}
	if h := b.known.Health; h.State == "down" && h.LastError != "" {
		return h.Kind + ": " + h.LastError
	}
	return b.known.Health.Kind + " " + b.known.Health.State
}

func (b *backend) since(now time.Time) float64 {
	if b.known == nil || b.known.Health == nil {
		return -1
	}
	return now.Sub(b.known.Health.Since).Seconds()
}

func (m *Model) backends() *table[backend] {
	t := &table[backend]{
		id: (*backend).id,
		style: func(b *backend) string {
			switch b.State {
			case "up":
				return ""
			case "down", "ejected":
				return red
			}
			return yellow
		},
		columns: []column[backend]{
			text("POOL", 10, 0, func(b *backend) string { return b.pool }),
			text("BACKEND", 21, 0, func(b *backend) string { return b.Address }).growing(),
			text("STATE", 11, 0, func(b *backend) string { return b.State }),
			number("WGT", 4, 2, func(b *backend) int { return b.Weight }, func(n int) string { return human.Count(float64(n)) }),
			number("OPEN", 5, 0, func(b *backend) int64 { return b.Open }, count),
			number("NEW/s", 6, 1, func(b *backend) float64 { return b.New }, human.Rate),
			number("C2B/s", 8, 3, func(b *backend) float64 { return b.C2B }, human.Bytes),
			number("B2C/s", 8, 3, func(b *backend) float64 { return b.B2C }, human.Bytes),
			number("ERR/s", 6, 4, func(b *backend) float64 { return b.Errors }, human.Rate),
			number("P99", 7, 4, func(b *backend) float64 { return value(b.ConnectP99) }, latency),
			number("SINCE", 7, 5, func(b *backend) float64 { return b.since(m.now()) }, age),
			text("CHECK", 14, 6, (*backend).check),
		},
	}
	known := map[string]*client.Backend{}
	if m.status != nil {
		for i := range m.status.Pools {
			for j := range m.status.Pools[i].Backends {
				b := &m.status.Pools[i].Backends[j]
				known[b.Pool+"/"+b.Address] = b
			}
		}
	}
	for _, p := range m.sample.Pools {
		if m.pool != "" && p.Name != m.pool {
			continue
		}
		for _, b := range p.Backends {
			t.rows = append(t.rows, backend{p.Name, b, known[p.Name+"/"+b.Address]})
		}
	}
	return t
}

func (m *Model) pools() *table[client.SamplePool] {
	type row = client.SamplePool
	return &table[row]{
		id: func(p *row) string { return p.Name },
		style: func(p *row) string {
			switch {
			case p.Up == 0:
				return red
			case p.Down > 0:
				return yellow
			}
			return ""
		},
		columns: []column[row]{
			text("POOL", 16, 0, func(p *row) string { return p.Name }).growing(),
			number("UP", 5, 0, func(p *row) int { return p.Up }, integer),
			number("DOWN", 5, 0, func(p *row) int { return p.Down }, integer),
			number("OTHER", 5, 1, func(p *row) int { return p.Other }, integer),
			number("OPEN", 7, 0, func(p *row) int64 { return p.Open }, count),
			number("NEW/s", 7, 1, func(p *row) float64 { return p.New }, human.Rate),
			number("C2B/s", 9, 2, func(p *row) float64 { return p.C2B }, human.Bytes),
			number("B2C/s", 9, 2, func(p *row) float64 { return p.B2C }, human.Bytes),
		},
		rows: m.sample.Pools,
	}
}

func (m *Model) frontends() *table[client.SampleFrontend] {
	type row = client.SampleFrontend
	where := map[string]string{}
	if m.status != nil {
		for _, f := range m.status.Frontends {
			if len(f.Listeners) > 0 && !f.Retired {
				where[f.Name] = f.Protocol + " " + f.Listeners[0]
			}
		}
	}
	return &table[row]{
		id: func(f *row) string { return f.Name },
		columns: []column[row]{
			text("FRONTEND", 16, 0, func(f *row) string { return f.Name }).growing(),
			text("LISTENER", 26, 2, func(f *row) string { return where[f.Name] }),
			number("OPEN", 7, 0, func(f *row) int64 { return f.Open }, count),
			number("NEW/s", 7, 0, func(f *row) float64 { return f.New }, human.Rate),
			number("C2B/s", 9, 1, func(f *row) float64 { return f.C2B }, human.Bytes),
			number("B2C/s", 9, 1, func(f *row) float64 { return f.B2C }, human.Bytes),
		},
		rows: m.sample.Frontends,
	}
}

func (m *Model) sessionTable() *table[client.Session] {
	type row = client.Session
	return &table[row]{
		id: func(s *row) string { return s.ID },
		columns: []column[row]{
			text("CLIENT", 21, 0, func(s *row) string { return s.Client }).growing(),
			text("FRONTEND", 10, 3, func(s *row) string { return s.Frontend }),
			text("POOL", 10, 4, func(s *row) string { return s.Pool }),
			text("BACKEND", 21, 0, func(s *row) string { return s.Backend }),
			text("STATE", 10, 2, func(s *row) string { return s.State }),
			number("AGE", 6, 1, func(s *row) float64 { return s.Age }, human.Seconds),
			number("IDLE", 6, 3, func(s *row) float64 { return s.Idle }, human.Seconds),
			number("C2B", 8, 1, func(s *row) uint64 { return s.Bytes.C2B }, bytes),
			number("B2C", 8, 1, func(s *row) uint64 { return s.Bytes.B2C }, bytes),
			text("SNI", 16, 6, func(s *row) string { return s.SNI }),
		},
		rows: m.sessions,
	}
}

func (m *Model) eventTable() *table[client.Event] {
	type row = client.Event
	return &table[row]{
		id: func(e *row) string {
			return e.Time.String() + e.Pool + e.Backend + e.What + e.From + e.To
		},
		style: func(e *row) string {
			switch e.To {
			case "down", "ejected":
				return red
			case "drain", "maintenance":
				return yellow
			case "up":
				return green
			}
			return ""
		},
		columns: []column[row]{
			text("TIME", 8, 0, func(e *row) string { return e.Time.In(m.zone).Format(time.TimeOnly) }),
			text("POOL", 10, 0, func(e *row) string { return e.Pool }),
			text("BACKEND", 21, 0, func(e *row) string { return e.Backend }),
			text("WHAT", 9, 3, func(e *row) string { return e.What }),
			text("CHANGE", 15, 0, (*row).Change),
			text("WHY", 10, 2, func(e *row) string { return why(e) }).growing(),
		},
		rows: m.events,
	}
}

func why(e *client.Event) string {
	switch {
	case e.By == "":
		return e.Why
	case e.Why == "":
		return "by " + e.By
	}
	return e.Why + ", by " + e.By
}

func text[T any](title string, width, rank int, of func(*T) string) column[T] {
	return column[T]{title: title, width: width, rank: rank, cell: of, compare: func(a, b *T) int { return cmp.Compare(of(a), of(b)) }}
}

func number[T any, N cmp.Ordered](title string, width, rank int, of func(*T) N, write func(N) string) column[T] {
	return column[T]{title: title, width: width, rank: rank, right: true, cell: func(r *T) string { return write(of(r)) },
		compare: func(a, b *T) int { return cmp.Compare(of(a), of(b)) }}
}

func (c column[T]) growing() column[T] {
	c.grows = true
	return c
}

func count(n int64) string { return human.Count(float64(n)) }

func integer(n int) string { return human.Count(float64(n)) }

func bytes(n uint64) string { return human.Bytes(float64(n)) }

// value returns what p points to, or -1, which is smaller than all that is measured.
func value(p *float64) float64 {
	if p == nil {
		return -1
	}
	return *p
}

func latency(seconds float64) string {
	if seconds < 0 {
		return ""
	}
	return human.Latency(seconds)
}

func age(seconds float64) string {
	if seconds < 0 {
		return ""
	}
	return human.Seconds(seconds)
}
