// Package loop is the event loop a shard runs on: readiness of descriptors, timers, and a mailbox. It knows nothing of
// sessions, backends or bytes, and it is the only importer of gnet's netpoll.
//
// One Loop is one goroutine. Everything the loop calls (Handler.Ready, Expirer.Expire, posted functions) runs on it,
// and every method except Post, Call and Stop must be called from it: build with -race and Assert proves that.
//
// # Events are hints
//
// Descriptors are registered once, edge-triggered (but for listeners, by Listen), and never modified, except by Rearm. A
// Handler must take an event as a reason to try, never as a fact:
//
//   - A descriptor number closed and opened again inside one batch of events gets the old one's event. A child process
//     between fork and exec keeps a closed socket registered and does the same, at any later time.
//   - EPOLLERR and EPOLLHUP can arrive while there are still bytes to read. Acting on them at once loses the bytes.
//
// So only read, send and connect tell the truth, and a spurious event costs one system call that says EAGAIN.
// This is also why Close can close at once (docs/decisions/0002-events-are-hints.md).
//
// # Timers
//
// Timers sit in two hashed wheels driven by one timerfd, which is armed only while a timer is pending: an idle process
// does not wake up. A Timer never fires early; it fires at most 16 ms late when set for less than four seconds, else at
// most one second late. Yield is for work cut into slices.
package loop
