package runner

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"awe4lb/bench/proc"
	"awe4lb/bench/report"
)

// This file holds what is measured over UDP: the repeated scenarios, and what a flow costs from its birth to its end.

const (
	clientPorts  = 4      // of the generator; the same in every run, so that flows outlive it
	manyClients  = 10_000 // bounded by the open-files limit: a proxy has a socket per flow
	udpOpenRate  = 20_000 // per second: little enough for everybody
	udpOverRate  = 200_000
	trainLength  = 16
	trainClients = 4 // 64 datagrams each in the window: a default socket buffer holds 90 of 1200 bytes
)

// udpScenarios lists the repeated loads over UDP.
func udpScenarios() []scenario {
	udp := func(key, title, note string, quick bool, flags ...string) scenario {
		return scenario{Scenario: report.Scenario{Key: key, Title: "UDP, " + title, Note: note, Unit: report.PerRoundTrip}, family: overUDP, quick: quick,
			args: func(*Options) []string { return append([]string{"udp"}, flags...) }}
	}
	closed := func(key string, clients int, size, window string, quick bool) scenario {
		who := "1 client"
		if clients > 1 {
			who = strconv.Itoa(clients) + " clients"
		}
		if clients == manyClients {
			who = "10,000 clients"
		}
		s := udp(key, who+", "+size+" bytes", "closed loop, "+window+" datagrams under way", quick)
		s.guarded = key == report.UDP100
		s.args = func(o *Options) []string {
			return []string{"udp", "--size", size, "--window", window, "--conns", strconv.Itoa(min(clients, max(1, o.maxFlows)))}
		}
		return s
	}
	open := func(key, title string, clients string, rate int, quick bool) scenario {
		s := udp(key, title, "open loop, 64 bytes", quick, "--conns", clients, "--rate", strconv.Itoa(rate))
		s.Open, s.Offered = true, float64(rate)
		return s
	}
	return []scenario{
		closed(report.UDP1, 1, "64", "256", true),
		closed(report.UDP100, 100, "64", "256", true),
		closed(report.UDP10k, manyClients, "64", "256", true),
		// A window of 256 times 1200 bytes does not fit into a default socket buffer: with one client it would measure loss.
		closed(report.UDP1Large, 1, "1200", "64", false),
		closed(report.UDP100Large, 100, "1200", "256", false),
		closed(report.UDP10kLarge, manyClients, "1200", "256", false),
		udp(report.UDPTrains, "trains of 1200 bytes", fmt.Sprintf("closed loop, %d clients whose datagrams come %d at a time, 256 under way", trainClients, trainLength), true,
			"--conns", strconv.Itoa(trainClients), "--size", "1200", "--train", strconv.Itoa(trainLength)),
		open(report.UDPOpen100, "fixed rate, 100 clients", "100", udpOpenRate, false),
		open(report.UDPOver1, "overload, 1 client", "1", udpOverRate, false),
		open(report.UDPOver100, "overload, 100 clients", "100", udpOverRate, true),
	}
}

// awaitEcho waits until address sends a datagram back, through the proxy if that is one, or the process has ended.
func awaitEcho(ctx context.Context, q *Process, address string) error {
	c, err := net.Dial("udp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	buf := make([]byte, 16)
	for deadline := time.Now().Add(15 * time.Second); ; {
		c.Write([]byte("ready?"))
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.Read(buf)
		if err == nil && string(buf[:n]) == "ready?" {
			return nil
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case q.Ended():
			return fmt.Errorf("%s ended at once (%v); it said: %s", q.Name, q.err, q.Output())
		case time.Now().After(deadline):
			return fmt.Errorf("%s does not answer on %s over UDP: %v; it said: %s", q.Name, address, err, q.Output())
		}
		var refused net.Error
		if errors.As(err, &refused) && !refused.Timeout() { // ICMP says nobody is there yet
			if err := wait(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}
}

// freeClientPorts returns the first of n ports in a row on which nobody hears datagrams.
func (e *env) freeClientPorts(n int) (int, error) {
	for ; e.nextPort < 32000-n; e.nextPort++ {
		free := 0
		for free < n {
			c, err := net.ListenPacket("udp4", fmt.Sprintf(":%d", e.nextPort+free))
			if err != nil {
				break
			}
			c.Close()
			free++
		}
		if free == n {
			first := e.nextPort
			e.nextPort += n
			return first, nil
		}
	}
	return 0, errors.New("no free ports for the UDP clients between 21000 and 32000")
}

// The lives of flows: how long they are idle before they expire, and what the sight of it may take.
const (
	flowTimeout      = 6 * time.Second // a quick run: 4 s
	quickFlowTimeout = 4 * time.Second
	flowsGoneLimit   = 20 * time.Second
	lookForFlows     = 50 * time.Millisecond
	strayFiles       = 8 // descriptors more than before that are no flows
)

func (o *Options) flowTimeout() time.Duration {
	if o.Quick {
		return quickFlowTimeout
	}
	return flowTimeout
}

// flowCost lets a fresh instance make many flows, one datagram each, leaves them alone, and watches them expire.
func (e *env) flowCost(ctx context.Context, s System) error {
	place, err := e.newUDPPlace(s)
	if err != nil {
		return err
	}
	place.FlowTimeout = e.o.flowTimeout()
	in, err := e.startAt(ctx, s, place)
	if err != nil {
		return err
	}
	defer e.procs.Stop(in.process)
	f := report.Flows{System: s.Name, Flows: min(e.o.IdleConns, e.o.maxFlows), TimeoutSeconds: place.FlowTimeout.Seconds(), IdleCPU: -1, Expire: -1}
	if f.Before, err = settledPSS(ctx, in.process.PID); err != nil {
		return err
	}
	files, err := proc.TreeFDs(in.process.PID)
	if err != nil {
		return err
	}
	var began time.Time
	r, err := e.generate(ctx, &gates{
		ready: func() error { began = time.Now(); return nil },
		done:  func() error { return e.watchFlowsEnd(ctx, in, &f, files, began) },
	}, append([]string{"udp", "--to", place.UDP, "--conns", strconv.Itoa(f.Flows), "--count", strconv.Itoa(f.Flows), "--fresh", "--window", "64",
		"--timeout", "2s"}, e.watch(in)...)...)
	if err != nil {
		return err
	}
	if u, ok := r.CPUOf("proxy"); ok {
		f.Create = u.Total.Seconds() * 1e6 / float64(f.Flows)
	}
	f.Loss, f.Errors = r.Datagrams.Loss(), r.ErrorText()
	e.res.Flows = append(e.res.Flows, f)
	return failure(r)
}

// watchFlowsEnd reads memory and CPU while flows are idle, and CPU while they expire, which is seen by the sockets that
// go. The first flow was made at began, the last one just now.
func (e *env) watchFlowsEnd(ctx context.Context, in *instance, f *report.Flows, files int, began time.Time) error {
	last := time.Now()
	var err error
	if f.After, err = settledPSS(ctx, in.process.PID); err != nil {
		return err
	}
	used := func() time.Duration {
		u, usageErr := proc.TreeUsage(in.process.PID)
		err = errors.Join(err, usageErr)
		return u.Total
	}
	timeout := in.place.FlowTimeout
	if still := time.Until(began.Add(timeout)) - 300*time.Millisecond; still > 500*time.Millisecond {
		from, before := time.Now(), used()
		if err := wait(ctx, still); err != nil {
			return err
		}
		f.IdleCPU = float64(used()-before) / float64(time.Since(from))
	}
	from, before := time.Now(), used()
	for {
		now, fdErr := proc.TreeFDs(in.process.PID)
		if err = errors.Join(err, fdErr); err != nil {
			return err
		}
		if now <= files+strayFiles {
			break
		}
		if time.Since(last) > timeout+flowsGoneLimit {
			return fmt.Errorf("%d of %d flows are still there %v after their idle timeout of %v", now-files, f.Flows, flowsGoneLimit, timeout)
		}
		if err := wait(ctx, lookForFlows); err != nil {
			return err
		}
	}
	if from.After(last.Add(timeout)) {
		return errors.New("the flows were gone before anybody looked: no expiry was seen")
	}
	// The last datagram was a moment before last, so flows that end on time may be gone a moment before it seems.
	f.Overdue = max(time.Since(last.Add(timeout)).Seconds(), 0)
	if err := wait(ctx, 100*time.Millisecond); err != nil { // what is done after the last close
		return err
	}
	spent, idle := used()-before, time.Duration(max(0, f.IdleCPU)*float64(time.Since(from)))
	f.Expire = (spent - idle).Seconds() * 1e6 / float64(f.Flows)
	return err
}
