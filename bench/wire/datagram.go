package wire

import "encoding/binary"

// A datagram of the generator, numbers in little endian:
//
//	 0..3   magic
//	 4      flags
//	 6..7   Seen: the backend writes here which port the datagram came from
//	 8..11  Run: drawn anew for each run, so that what a former one left behind is told apart
//	12..15  Client
//	16..23  Seq
//	24..31  Sent, nanoseconds
//	32..    pattern that depends on Client and Seq
//
// The echo returns it unchanged but for Seen. A flow whose backend sees a new port was forgotten by the proxy meanwhile,
// which its client could not know otherwise.
const (
	DatagramHeader = 32                 // bytes, and the shortest datagram there is
	MaxDatagram    = 65507              // bytes, IPv4
	datagramMagic  = uint32(0x34657761) // "awe4"
	flagNoReply    = 1
)

// Datagram is what the header says.
type Datagram struct {
	NoReply bool // the backend counts it and stays silent
	Seen    uint16
	Run     uint32
	Client  uint32
	Seq     uint64
	Sent    int64
}

// Put writes the header into b, which must have DatagramHeader bytes.
func (d *Datagram) Put(b []byte) {
	_ = b[DatagramHeader-1]
	binary.LittleEndian.PutUint32(b, datagramMagic)
	flags := uint16(0)
	if d.NoReply {
		flags = flagNoReply
	}
	binary.LittleEndian.PutUint16(b[4:], flags)
	binary.LittleEndian.PutUint16(b[6:], d.Seen)
	binary.LittleEndian.PutUint32(b[8:], d.Run)
	binary.LittleEndian.PutUint32(b[12:], d.Client)
	binary.LittleEndian.PutUint64(b[16:], d.Seq)
	binary.LittleEndian.PutUint64(b[24:], uint64(d.Sent))
}

// ParseDatagram reads a header; false means that b is not a datagram of ours.
func ParseDatagram(b []byte) (Datagram, bool) {
	if len(b) < DatagramHeader || binary.LittleEndian.Uint32(b) != datagramMagic {
		return Datagram{}, false
	}
	return Datagram{
		NoReply: b[4]&flagNoReply != 0,
		Seen:    binary.LittleEndian.Uint16(b[6:]),
		Run:     binary.LittleEndian.Uint32(b[8:]),
		Client:  binary.LittleEndian.Uint32(b[12:]),
		Seq:     binary.LittleEndian.Uint64(b[16:]),
		Sent:    int64(binary.LittleEndian.Uint64(b[24:])),
	}, true
}

// StampSeen writes the port that the backend saw into a datagram of ours.
func StampSeen(b []byte, port uint16) { binary.LittleEndian.PutUint16(b[6:], port) }

// DatagramBody returns the n bytes that follow the header. Shared: do not write.
func DatagramBody(client uint32, seq uint64, n int) []byte {
	return Pattern(uint64(client)*17+seq*31, n)
}

// DatagramMatches says whether b is what DatagramBody returns.
func DatagramMatches(b []byte, client uint32, seq uint64) bool {
	return Matches(b, uint64(client)*17+seq*31)
}
