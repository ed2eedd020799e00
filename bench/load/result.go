package load

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"awe4lb/bench/hist"
	"awe4lb/bench/proc"
)

// Result is what one run measured. Counts and rates are those of the window; Errors are those of the whole run, from the
// first connect to the last close.
type Result struct {
	Mode        Mode    `json:"mode"`
	Connections int     `json:"connections"`
	Threads     int     `json:"threads"`
	OfferedRate float64 `json:"offered_rate,omitempty"` // per second; open loop only
	Seconds     float64 `json:"seconds"`                // length of the window
	Units       int64   `json:"units"`                  // requests or connections completed in the window
	BytesUp     int64   `json:"bytes_up"`               // bulk: payload sent in the window
	BytesDown   int64   `json:"bytes_down"`             // bulk: payload received in the window

	Latency *hist.Histogram `json:"latency,omitempty"` // requests, connections
	Lag     *hist.Histogram `json:"lag,omitempty"`     // open loop: how late the generator itself was, its own noise

	Datagrams *Datagrams `json:"datagrams,omitempty"` // udp

	Errors map[string]int64 `json:"errors,omitempty"` // by kind; see the Err constants

	CPU     []Share `json:"cpu,omitempty"` // of the watched trees, and of the generator itself under the name "generator"
	Foreign float64 `json:"foreign"`       // share of the machine used by processes that are neither watched nor this one
	Steal   float64 `json:"steal"`         // share of the machine the hypervisor gave away
}

// Datagrams is what became of datagrams that were no round trip. Sent, Lost and Unsent are those of the window.
type Datagrams struct {
	Sent    int64 `json:"sent"`
	Lost    int64 `json:"lost"`    // no answer within the patience
	Unsent  int64 `json:"unsent"`  // open loop: the generator found no time to send them
	Late    int64 `json:"late"`    // answered after they counted as lost
	Refused int64 `json:"refused"` // messages the kernel had no memory for
	Strays  int64 `json:"strays"`  // answers to a former run
	Moved   int64 `json:"moved"`   // the backend saw a client come from another port than before: its flow was made anew
}

func (d *Datagrams) add(o *Datagrams) {
	d.Sent += o.Sent
	d.Lost += o.Lost
	d.Unsent += o.Unsent
	d.Late += o.Late
	d.Refused += o.Refused
	d.Strays += o.Strays
	d.Moved += o.Moved
}

// Loss returns the share of the window's datagrams that had no answer, 0 when nothing was sent.
func (d *Datagrams) Loss() float64 {
	if d == nil || d.Sent == 0 {
		return 0
	}
	return float64(d.Lost) / float64(d.Sent)
}

// Share is the CPU of one process tree during the window.
type Share struct {
	Name string `json:"name"`
	proc.Usage
}

// Kinds of errors. Each is counted once per unit that failed for it.
const (
	ErrConnect  = "connect"           // refused, unreachable, no local port: the errno is appended
	ErrTimeout  = "timeout"           // no connect or no whole response within the time
	ErrReset    = "reset"             // RST instead of an answer
	ErrShort    = "short"             // end of the stream before the whole response
	ErrMismatch = "mismatch"          // bytes other than the ones agreed
	ErrExtra    = "extra bytes"       // bytes nobody asked for
	ErrNoClose  = "not closed"        // the backend's close did not come through
	ErrIdleEnd  = "closed while idle" // the connection ended although nobody asked
	ErrIO       = "read or write"     // any other errno, appended
	ErrAccount  = "account differs"   // bulk: the backend counted other numbers than the client

	ErrHandshake  = "TLS handshake"        // the reason is appended
	ErrNegotiated = "negotiated otherwise" // TLS: version, suite, key exchange, certificate or resumption are not those agreed

	ErrCrossed   = "answer to another client"    // udp: the worst a proxy can do
	ErrElsewhere = "answer from another address" // udp: not the one the client had asked
	ErrDuplicate = "duplicate answer"            // udp
)

// Failed says whether anything at all went wrong. Figures of a failed run are not to be used.
func (r *Result) Failed() bool { return len(r.Errors) > 0 }

// Rate returns units per second, 0 for an empty window.
func (r *Result) Rate() float64 {
	if r.Seconds <= 0 {
		return 0
	}
	return float64(r.Units) / r.Seconds
}

// GBps returns gigabytes (10^9) per second, both directions together.
func (r *Result) GBps() float64 {
	if r.Seconds <= 0 {
		return 0
	}
	return float64(r.BytesUp+r.BytesDown) / 1e9 / r.Seconds
}

// CPUOf returns the usage of the watched tree of that name.
func (r *Result) CPUOf(name string) (proc.Usage, bool) {
	for _, s := range r.CPU {
		if s.Name == name {
			return s.Usage, true
		}
	}
	return proc.Usage{}, false
}

// GeneratorBound says whether the generator used its threads to the full, so that it, and not the target, set the rate.
func (r *Result) GeneratorBound() bool {
	u, ok := r.CPUOf(generatorName)
	return ok && r.Seconds > 0 && u.Total.Seconds() > 0.95*r.Seconds*float64(r.Threads)
}

// ErrorText lists the errors, most frequent first; "" without any.
func (r *Result) ErrorText() string {
	kinds := slices.SortedFunc(maps.Keys(r.Errors), func(a, b string) int {
		if d := r.Errors[b] - r.Errors[a]; d != 0 {
			return int(max(min(d, 1), -1))
		}
		return strings.Compare(a, b)
	})
	var b strings.Builder
	for i, k := range kinds {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d x %s", r.Errors[k], k)
	}
	return b.String()
}

// Print writes the result for a person.
func (r *Result) Print(w io.Writer) {
	switch r.Mode {
	case Requests, Connections:
		fmt.Fprintf(w, "%s: %d in %.2f s = %.0f/s over %d connections", r.Mode, r.Units, r.Seconds, r.Rate(), r.Connections)
		if r.OfferedRate > 0 {
			fmt.Fprintf(w, " (offered %.0f/s, latency from the intended send time)", r.OfferedRate)
		}
		fmt.Fprintln(w)
		printLatency(w, "latency", r.Latency)
		if r.Lag != nil {
			printLatency(w, "of which the generator's own delay", r.Lag)
		}
	case Bulk:
		fmt.Fprintf(w, "bulk: %.3f GB up, %.3f GB down in %.2f s = %.3f GB/s over %d streams\n",
			float64(r.BytesUp)/1e9, float64(r.BytesDown)/1e9, r.Seconds, r.GBps(), r.Connections)
	case UDP:
		r.printDatagrams(w)
	case Idle, HalfOpen:
		fmt.Fprintf(w, "%s: %d connections held\n", r.Mode, r.Connections)
	case Stall:
		fmt.Fprintf(w, "stall: %d streams held, then %.3f GB read in %.2f s\n", r.Connections, float64(r.BytesDown)/1e9, r.Seconds)
	}
	for _, s := range r.CPU {
		fmt.Fprintf(w, "CPU of %s: %.3f s", s.Name, s.Total.Seconds())
		switch {
		case r.Units > 0:
			fmt.Fprintf(w, " = %.2f us and %.2f context switches per unit", s.Total.Seconds()*1e6/float64(r.Units), float64(s.Switches)/float64(r.Units))
		case r.BytesUp+r.BytesDown > 0:
			fmt.Fprintf(w, " = %.0f ms per GB", s.Total.Seconds()*1e3/(float64(r.BytesUp+r.BytesDown)/1e9))
		}
		fmt.Fprintln(w)
	}
	if r.GeneratorBound() {
		fmt.Fprintln(w, "WARNING: the generator used its threads to the full; give it more (-threads), or the rate is its own")
	}
	if r.Foreign > 0.05 || r.Steal > 0.05 {
		fmt.Fprintf(w, "WARNING: processes that are not watched used %.0f %% of the machine, %.0f %% were stolen\n", r.Foreign*100, r.Steal*100)
	}
	if r.Failed() {
		fmt.Fprintf(w, "FAILED: %s\n", r.ErrorText())
	}
}

func (r *Result) printDatagrams(w io.Writer) {
	d := r.Datagrams
	fmt.Fprintf(w, "udp: %d round trips in %.2f s = %.0f/s over %d clients", r.Units, r.Seconds, r.Rate(), r.Connections)
	if r.OfferedRate > 0 {
		fmt.Fprintf(w, " (offered %.0f/s, %.1f %% of it not sent, latency from the intended send time)", r.OfferedRate,
			100*float64(d.Unsent)/float64(max(1, d.Sent+d.Unsent)))
	}
	fmt.Fprintf(w, "\nsent %d, lost %d = %.2f %%, late %d, refused by the kernel %d, strays %d, flows made anew %d\n", d.Sent, d.Lost, 100*d.Loss(), d.Late, d.Refused, d.Strays, d.Moved)
	printLatency(w, "latency", r.Latency)
	if r.Lag != nil {
		printLatency(w, "of which the generator's own delay", r.Lag)
	}
}

func printLatency(w io.Writer, title string, h *hist.Histogram) {
	if h == nil || h.Count() == 0 {
		return
	}
	us := func(d time.Duration) string { return fmt.Sprintf("%.0f", float64(d)/1e3) }
	fmt.Fprintf(w, "%s, us: p50 %s  p90 %s  p99 %s  p99.9 %s  max %s  mean %s\n", title,
		us(h.Quantile(0.5)), us(h.Quantile(0.9)), us(h.Quantile(0.99)), us(h.Quantile(0.999)), us(h.Max()), us(h.Mean()))
}
