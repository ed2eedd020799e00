// Package balancer decides which pool, and which backend of it, a connection goes to. It owns no socket.
//
// A Snapshot is everything a decision needs: frontends, routes, pools, pickers. It is built by a pure function from a
// configuration, never changes, and is published by its single writer, the Director, with one atomic store. Whoever
// decides loads it once and works on that. What must outlive a snapshot, the live counters of frontends, pools and
// backends, is shared by identity: the same backend in the same pool is the same *Backend in every snapshot.
//
// Everything on the path of a connection (Snapshot.Frontend, Frontend.Route, Pool.Pick, Backend.Release) is safe from
// any goroutine and neither blocks, locks nor allocates.
package balancer
