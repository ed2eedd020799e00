// Package tlsbridge speaks TLS for connections whose sockets belong to somebody else: it has no descriptors, reads no
// files and starts no timers.
package tlsbridge
