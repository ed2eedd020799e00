package report

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"awe4lb/bench/stats"
)

// page collects Markdown.
type page struct {
	strings.Builder
	r       *Results
	figures string // directory of the pictures, relative to the page
}

// Markdown writes the page. figures is the directory of the pictures, relative to it.
func (r *Results) Markdown(w io.Writer, figures string) error {
	p := &page{r: r, figures: figures}
	p.head()
	p.failures()
	p.bars()
	p.pictures()
	for _, s := range r.Scenarios {
		if s.Unit == PerRoundTrip {
			p.udpScenario(s)
		} else {
			p.scenario(s)
		}
	}
	p.flows()
	p.syscalls()
	p.memory("", "Memory of idle connections", "while connections are held that have had one request\neach")
	p.memory(MemoryTLS, "Memory of idle TLS connections", "while TLS connections are held that have had one request\neach")
	p.memory(MemoryHalfOpen, "Memory of half-open handshakes", "while clients are held that have sent a ClientHello,\nheard the answer, and say nothing more")
	p.stalls()
	p.verified()
	p.conditions()
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *page) f(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// row writes one line of a table.
func (p *page) row(cells ...string) {
	p.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

// header writes a table's head; columns whose title begins with '>' are aligned to the right.
func (p *page) header(titles ...string) {
	rule := make([]string, len(titles))
	for i, t := range titles {
		rule[i] = "---"
		if after, ok := strings.CutPrefix(t, ">"); ok {
			titles[i], rule[i] = after, "---:"
		}
	}
	p.WriteString("\n")
	p.row(titles...)
	p.row(rule...)
}

func (p *page) head() {
	r := p.r
	kind := "Full run"
	if r.Quick {
		kind = "Quick run (short windows, few rounds: a first look, not a record)"
	}
	dirty := ""
	if r.Dirty {
		dirty = " with local changes"
	}
	p.f("# %s beside its rivals, %s\n\n", r.Subject, r.Date.Format("2 January 2006"))
	p.f("%s of commit `%s`%s, begun %s UTC. Repeat it with `%s`.\n\n", kind, r.Commit, dirty, r.Date.Format("15:04"), r.Command)
	p.f("**How to read it.** The proxies, the load generator and the backends share one machine of %d cores, so rates and latencies\n", r.Machine.Cores)
	p.f("say as much about the machine as about a proxy. The figure that counts is the *CPU of the proxy's process tree per unit\n")
	p.f("of work, as a ratio to %s (UDP: %s) within the same round*. A ratio is the median over the rounds; \"best/best\" compares\n", Reference, UDPReference)
	p.f("the least disturbed run of each. Lost comparisons stay in.\n")
	for _, s := range r.Systems {
		if s.Skipped != "" {
			p.f("\n**%s was not measured:** %s\n", s.Name, s.Skipped)
		}
	}
}

func (p *page) failures() {
	if len(p.r.Failures) == 0 {
		return
	}
	p.f("\n## Failures\n\nFigures of these runs are not used.\n\n")
	for _, f := range p.r.Failures {
		p.f("- %s\n", f.Text)
	}
}

func (p *page) bars() {
	p.f("\n## Bars\n")
	if !slices.ContainsFunc(p.r.Measured(), func(s System) bool { return s.Name == p.r.Subject }) {
		p.f("\nNot measured: %s did not take part.\n", p.r.Subject)
		return
	}
	p.header("figure", ">bar", ">stretch", ">measured", ">best/best", ">quartiles of the rounds", "verdict", "steady?")
	for _, b := range p.r.bars() {
		o := b.measure(p.r)
		sign := "≤ "
		if b.Higher {
			sign = "≥ "
		}
		stretch := "–"
		if b.Stretch != 0 {
			stretch = sign + trim(b.Stretch)
		}
		unit := ""
		if b.Unit != "" {
			unit = " " + b.Unit
		}
		if !o.Measured {
			p.row(b.Figure, sign+trim(b.Want)+unit, stretch, "–", "–", "–", b.Verdict(o), "")
			continue
		}
		best, quartiles, steady := "–", "–", "steady"
		if o.Best != 0 {
			best = fixed(o.Best, 2)
		}
		if o.Rounds > 1 {
			quartiles = fixed(o.Low, 2) + "–" + fixed(o.High, 2)
		}
		if o.Noise != "" {
			steady = o.Noise
		}
		switch b.Unit {
		case "":
		case "µs", "% of a core":
			steady = "few repeats"
		default:
			steady = "counted"
		}
		verdict := b.Verdict(o)
		if strings.HasPrefix(verdict, "missed") {
			verdict = "**" + verdict + "**"
		}
		p.row(b.Figure, sign+trim(b.Want)+unit, stretch, "**"+fixed(o.Value, 2)+"**"+unit, best, quartiles, verdict, steady)
	}
	p.f("\n\"Noisy\" means that the quartiles of the rounds lie more than %.0f %% apart, or that other processes used or the hypervisor\n", noisySpread*100)
	p.f("took more than %.0f %% of the machine while the scenario ran (median over its runs).\n", noisyShare*100)
}

func (p *page) pictures() {
	p.f("\n## Pictures\n")
	for _, f := range p.r.Figures() {
		p.f("\n![%s](%s/%s)\n", f.Title, p.figures, f.Name)
	}
}

func (p *page) scenario(s Scenario) {
	r := p.r
	p.f("\n## %s\n\n", strings.ToUpper(s.Title[:1])+s.Title[1:])
	foreign, steal := r.Noise(s.Key)
	p.f("%s", strings.ToUpper(s.Note[:1])+s.Note[1:])
	if s.Open {
		p.f(", %s requests/s offered; latency counts from the intended send time", thousands(r.offered(s.Key)))
		if lag := r.lag(s.Key); !math.IsNaN(lag) {
			p.f(" (the generator's own delay: p99 %s µs)", fixed(lag, 0))
		}
	}
	p.f(". While it ran, others used %.0f %% of the machine and %.0f %% were stolen.\n", foreign*100, steal*100)

	rate, cpu, digits := ">requests/s", "µs", 1
	switch s.Unit {
	case PerConnection:
		rate = ">connections/s"
	case PerHandshake:
		rate = ">handshakes/s"
	case PerGB:
		rate, cpu, digits = ">GB/s", "ms", 0
	}
	titles := []string{"system", rate, ">best", ">ratio", ">CPU per " + string(s.Unit) + ", " + cpu, ">min", ">**ratio**", ">quartiles", ">best/best", ">switches"}
	if s.Unit != PerGB {
		titles = append(titles, ">p50 µs", ">p99 µs", ">p99.9 µs")
	}
	flooded := s.Key == TLSFlood
	if flooded {
		titles = append(titles, ">RSA handshakes/s")
	}
	p.header(append(titles, ">rounds")...)
	for _, sys := range r.Measured() {
		runs := r.good(s.Key, sys.Name)
		if len(runs) == 0 {
			if n := r.attempts(s.Key, sys.Name); n > 0 {
				p.row(p.name(sys.Name), fmt.Sprintf("all %d runs failed", n))
			}
			continue
		}
		values := func(m Metric) []float64 { return r.Values(s.Key, sys.Name, m) }
		rates, cpus := values(Rate), values(CPU)
		rateRatio := r.Ratio(s.Key, sys.Name, Reference, Rate, stats.Max)
		ratio := r.Ratio(s.Key, sys.Name, Reference, CPU, stats.Min)
		cells := []string{p.name(sys.Name), amount(s.Unit, stats.Median(rates)), amount(s.Unit, stats.Max(rates)), "×" + fixed(rateRatio.Median, 2),
			fixed(stats.Median(cpus), digits), fixed(stats.Min(cpus), digits), "**×" + fixed(ratio.Median, 2) + "**",
			fixed(ratio.Low, 2) + "–" + fixed(ratio.High, 2), "×" + fixed(ratio.Best, 2), fixed(stats.Median(values(Switch)), 2)}
		if s.Unit != PerGB {
			for _, m := range []Metric{P50, P99, P999} {
				cells = append(cells, fixed(stats.Median(values(m)), 0))
			}
		}
		if flooded {
			cells = append(cells, fixed(stats.Median(values(Flood)), 0))
		}
		rounds := strconv.Itoa(len(runs))
		if failed := r.attempts(s.Key, sys.Name) - len(runs); failed > 0 {
			rounds += fmt.Sprintf(", %d failed", failed)
		}
		p.row(append(cells, rounds)...)
	}
	if flooded {
		p.f("\nCPU per request is that of the handshakes too. Latency is that of requests over TLS connections that were open before.\n")
	}
	if n := r.bound(s.Key); n > 0 {
		p.f("\nIn %d of these runs the generator used its thread to the full: the rate may be its own.\n", n)
	}
}

// name sets the subject apart.
func (p *page) name(system string) string {
	if system == p.r.Subject {
		return "**" + system + "**"
	}
	return system
}

func (p *page) syscalls() {
	if len(p.r.Syscalls) == 0 {
		return
	}
	p.f("\n## System calls per unit\n\n`strace -f -c` attached for a fixed number of requests (64 connections, already open) or short connections. Tracing slows a proxy\n")
	p.f("down, which changes how much work gathers between two waits; reads and writes per unit do not depend on it. Apart are clock\n")
	p.f("readings, which are system calls only where the machine has no vDSO clock, and what the Go runtime's monitor thread does by the\n")
	p.f("clock (nanosleep, tgkill, getpid, rt_sigreturn), of which more falls on a unit the slower it is traced.\n")
	p.header("system", "unit", ">calls", ">+ clock readings", ">+ Go's monitor", "of which")
	for _, s := range p.r.Syscalls {
		if s.Errors != "" {
			p.row(p.name(s.System), string(s.Unit), "failed", "", "", s.Errors)
			continue
		}
		calls, clock, monitor := s.PerUnit()
		p.row(p.name(s.System), string(s.Unit), "**"+fixed(calls, 2)+"**", fixed(clock, 2), fixed(monitor, 2), s.mostFrequent())
	}
}

// mostFrequent lists the calls that are made at least once in twenty units.
func (s SyscallCount) mostFrequent() string {
	names := slices.SortedFunc(maps.Keys(s.Calls), func(a, b string) int {
		if d := s.Calls[b] - s.Calls[a]; d != 0 {
			return int(max(min(d, 1), -1))
		}
		return strings.Compare(a, b)
	})
	var out []string
	for _, n := range names {
		if per := float64(s.Calls[n]) / float64(s.Units); per >= 0.05 {
			out = append(out, fixed(per, 2)+" "+n)
		}
	}
	return strings.Join(out, ", ")
}

func (p *page) memory(kind, title, held string) {
	if !slices.ContainsFunc(p.r.Memory, func(m Memory) bool { return m.Kind == kind }) {
		return
	}
	p.f("\n## %s\n\nUser memory (PSS of the whole process tree, fresh process) before and %s", title, held)
	p.f(". Socket buffers in the kernel are not in it; they are the same for all. kB are 1000 bytes. The median of the repeats is shown.\n")
	p.header("system", ">connections", ">before, MB", ">with, MB", ">**kB per connection**", ">cores used while idle")
	for _, s := range p.r.Measured() {
		m, ok := p.r.memoryOf(kind, s.Name)
		if !ok {
			continue
		}
		p.row(p.name(s.Name), thousands(float64(m.Connections)), fixed(float64(m.Before)/1e6, 1), fixed(float64(m.After)/1e6, 1),
			"**"+fixed(m.PerConnection()/1000, 2)+"**", fixed(m.IdleCPU, 3))
	}
}

func (p *page) stalls() {
	if len(p.r.Stalls) == 0 {
		return
	}
	first := p.r.Stalls[0]
	p.f("\n## Readers that stall\n\n%d clients read nothing while the backends push %.0f MB at each. When nothing moves any more: how much user memory the proxy has\n", first.Streams, float64(first.Each)/1e6)
	p.f("grown by, how much kernel memory all TCP sockets of the machine have, and how much the backends could push before they had to\nstop (all buffers and pipes on the way). Then the clients read everything and compare it.\n")
	p.header("system", ">growth, MB", ">**MB per stream**", ">TCP buffers of the machine, MB", ">absorbed per stream, MB", "then read and compared")
	for _, s := range p.r.Stalls {
		verdict := "all bytes right"
		if s.Errors != "" {
			verdict = "**failed: " + s.Errors + "**"
		}
		p.row(p.name(s.System), fixed(float64(s.After-s.Before)/1e6, 2), "**"+fixed(s.PerStream()/1e6, 3)+"**",
			fixed(float64(s.Sockets)/1e6, 1), fixed(float64(s.Absorbed)/1e6/float64(s.Streams), 1), verdict)
	}
}

func (p *page) verified() {
	if len(p.r.Verified) == 0 {
		return
	}
	p.f("\n## Every byte compared\n\nBefore anything was timed, both ways at once, both ends comparing:\n")
	p.header("system", ">MB", "outcome")
	for _, v := range p.r.Verified {
		outcome := "all bytes right"
		if v.Errors != "" {
			outcome = "**failed: " + v.Errors + "**"
		}
		name := p.name(v.System)
		if v.Over != "" {
			name += ", " + v.Over
		}
		p.row(name, fixed(float64(v.Bytes)/1e6, 0), outcome)
	}
}

func (p *page) conditions() {
	r := p.r
	foreign, steal := r.Noise("")
	p.f("\n## Conditions\n")
	p.header("system", "version", "settings")
	for _, s := range r.Measured() {
		p.row(p.name(s.Name), s.Version, s.Note)
	}
	virtual := "bare metal"
	if r.Machine.Virtual {
		virtual = "virtual machine"
	}
	p.f("\n- Machine: %s, %d cores, %d GB, Linux %s, %s.\n", r.Machine.CPU, r.Machine.Cores, (r.Machine.MemoryMB+512)/1024, r.Machine.Kernel, virtual)
	p.f("- Load average %.2f before and %.2f after (the run itself adds about %d). Median over all runs: others used %.1f %% of the machine,\n  %.1f %% were stolen by the hypervisor.\n",
		r.LoadBefore[0], r.LoadAfter[0], r.Machine.Cores+1, foreign*100, steal*100)
	p.f("- %d rounds, windows of %s s after %s s of warm-up, systems in turn, order rotated and reversed from round to round.\n",
		r.Settings.Rounds, trim(r.Settings.WindowSeconds), trim(r.Settings.WarmupSeconds))
	if r.Settings.Nice != 0 {
		p.f("- Everything, the load too, ran at nice %d, to keep other users of the machine out.\n", r.Settings.Nice)
	}
	session := "All processes ran in one session"
	if !r.SameSession {
		session = "**Not all processes ran in one session**"
	}
	group := "off here"
	if r.Machine.Autogroup {
		group = "on here"
	}
	p.f("- %s. It matters: with autogroups (%s) each session is a scheduling group of its own, and starting one proxy\n  in another session has moved a ratio from 0.90 to 1.13.\n", session, group)
	p.f("\n**What is not comparable.**\n\n")
	p.f("- Everything is loopback: no network card, no interrupts of one, and copies that a real one would not need, or would.\n")
	p.f("- Kernel work done for a packet on arrival is charged to whoever sent it. The proxy pays for waking the client and the\n  backend, and they for waking the proxy.\n")
	p.f("- With %d cores for everything, a proxy that uses less CPU also leaves more to the generator: rates reward it twice.\n", r.Machine.Cores)
	p.f("- Buffers are each program's default (haproxy and nginx 16 KiB, io.Copy splices pipes, awe4lb see its configuration):\n  bulk figures compare the programs as they come.\n")
	p.f("- nginx allocates its connection table at the start (in \"before\"), so its memory per connection reads too low.\n")
	if slices.ContainsFunc(r.Scenarios, func(s Scenario) bool { return s.Unit == PerRoundTrip }) || len(r.Flows) > 0 {
		p.f("- haproxy has no place in UDP: it relays none (version 2 has it for syslog and QUIC only). \"direct\" is the generator with the echo,\n  no proxy between: what both ends can do; it runs in the first round only.\n")
		p.f("- The overload is what the generator finds time to send of it (\"sent/s\"): with a thrifty proxy that is more.\n")
	}
	if slices.ContainsFunc(r.Scenarios, func(s Scenario) bool { return s.TLS }) {
		p.f("- TLS is AES-128-GCM and X25519 for everybody, by configuration and compared in every handshake; Go's default, X25519MLKEM768, costs\n  about 50 µs more and has no counterpart in haproxy's and nginx' OpenSSL. Certificates are the same files, tickets are on (OpenSSL\n  sends two per TLS 1.3 handshake, Go one), backends are plain. CPU is the proxy's: the clients' ends cost about as much again.\n")
		p.f("- A handshake is counted with its TCP connections, one request and the close. RSA signatures take Go longer than OpenSSL.\n")
	}
	p.f("- haproxy and nginx do more than awe4lb on other days (HTTP, rules, scripting); here they only relay.\n")
}

// attempts counts the runs of a scenario and system, failed ones too.
func (r *Results) attempts(scenario, system string) int {
	n := 0
	for _, run := range r.Runs {
		if run.Scenario == scenario && run.System == system {
			n++
		}
	}
	return n
}

// bound counts the runs of a scenario in which the generator was the bottleneck.
func (r *Results) bound(scenario string) int {
	n := 0
	for _, run := range r.Runs {
		if run.Scenario == scenario && run.Bound {
			n++
		}
	}
	return n
}

// lag returns the median p99 of the generator's own delay.
func (r *Results) lag(scenario string) float64 {
	var v []float64
	for _, run := range r.Runs {
		if run.Scenario == scenario && run.Errors == "" {
			v = append(v, run.LagP99)
		}
	}
	return stats.Median(v)
}

// fixed writes a number with a fixed count of decimals, and "–" for one that is not there.
func fixed(v float64, decimals int) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return strconv.FormatFloat(v, 'f', decimals, 64)
}

// trim writes a number with as many decimals as it has.
func trim(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

// amount writes a rate in its unit.
func amount(unit Unit, v float64) string {
	if unit == PerGB {
		return fixed(v, 2)
	}
	return thousands(v)
}

// thousands writes a whole number with commas.
func thousands(v float64) string {
	s := fixed(v, 0)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
