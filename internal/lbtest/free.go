package lbtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// Free returns an address of 127.0.0.1 for who comes later, comes back, or never comes: see FreePort.
func Free(t testing.TB) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", FreePort(t))
}

// FreePort returns a port that nobody has, over TCP or UDP, on any address. It lies below those that the kernel gives to clients
// and to who listens on port 0 (from 32768 on), so that nobody gets it by chance meanwhile, and no second call returns it.
func FreePort(t testing.TB) int {
	t.Helper()
	for range freePorts {
		// Processes begin anywhere: two that went from port to port side by side would meet.
		port := firstFree + int((freeStart+freeStep*free.Add(1))%freePorts)
		l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: port})
		if err != nil {
			continue
		}
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatalf("no port of %d to %d is free", firstFree, firstFree+freePorts-1)
	return 0
}

const (
	firstFree = 10000
	freePorts = 10000
	freeStep  = 7919 // prime, and so each port has its turn
)

var (
	freeStart = rand.Uint32N(freePorts)
	free      atomic.Uint32
)
