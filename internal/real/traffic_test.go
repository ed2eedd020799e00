//go:build real

package real

import (
	"bufio"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"awe4lb/discovery"
)

// balanced is a world that awe4lb can follow too, by its configuration, with backends that answer.
type balanced interface {
	world
	table() string                    // the keys of a source
	serve(t *testing.T)               // from now on what is added answers with its address
	within(argv ...string) []string   // the command line of a program that reaches the backends
	dial(at string) (net.Conn, error) // from where that program runs
	ends() (removed, changed bool)    // whether a backend ends when it is removed, or changed
}

// traffic is the follower that lets clients through: an awe4lb process of its own finds the backends, and each client that is
// not answered is wrong. Where removing or changing a backend ends it, each client may be caught once by each backend that
// ends; no client may be when none does, or at any other time.
type traffic struct {
	w       balanced
	lb      *process
	stop    chan struct{}
	clients sync.WaitGroup
	served  atomic.Int64

	// Guarded by mu.
	mu      sync.Mutex
	heard   map[string]int // since is looked
	asked   int
	waits   bool
	changes []change // one for each unsure
	wrong   []string
}

// change is something that happens in the world, as the clients see it.
type change struct {
	ended  int // backends, known from expect on
	caught []string
}

// allowed returns how many clients may be caught.
func (c change) allowed() int { return trafficClients * c.ended }

const trafficClients = 4

func newTraffic(t *testing.T, w balanced) *traffic {
	t.Helper()
	w.serve(t)
	dir := shortDir(t)
	program := filepath.Join(dir, "awe4lb")
	output(t, []string{"CGO_ENABLED=0"}, "go", "build", "-o", program, "awe4lb")
	front := "127.0.0.1:" + freePort(t)
	config := filepath.Join(dir, "awe4lb.toml")
	// A session to a container that was cut off hears nothing more from it: the end of the story does not wait for that.
	text := fmt.Sprintf("[admin]\nbind = \"\"\n[engine]\ndrain_timeout = \"1s\"\n[frontends.f]\nbind = [%q]\npool = \"web\"\n[pools.web]\nconnect_timeout = \"1s\"\n[pools.web.discovery]\n"+
		"interval = \"1s\"\ndebounce = \"50ms\"\nretry_max = \"2s\"\nmin_share = 0\n%s\n", front, w.table())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &traffic{w: w, stop: make(chan struct{}), heard: map[string]int{}}
	f.lb = &process{t: t, log: filepath.Join(dir, "log"), argv: w.within(program, "run", "--config", config)}
	f.lb.start()
	t.Cleanup(func() {
		f.end()
		if v := f.verdict(); v != "" && !t.Failed() {
			t.Error(v)
		}
		f.lb.stop(syscall.SIGTERM)
		if t.Failed() {
			t.Log(f.lb.tail())
		}
		failed := len(f.wrong)
		for i, c := range f.changes {
			failed += max(0, len(c.caught)-c.allowed())
			if len(c.caught) > 0 {
				t.Logf("change %d ended %d backends and caught %d clients of at most %d", i+1, c.ended, len(c.caught), c.allowed())
			}
		}
		t.Logf("%d requests of %d clients were served; %d that should have been were not", f.served.Load(), trafficClients, failed)
	})
	until(t, "awe4lb listens", 20*time.Second, func() bool {
		c, err := w.dial(front)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return f.begin(front)
}

// begin lets the clients come as soon as there is a backend.
func (f *traffic) begin(front string) *traffic {
	for range trafficClients {
		f.clients.Go(func() {
			for first := false; ; {
				during := f.during()
				name, err := f.ask(front)
				if first = first || err == nil; first { // before, the pool is empty
					f.note(name, err, during)
				}
				select {
				case <-f.stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
			}
		})
	}
	return f
}

func (f *traffic) end() {
	close(f.stop)
	f.clients.Wait()
}

// ask is one client: it wants a line, within what two attempts to connect take.
func (f *traffic) ask(front string) (string, error) {
	c, err := f.w.dial(front)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// during returns the change that is going on, as an index; -1 is none.
func (f *traffic) during() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.current()
}

func (f *traffic) current() int {
	if !f.waits {
		return -1
	}
	return len(f.changes) - 1
}

// note counts an answer, or none, to a client that came during a change, or not. What is paused may catch a client that is
// told only when the change is long over.
func (f *traffic) note(name string, err error, during int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil {
		f.served.Add(1)
		f.asked++
		f.heard[name]++
		return
	}
	if during < 0 {
		during = f.current()
	}
	if during < 0 {
		f.wrong = append(f.wrong, "a client got "+err.Error())
		return
	}
	f.changes[during].caught = append(f.changes[during].caught, err.Error())
}

func (f *traffic) follow([]discovery.Backend) {}

func (f *traffic) unsure() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waits, f.changes = true, append(f.changes, change{})
}

// expect learns how many backends the change ends. Lists are for is to look for.
func (f *traffic) expect(before, after []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.changes) == 0 { // it begins
		return
	}
	removed, changed := f.w.ends()
	for _, b := range before {
		address, _, _ := strings.Cut(b, " ")
		stays := slices.ContainsFunc(after, func(a string) bool { return strings.HasPrefix(a, address+" ") })
		if !slices.Contains(after, b) && (stays && changed || !stays && removed) {
			f.changes[len(f.changes)-1].ended++
		}
	}
}

// is reports whether clients, a hundred at the least since it was last asked, have heard all that is in want and nobody else.
// A backend of weight 0 is heard by none.
func (f *traffic) is(want []string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked < 100 {
		return false
	}
	heard := slices.Sorted(maps.Keys(f.heard))
	f.asked, f.heard = 0, map[string]int{}
	var used []string
	for _, w := range want {
		if address, weight, _ := strings.Cut(w, " "); weight != "weight=0" {
			used = append(used, address)
		}
	}
	slices.Sort(used)
	if !slices.Equal(heard, used) {
		return false
	}
	f.waits = false
	return true
}

func (f *traffic) verdict() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	wrong := slices.Clone(f.wrong)
	for i, c := range f.changes {
		if len(c.caught) > c.allowed() {
			wrong = append(wrong, fmt.Sprintf("change %d ended %d backends and caught %d clients, %q; want at most %d", i+1, c.ended, len(c.caught), c.caught, c.allowed()))
		}
	}
	return strings.Join(wrong, "\n")
}
