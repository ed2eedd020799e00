package engine

import (
	"encoding/binary"
	"hash/maphash"
)

// sentLately remembers which datagrams were sent, for the moment it takes ICMP to bring one back. Only one that is found here
// is sent again: what came back is then exactly what was sent, and never the beginning of something longer, which is all that
// ICMP promises. Owned by the shard's goroutine.
//
// It forgets by overwriting: at 100,000 datagrams a second a place holds for some 40 ms.
type sentLately struct {
	seed  maphash.Seed
	marks []uint32
}

func newSentLately() sentLately {
	return sentLately{maphash.MakeSeed(), make([]uint32, 4096)}
}

// The payload that the kernel quotes at most: 576 bytes for IPv4 and 1,280 for IPv6, less the headers of both packets.
const (
	quotedV4 = 576 - 2*(20+8)
	quotedV6 = 1280 - 2*(40+8)
)

// note remembers a datagram sent for number (a flow or a target) to a backend of a family.
func (s *sentLately) note(number uint32, data []byte, v4 bool) {
	if len(data) > quotedV6 || v4 && len(data) > quotedV4 {
		return
	}
	h := s.hash(number, data)
	s.marks[h&uint64(len(s.marks)-1)] = uint32(h >> 32)
}

// has reports whether a datagram has been noted. An empty one never is: it cannot be told from one of which nothing came back.
func (s *sentLately) has(number uint32, data []byte) bool {
	h := s.hash(number, data)
	return len(data) > 0 && s.marks[h&uint64(len(s.marks)-1)] == uint32(h>>32)
}

func (s *sentLately) hash(number uint32, data []byte) uint64 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], number)
	return maphash.Bytes(s.seed, data) ^ maphash.Bytes(s.seed, b[:])
}
