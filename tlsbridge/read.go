package tlsbridge

import (
	"bytes"
	"crypto/tls"
	"io"
	"reflect"
	"unsafe"
)

// Reading by crypto/tls itself has two prices: a buffer of up to 40 kB per connection, which never shrinks, and an
// allocation each time it asks the source. So its buffer is filled from here: with a buffer of the shard's for as long as
// a Read lasts, and with the beginning of a record, if that is left over, until the next one.
//
// The field of tls.Conn is unexported. Its name and type are looked up once; were either to change, borrowing is false and
// crypto/tls reads for itself, at the old price. The tests run both ways.
var (
	borrowing = rawInput.found && hand.found
	rawInput  = bufferField("rawInput") // ciphertext not yet decrypted
	hand      = bufferField("hand")     // handshake messages not yet handled
)

type field struct {
	offset uintptr
	found  bool
}

func bufferField(name string) field {
	f, ok := reflect.TypeFor[tls.Conn]().FieldByName(name)
	return field{f.Offset, ok && f.Type == reflect.TypeFor[bytes.Buffer]()}
}

func (f field) of(c *tls.Conn) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), f.offset))
}

// Scratch is the memory that the Conns of one shard share. It belongs to the shard's goroutine.
type Scratch struct {
	cipher       []byte
	small, large [][]byte // for the beginnings of records
}

// ScratchBytes is the usual size of a Scratch: the most ciphertext that one system call reads.
const ScratchBytes = 128 << 10

const (
	maxRecord  = recordHeader + maxPlaintext + 2048 // TLS 1.2's expansion at the most
	smallPiece = 1 << 10
	keepPieces = 64 // of each kind
	tinyRecord = 512
)

// NewScratch returns a Scratch that reads up to size bytes at once, at least 64 KiB.
func NewScratch(size int) *Scratch { return &Scratch{cipher: make([]byte, max(size, 64<<10))} }

// piece returns an empty buffer for n bytes.
func (sc *Scratch) piece(n int) []byte {
	list, size := &sc.small, smallPiece
	if n > smallPiece {
		list, size = &sc.large, max(n, maxRecord)
	}
	if last := len(*list) - 1; last >= 0 && cap((*list)[last]) >= n {
		b := (*list)[last]
		*list = (*list)[:last]
		return b[:0]
	}
	return make([]byte, 0, size)
}

func (sc *Scratch) put(b []byte) {
	switch {
	case cap(b) == smallPiece && len(sc.small) < keepPieces:
		sc.small = append(sc.small, b)
	case cap(b) == maxRecord && len(sc.large) < keepPieces:
		sc.large = append(sc.large, b)
	}
}

// readBorrowing is Read with sc's buffer in the place of crypto/tls's own. Records are decrypted only when they are whole
// and fit into p, so that nothing of crypto/tls refers to the buffer when it is taken back.
func (c *Conn) readBorrowing(sc *Scratch, p []byte) (n int, err error) {
	raw := rawInput.of(c.tls)
	data := append(append(sc.cipher[:0], raw.Bytes()...), c.in[c.inOff:]...)
	sc.put(c.piece)
	c.in, c.inOff, c.piece = nil, 0, nil
	c.dry = true
	for {
		*raw = *bytes.NewBuffer(data)
		records, begun := 0, n
		for err == nil {
			size := wholeRecord(raw.Bytes())
			if size == 0 || size > len(p)-n {
				break
			}
			var m int
			m, err = c.decrypt(p[n:])
			n += m
			records++
		}
		if err == ErrWouldBlock { // a record that said nothing was the last that is whole
			err = nil
		}
		rest := raw.Bytes()
		room := min(len(sc.cipher), len(p)-n) - len(rest)
		if err != nil || wholeRecord(rest) > 0 || n > 0 && room < maxRecord {
			break
		}
		if n-begun < records*tinyRecord {
			room = min(room, maxRecord) // so that a round of tiny records takes no longer than others
		}
		data = sc.cipher[:copy(sc.cipher, rest)]
		var more int
		if more, err = c.pull(sc.cipher[len(data) : len(data)+room]); err != nil {
			*raw = *bytes.NewBuffer(data)
			break
		}
		data = sc.cipher[:len(data)+more]
	}
	c.dry = false
	if rest := raw.Bytes(); len(rest) > 0 {
		c.piece = append(sc.piece(len(rest)), rest...)
		*raw = *bytes.NewBuffer(c.piece)
	} else {
		*raw = bytes.Buffer{}
	}
	return n, err
}

// wholeRecord returns the size of the record at the beginning of b, 0 if it is not all there. What crypto/tls refuses by
// its header counts as whole with that.
func wholeRecord(b []byte) int {
	if len(b) < recordHeader {
		return 0
	}
	size := recordHeader + int(b[3])<<8 + int(b[4])
	if b[0] < 20 || b[0] > 24 || b[1] != 3 || size > maxRecord {
		return recordHeader
	}
	if len(b) < size {
		return 0
	}
	return size
}

// readPlain is Read with crypto/tls's own buffer.
func (c *Conn) readPlain(p []byte) (n int, err error) {
	for range maxRecords {
		var m int
		m, err = c.decrypt(p[n:])
		n += m
		if err != nil || n == len(p) {
			break
		}
	}
	return n, err
}

// decrypt reads what one record has to say, or goes on to the next if that is nothing.
func (c *Conn) decrypt(p []byte) (int, error) {
	before := len(c.out)
	n, err := c.tls.Read(p)
	c.read += int64(n)
	if len(c.out) > before && (err == nil || err == ErrWouldBlock) {
		if c.asides++; c.asides > freeAsides+c.read/asideBytes {
			err = errAsides
		}
	}
	return n, err
}

// pull asks the source.
func (c *Conn) pull(b []byte) (int, error) {
	n, err := c.source.Pull(b)
	switch {
	case err == nil || err == ErrWouldBlock:
	case err == io.EOF:
		c.fin = true
	default:
		c.lost = err
	}
	return n, err
}

// settle gives back what the handshake needed and the stream does not.
func (c *Conn) settle() {
	if c.inOff == len(c.in) {
		c.in, c.inOff = nil, 0
	}
	if !borrowing {
		return
	}
	if b := hand.of(c.tls); b.Len() == 0 {
		*b = bytes.Buffer{}
	}
	if b := rawInput.of(c.tls); b.Len() == 0 {
		*b = bytes.Buffer{}
	}
}
