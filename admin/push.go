package admin

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"awe4lb/config"
)

// pusher sends the native view to [admin.push], for those who keep metrics and do not come for them, in the way of
// VictoriaMetrics' import API: a POST of the text format, gzipped.
//
// Its goroutine lives while there is a URL. A reload that changes something ends it and starts another; both may be at work
// for as long as the last push of the first takes to notice. The counters are of all of them.
type pusher struct {
	sent, failed atomic.Uint64 // shared

	// Guarded by mu.
	mu      sync.Mutex
	cfg     config.AdminPush
	current *pushing // nil: nobody pushes
	stopped bool
}

// pushing is one goroutine and how it is ended.
type pushing struct {
	// Set once, never changed.
	s      *Server
	cfg    config.AdminPush
	client *http.Client
	ctx    context.Context // ends the push at hand
	cancel context.CancelFunc
	last   chan struct{} // closed: push once more, then end
	done   chan struct{} // closed when the goroutine has ended

	failing bool // what was logged last; owned by the goroutine
	working bool // the same
}

const (
	pushTimeout    = 10 * time.Second // for one push, or interval where that is less
	pushMaxWait    = time.Minute      // between attempts that fail, or interval where that is more
	pushLastChance = time.Second      // for the push at the end
)

// apply has s push as c says from now on. Never waits.
func (p *pusher) apply(s *Server, c config.AdminPush) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stopped || c == p.cfg {
		return
	}
	p.cfg = c
	if p.current != nil {
		p.current.cancel()
		p.current = nil
	}
	if c.URL == "" {
		return
	}
	x := &pushing{s: s, cfg: c, last: make(chan struct{}), done: make(chan struct{})}
	x.ctx, x.cancel = context.WithCancel(context.Background())
	// A redirect would take the token elsewhere.
	x.client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: c.Interval + time.Minute, DisableCompression: true}}
	p.current = x
	go x.run()
}

// stop ends pushing after a last push, for which there is a second, and no longer than ctx lasts.
func (p *pusher) stop(ctx context.Context) {
	p.mu.Lock()
	p.stopped = true
	x := p.current
	p.current = nil
	p.mu.Unlock()
	if x == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, pushLastChance)
	defer cancel()
	close(x.last)
	select {
	case <-x.done:
	case <-ctx.Done():
	}
	x.cancel()
	<-x.done
}

// run pushes at once, and then every interval. What fails is tried again later and later.
func (x *pushing) run() {
	defer close(x.done)
	defer x.client.CloseIdleConnections()
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := x.cfg.Interval
	for {
		select {
		case <-timer.C:
		case <-x.last:
			x.push()
			return
		case <-x.ctx.Done():
			return
		}
		next := x.cfg.Interval
		if x.push() {
			wait = next
		} else {
			next, wait = wait, min(2*wait, max(pushMaxWait, x.cfg.Interval))
		}
		// Many that were started in one moment shall not come in one moment for ever.
		timer.Reset(next - time.Duration(rand.Int64N(int64(next/20)+1)))
	}
}

// push sends the metrics once, counts, and logs when it begins to work or to fail.
func (x *pushing) push() (ok bool) {
	err := x.send()
	p, log := &x.s.push, x.s.o.Log
	switch {
	case err == nil:
		p.sent.Add(1)
		if !x.working {
			log.Info("metrics are pushed", "interval", x.cfg.Interval)
		}
		x.working, x.failing = true, false
	case x.ctx.Err() != nil: // a reload or the end came between
	default:
		p.failed.Add(1)
		if !x.failing {
			log.Warn("metrics cannot be pushed; trying again", "error", err)
		}
		x.working, x.failing = false, true
	}
	return err == nil
}

func (x *pushing) send() error {
	ctx, cancel := context.WithTimeout(x.ctx, min(pushTimeout, max(x.cfg.Interval, time.Second)))
	defer cancel()
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	_, _ = z.Write(x.s.pushed(x.cfg.Labels))
	_ = z.Close()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, x.cfg.URL, &body)
	if err != nil {
		return errors.New("the URL cannot be used")
	}
	req.Header.Set("Content-Type", textFormat)
	req.Header.Set("Content-Encoding", "gzip")
	req.Header.Set("User-Agent", "awe4lb/"+x.s.o.Version)
	if x.cfg.Bearer != "" {
		req.Header.Set("Authorization", "Bearer "+x.cfg.Bearer)
	}
	res, err := x.client.Do(req)
	if err != nil {
		var with *url.Error // it shows the URL, which may hold a key
		if errors.As(err, &with) {
			err = with.Err
		}
		return err
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 512))
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the answer is %s: %s", strconv.Itoa(res.StatusCode), cutText(string(said), 200))
	}
	return nil
}

// pushed returns the native view with labels added to each series.
func (s *Server) pushed(extra string) []byte {
	text := s.text(&viewQuery{view: views[""]})
	if extra == "" {
		return text
	}
	out := make([]byte, 0, len(text)*3/2)
	for line := range bytes.Lines(text) {
		end := bytes.IndexAny(line, "{ ")
		switch {
		case line[0] == '#' || end < 0:
			out = append(out, line...)
		case line[end] == '{':
			out = append(append(append(append(out, line[:end+1]...), extra...), ','), line[end+1:]...)
		default:
			out = append(append(append(append(append(out, line[:end]...), '{'), extra...), '}'), line[end:]...)
		}
	}
	return out
}
