package tlsbridge

import (
	"crypto/tls"
	"errors"
	"io"
	"net/netip"
	"sync/atomic"
)

// Source is where a Conn gets its ciphertext once the handshake is done: its owner's socket.
type Source interface {
	// Pull reads ciphertext straight into b, which is not empty. It returns the number of bytes, at least one; or 0 and
	// ErrWouldBlock when there is nothing now, io.EOF after FIN, or what else became of the connection. It is called from
	// within Conn.Read, on the same goroutine, and must not block.
	Pull(b []byte) (int, error)
}

// ErrWouldBlock says that nothing can be read now. It is the only error of a Read after which the Conn goes on.
var ErrWouldBlock error = wouldBlock{}

// wouldBlock is a net.Error that is temporary: all others make crypto/tls give the connection up for good.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read now" }
func (wouldBlock) Temporary() bool { return true }
func (wouldBlock) Timeout() bool   { return false }

// ErrTruncated says that the peer's stream ended without close_notify: nobody knows whether it was whole.
var ErrTruncated = errors.New("the stream ended without close_notify")

// State is how far a Conn is; the package comment draws it.
type State uint8

const (
	Handshaking State = iota
	Open
	Failed
)

// Conn is one TLS connection, without a socket. Make one with Workers.Server or Workers.Client.
//
// It has one owner at a time: a worker between Feed and the call of notify, its caller otherwise. All methods are the
// caller's, who is one goroutine, say a shard.
type Conn struct {
	// Set once, never changed.
	tls           *tls.Conn
	worker        *worker
	source        Source
	notify        func()
	local, remote netip.AddrPort

	// Owned by whoever owns the Conn.
	state  State
	err    error  // why it failed
	in     []byte // ciphertext fed; what is left after the handshake belongs to the stream
	inOff  int
	out    []byte // ciphertext for the peer
	fin    bool   // the source has ended
	lost   error  // why the source failed
	closed bool   // close_notify sent
	read   int64  // bytes of plaintext
	asides int64  // times that reading had something to say
	over   error  // how reading ended
	piece  []byte // the beginning of a record, while crypto/tls has it
	dry    bool   // crypto/tls is to make do with what it has

	// Shared: who owns the Conn.
	owner atomic.Uint32

	// Owned by the worker, but for link, which is its queue's.
	handshake coroutine
	link      *Conn // next in the worker's queue
	next      *Conn // the worker's list of started handshakes
	prev      *Conn
}

const (
	ownedByCaller uint32 = iota
	ownedByWorker
	abandoned // cancelled: nobody's but for the worker that frees it
)

// Result is what came of feeding a handshake.
type Result struct {
	Out   []byte // to be sent to the peer, whatever State says; valid until the next Feed, or for good if there is none
	State State
	Err   error // why it is Failed
}

// Result returns what came of the last Feed. It is to be called once after each call of notify.
//
//   - Handshaking: more ciphertext is wanted. Feed it when it arrives.
//   - Open: Read and Write may be called, and Read must be: it may have plaintext already, which no event will announce.
//   - Failed: Out holds the alert that tells the peer why, if one is due. The socket is best closed so that the alert
//     arrives: send, shut, read what is left, close.
func (c *Conn) Result() Result {
	out := c.out
	c.out = nil
	return Result{out, c.state, c.err}
}

// Feed hands ciphertext of the peer, which it copies, to the handshake, and the Conn to its worker. The first Feed of a
// server should hold a whole ClientHello (Peeker): less would cost the memory of a handshake for a client that may never
// go on. The first Feed of a client is nil. Never blocks. Panics if the Conn is with its worker or not handshaking.
func (c *Conn) Feed(b []byte) {
	if !c.owner.CompareAndSwap(ownedByCaller, ownedByWorker) {
		if c.Cancelled() { // by Workers.Close
			return
		}
		panic("tlsbridge: Feed of a Conn that is with its worker")
	}
	if c.state != Handshaking {
		panic("tlsbridge: Feed after the handshake")
	}
	c.in = append(c.in[:0], b...)
	c.inOff = 0
	c.worker.push(c)
}

// Cancel gives up a Conn, in whatever state and whoever owns it. notify may still be called once, if it was about to be;
// the caller must not touch the Conn any more. Never blocks; the memory of the handshake is freed by its worker.
func (c *Conn) Cancel() {
	if c.owner.Swap(abandoned) == ownedByCaller && c.state == Handshaking && c.handshake.started() {
		c.worker.push(c)
	}
}

// Cancelled reports whether Cancel was called.
func (c *Conn) Cancelled() bool { return c.owner.Load() == abandoned }

// MinRead is the least that Read reads into: a record has to fit.
const MinRead = 20 << 10

// Read decrypts into p, of MinRead bytes at least, and returns the number of bytes. Ciphertext that is due to the peer
// after it (alerts, answers to key updates) is appended to out; the caller sends it even when Read fails. Read goes on
// until p is full or err says why not:
//
//   - ErrWouldBlock: nothing more now. n may be more than 0, here and below; those bytes come first.
//   - io.EOF: the peer has sent close_notify. Writing goes on.
//   - ErrTruncated: the peer has sent FIN without close_notify.
//   - anything else: the source's own error, or the peer broke the protocol or said so. The Conn is of no more use.
//
// All but the first last. Without an error there may be more at once: only ErrWouldBlock ends a round of reading. Tiny
// records cost as much as large ones, so a budget should be charged some kB for each Read. Does not allocate but where the
// peer asks for more than bytes (key updates, tickets) or leaves off in the middle of a record.
func (c *Conn) Read(sc *Scratch, p, out []byte) (n int, appended []byte, err error) {
	if len(p) < MinRead {
		panic("tlsbridge: Read into less than MinRead")
	}
	if c.over != nil {
		return 0, out, c.over
	}
	c.out = out
	if borrowing {
		n, err = c.readBorrowing(sc, p)
	} else {
		n, err = c.readPlain(p)
	}
	appended, c.out = c.out, nil
	if err != nil && err != ErrWouldBlock {
		err = c.ended(err)
		c.over = err
	}
	return n, appended, err
}

const (
	maxRecords = 64 // read in one call where records are not counted otherwise

	// A peer that asks for new keys all the time wants to keep us busy, or to fill our memory with answers it never reads.
	// No implementation does so more often than after gigabytes.
	freeAsides = 64
	asideBytes = 1 << 20
)

var errAsides = errors.New("the peer asks for new keys too often")

// ended tells the ends of a stream apart. crypto/tls calls a FIN between two records io.EOF as it does close_notify; but
// after close_notify it asks the source for nothing more.
func (c *Conn) ended(err error) error {
	switch {
	case c.lost != nil:
		return c.lost
	case c.fin && (err == io.EOF || err == io.ErrUnexpectedEOF):
		return ErrTruncated
	}
	return err
}

// Write encrypts p and appends the ciphertext to out, at most MaxCiphertext(len(p)) bytes more. It fails only after
// CloseWrite, or when the connection is broken. Does not allocate if out is large enough.
func (c *Conn) Write(p, out []byte) ([]byte, error) {
	c.out = out
	_, err := c.tls.Write(p)
	out, c.out = c.out, nil
	return out, err
}

// CloseWrite appends close_notify to out, the first time: the peer is told that this was all. Reading goes on.
func (c *Conn) CloseWrite(out []byte) []byte {
	if c.closed || c.state != Open {
		return out
	}
	c.closed = true
	c.out = out
	_ = c.tls.CloseWrite() // fails only when the connection is broken: then no close_notify is due
	out, c.out = c.out, nil
	return out
}

// ConnectionState returns what was negotiated, once Open. Allocates.
func (c *Conn) ConnectionState() tls.ConnectionState { return c.tls.ConnectionState() }

// MaxCiphertext returns the most bytes that n bytes of plaintext become. 22 bytes per record are usual; block ciphers of
// TLS 1.2 take up to 85, and TLS 1.0 cuts one record in two.
func MaxCiphertext(n int) int { return n + (n/maxPlaintext+2)*85 }
