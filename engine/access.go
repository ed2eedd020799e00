package engine

import (
	"net/netip"
	"sync/atomic"
	"time"
)

// Record is what the access log says of one ended session or flow.
type Record struct {
	Start    time.Time
	Frontend string
	Pool     string         // "" when there was none
	Backend  string         // the last one tried; "" when none was
	Client   netip.AddrPort // invalid for a unix socket
	Connect  int64          // ns from accept to established, for a flow to the first answer; 0 when it never was
	Duration int64          // ns from accept to the end
	C2B, B2C uint64         // bytes taken by the backend, by the client
	Attempts uint8          // backends tried
	Reason   Reason

	ServerName string         // the name in the ClientHello; "" when there was none, or none was read. A stranger's text, but a DNS name
	TLSVersion uint16         // of the client's connection, where TLS ended here
	Proxy      netip.AddrPort // who told that the client is Client; invalid: nobody
	ID         string         // of the session, where backends are told one, or a proxy told us; may be a stranger's text
	Detail     string         // what TLS said of why it failed; may hold a stranger's text

	UDP             bool   // it was a flow
	Asked, Answered uint64 // datagrams sent to the backend, to the client
}

// accessRing carries records from a shard to the access log's goroutine: one writer, one reader, no lock. When the
// reader is behind, records are dropped and counted; the shard never waits.
type accessRing struct {
	// Set once, never changed.
	wake chan<- struct{}

	records [1024]Record

	_     [64]byte
	head  atomic.Uint64 // next to read; written by the reader
	_     [56]byte
	tail  atomic.Uint64 // next to write; written by the shard
	_     [56]byte
	sleep atomic.Bool // the reader waits for wake
}

// push is called by the shard.
func (r *accessRing) push(rec Record, stats *ShardStats) {
	tail := r.tail.Load()
	if tail-r.head.Load() == uint64(len(r.records)) {
		stats.AccessDrops++
		return
	}
	r.records[tail%uint64(len(r.records))] = rec
	r.tail.Store(tail + 1)
	if r.sleep.Load() && r.sleep.CompareAndSwap(true, false) {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// drain is called by the reader. It hands every record to write and returns their number.
func (r *accessRing) drain(write func(*Record)) int {
	head, tail := r.head.Load(), r.tail.Load()
	for i := head; i < tail; i++ {
		write(&r.records[i%uint64(len(r.records))])
		r.head.Store(i + 1)
	}
	return int(tail - head)
}

// accessBatch is how long records gather while there is traffic: a hundred wake-ups a second at the most.
const accessBatch = 10 * time.Millisecond

// accessLoop hands records to write until stop is closed; what is there then is still written.
func accessLoop(rings []*accessRing, wake <-chan struct{}, stop <-chan struct{}, write func(*Record), flush func()) {
	drain := func() (n int) {
		for _, r := range rings {
			n += r.drain(write)
		}
		if n > 0 {
			flush()
		}
		return n
	}
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		if drain() > 0 {
			pause.Reset(accessBatch)
			select {
			case <-pause.C:
				continue
			case <-stop:
				drain()
				return
			}
		}
		for _, r := range rings {
			r.sleep.Store(true)
		}
		if drain() > 0 { // came between the look and the sleep
			continue
		}
		select {
		case <-wake:
		case <-stop:
			drain()
			return
		}
	}
}

// AccessDrops returns the number of access log lines lost since the start because the writer was slower than the shards.
// It may be called after Close too.
func (e *Engine) AccessDrops() (n uint64) {
	for _, sh := range e.shards {
		var drops uint64
		if !sh.loop.Call(func() { drops = sh.stats.AccessDrops }) {
			drops = sh.stats.AccessDrops // the loop has ended
		}
		n += drops
	}
	return n
}
