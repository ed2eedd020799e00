// Package engine is the data plane: it moves bytes and decides nothing. Which pool and which backend a connection goes
// to is asked of a balancer.Snapshot, once per session.
//
// An Engine is a fixed set of shards. A shard is one event loop (package loop), one goroutine, and everything it owns:
// its listeners, sessions, timers, buffers, pipes and counters. Nothing on a shard blocks, locks or, in steady state,
// allocates. Other goroutines reach a shard only by posting a function to its loop; engine.go is the door.
//
// # A session
//
// A session is a client's connection and the connection to a backend made for it; each end is a side. Its life, with
// the method that makes each transition:
//
//	 accept      accept                 open                  settle
//	   │           │                      │                      │
//	   ▼           ▼                      ▼                      ▼
//	GREETING ──▶ CONNECTING ───────────────────────▶ OPEN ──────────▶ ended
//	   │          ▲  ▲  │                  ▲           │                ▲
//	   ▼          │  └──┤ refused or slow: │           │ abort: one end │
//	HANDSHAKE ────┘     │ next backend     │           ▼ was reset      │
//	(client's)          ▼                  │        ABORTING ───────────┤
//	                 ASKING, HANDSHAKE ────┘                            │
//	                 (backend's)      end(reason): exactly once, exactly one reason
//
// GREETING is for clients who have to say where they want to go (hello.go), HANDSHAKE for TLS (handshake.go), ASKING for
// PostgreSQL's question before it.
//
// While CONNECTING the client is not read: its bytes wait in the kernel, so that a refused connection can be tried on
// the next backend without the client noticing.
//
// # A side
//
// Each direction of a session goes through these states; src and dst are its two sides:
//
//	flowing ──src.readable──▶ read, send at once ──dst takes less──▶ blocked: the rest waits in one pooled buffer or
//	   ▲                                                                │     pipe, src is not read
//	   └───────────────────dst.writable, backlog sent───────────────────┘
//	flowing ──src.eof, no backlog──▶ dst.shut: FIN passed on; the other direction goes on, bounded by half_close_timeout
//	any ──read or send fails──▶ failed: what that side had sent is still delivered, then the other side is reset
//
// Bytes from client to backend are c2b, the others b2c.
package engine
