// Package tlsbridge speaks TLS for connections whose sockets belong to somebody else: it has no descriptors, starts no
// timers and never waits for the network. It stands on crypto/tls.
//
// # Which part does what
//
//	hello.go, postgres.go   what a client says first, before anything is known: Peeker, PeekPostgres
//	gate.go                 how many may be half-way through: Gate
//	workers.go, worker.go   who makes handshakes: Workers
//	conn.go, shim.go        one TLS connection, server's end or client's: Conn
//	read.go                 how it reads without keeping a buffer: Scratch
//	certificate.go          a chain and its key, checked before they are used: Certificate
//	certificates.go         which certificate for which name and client, exchanged while in use: Certificates
//	tickets.go              keys of session tickets, for all shards and nodes: Tickets
//	options.go, server.go, client.go   what a person may ask for, and what Go cannot do: ServerOptions, ClientOptions
//
// # A session
//
// A session that has TLS at either end goes through these states. What the owner (a shard) does is in brackets; each side
// of a session that speaks TLS is a Conn.
//
//	accept [Gate.Enter, hello_timeout]
//	   │
//	   ▼         not TLS, malformed, too long, timeout
//	 PEEK ───────────────────────────────────────────────▶ close [AppendAlert if due; Gate.Leave]
//	   │ Found: route by name and ALPN                       ▲
//	   ├── pass through ─────────────┐                       │ timeout, FIN, reset: Cancel
//	   ▼ terminate [Feed the hello]  │                       │
//	 HANDSHAKE, client's side ───────│───────────────────────┤ Failed: CLOSING
//	   │ Open [Gate.Leave]           │                       │
//	   ▼                             ▼                       │
//	 dial [connect_timeout, retries: nothing was relayed yet]│
//	   │ connected                                           │
//	   ├── pool without tls ─────────┐                       │
//	   ▼ originate [Feed nil]        │                       │
//	 HANDSHAKE, backend's side ──────│───────────────────────┘ Failed: the next backend, or close
//	   │ Open                        │
//	   ▼                             ▼
//	 OPEN ── Read: io.EOF ──▶ HALF-CLOSED [flush, CloseWrite, FIN on the other side] ── both ──▶ ended
//	   │
//	   ├── Read: ErrTruncated, or the source's error ──▶ flush the other side, then reset it
//	   └── Read: a protocol error ──▶ the same for the other side; this one goes to CLOSING
//
//	 CLOSING: an alert is on its way. [send out, FIN, read and drop until FIN or a second has passed, close: to close with
//	          unread input would reset the connection and the alert with it]
//
// # A Conn
//
// A Conn has one owner at a time. The handshake is handed to and fro; the shard does all the reading and sending, the
// worker all the computing:
//
//	shard                                   worker (always the same one)
//	Server or Client, Feed ───────────────▶ step the handshake's coroutine
//	Result: send Out ◀─── notify (posted) ─ until it wants more, is done, or failed
//	  Handshaking: read, Feed ────────────▶ …
//	  Open: Read, Write, CloseWrite; the worker is out of it
//	  Failed: send Out, CLOSING
//	Cancel, at any time ──────────────────▶ frees the coroutine
//
// In state Open the shard calls Read and Write directly. Read pulls ciphertext from the Source (read(2) straight into
// place: a Scratch of the shard's); what the Conn has to say is appended to a buffer of the shard's. Edge-triggered readiness hides behind a Conn:
// it may hold plaintext for which no event will come, so a side that became Open, or whose reading stopped early, counts
// as readable until Read says ErrWouldBlock.
//
// A FIN without close_notify is ErrTruncated, wherever it falls. Renegotiation is refused, key updates are answered.
package tlsbridge
