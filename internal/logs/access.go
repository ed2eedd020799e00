package logs

import (
	"crypto/tls"
	"encoding/json"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"awe4lb/engine"
)

// accessWriter turns records into lines. One goroutine writes; another closes it when a reload brings its successor.
type accessWriter struct {
	// Set once, never changed.
	out  *Output
	json bool

	// Guarded by mu.
	mu     sync.Mutex
	buf    []byte
	closed bool
}

// accessBuffer is the number of bytes gathered before a write.
const accessBuffer = 64 << 10

func newAccessWriter(out *Output, format string) *accessWriter {
	return &accessWriter{out: out, json: format == "json"}
}

// write reports false when a has been closed and its successor should be asked.
func (a *accessWriter) write(r *engine.Record) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	if a.json {
		a.buf = appendJSON(a.buf, r)
	} else {
		a.buf = appendText(a.buf, r)
	}
	if len(a.buf) >= accessBuffer {
		a.flushLocked()
	}
	return true
}

func (a *accessWriter) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushLocked()
}

func (a *accessWriter) flushLocked() {
	if len(a.buf) > 0 {
		_, _ = a.out.Write(a.buf)
		a.buf = a.buf[:0]
	}
}

// close writes what is left and closes the file.
func (a *accessWriter) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.flushLocked()
	a.closed = true
	a.out.Close()
}

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// appendText adds the line of r, such as
//
//	2026-11-22T12:00:00.123Z reason=client_eof frontend=web client=127.0.0.1:51000 pool=web backend=127.0.0.1:9001 attempts=1 connect=0.000214 duration=0.003 c2b=78 b2c=311
//
// and for a flow of datagrams
//
//	2026-11-22T12:00:00.123Z reason=idle_timeout frontend=dns client=127.0.0.1:51000 pool=dns backend=127.0.0.1:5301 attempts=1 connect=0.000214 duration=60.003 c2b=78 b2c=311 c2b_datagrams=2 b2c_datagrams=2
//
// Where there is one, via= (the proxy that told who the client is), id= (of the session, through all proxies), sni= (the name in the ClientHello), tls= (the version, where TLS ended here) and error="…" (what TLS
// says of why it failed) follow.
//
// The time is that of the end. Durations are seconds; connect is "-" when no backend was connected, or answered a flow. Names come from the
// configuration and addresses from the kernel; sni is a DNS name or what a trusted proxy calls one; error, in which strangers may have a
// hand, is quoted, escaped and cut.
func appendText(b []byte, r *engine.Record) []byte {
	b = r.Start.Add(time.Duration(r.Duration)).AppendFormat(b, timeFormat)
	b = append(append(b, " reason="...), r.Reason.String()...)
	b = append(append(b, " frontend="...), r.Frontend...)
	b = appendClient(append(b, " client="...), r.Client)
	b = append(append(b, " pool="...), dash(r.Pool)...)
	b = append(append(b, " backend="...), dash(r.Backend)...)
	b = strconv.AppendUint(append(b, " attempts="...), uint64(r.Attempts), 10)
	b = append(b, " connect="...)
	if r.Connect > 0 {
		b = appendSeconds(b, r.Connect)
	} else {
		b = append(b, '-')
	}
	b = appendSeconds(append(b, " duration="...), r.Duration)
	b = strconv.AppendUint(append(b, " c2b="...), r.C2B, 10)
	b = strconv.AppendUint(append(b, " b2c="...), r.B2C, 10)
	if r.Proxy.IsValid() {
		b = r.Proxy.AppendTo(append(b, " via="...))
	}
	if r.ID != "" {
		b = appendID(append(b, " id="...), r.ID)
	}
	if r.ServerName != "" {
		b = append(append(b, " sni="...), r.ServerName...)
	}
	if r.TLSVersion != 0 {
		b = append(append(b, " tls="...), tlsVersion(r.TLSVersion)...)
	}
	if r.Detail != "" {
		b = strconv.AppendQuoteToASCII(append(b, " error="...), cut(r.Detail))
	}
	if r.UDP {
		b = strconv.AppendUint(append(b, " c2b_datagrams="...), r.Asked, 10)
		b = strconv.AppendUint(append(b, " b2c_datagrams="...), r.Answered, 10)
	}
	return append(b, '\n')
}

// appendJSON adds the line of r with the same fields as appendText; what has no value is null.
func appendJSON(b []byte, r *engine.Record) []byte {
	b = r.Start.Add(time.Duration(r.Duration)).AppendFormat(append(b, `{"time":"`...), timeFormat)
	b = append(append(b, `","reason":"`...), r.Reason.String()...)
	b = append(append(b, `","frontend":"`...), r.Frontend...)
	b = appendClient(append(b, `","client":"`...), r.Client)
	b = appendStringOrNull(append(b, `","pool":`...), r.Pool)
	b = appendStringOrNull(append(b, `,"backend":`...), r.Backend)
	b = strconv.AppendUint(append(b, `,"attempts":`...), uint64(r.Attempts), 10)
	b = append(b, `,"connect":`...)
	if r.Connect > 0 {
		b = appendSeconds(b, r.Connect)
	} else {
		b = append(b, "null"...)
	}
	b = appendSeconds(append(b, `,"duration":`...), r.Duration)
	b = strconv.AppendUint(append(b, `,"c2b":`...), r.C2B, 10)
	b = strconv.AppendUint(append(b, `,"b2c":`...), r.B2C, 10)
	if r.Proxy.IsValid() {
		b = append(r.Proxy.AppendTo(append(b, `,"via":"`...)), '"')
	}
	if r.ID != "" {
		b = appendJSONString(append(b, `,"id":`...), r.ID)
	}
	if r.ServerName != "" {
		b = appendJSONString(append(b, `,"sni":`...), r.ServerName)
	}
	if r.TLSVersion != 0 {
		b = append(append(append(b, `,"tls":"`...), tlsVersion(r.TLSVersion)...), '"')
	}
	if r.Detail != "" {
		b = appendJSONString(append(b, `,"error":`...), cut(r.Detail))
	}
	if r.UDP {
		b = strconv.AppendUint(append(b, `,"c2b_datagrams":`...), r.Asked, 10)
		b = strconv.AppendUint(append(b, `,"b2c_datagrams":`...), r.Answered, 10)
	}
	return append(b, "}\n"...)
}

// tlsVersion names a version of TLS.
func tlsVersion(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "1.0"
	case tls.VersionTLS11:
		return "1.1"
	case tls.VersionTLS12:
		return "1.2"
	}
	return "1.3"
}

// appendID adds an id: as it is where it can be taken for nothing else, and quoted otherwise.
func appendID(b []byte, id string) []byte {
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return strconv.AppendQuoteToASCII(b, id)
		}
	}
	return append(b, id...)
}

// cut keeps a text that a stranger may have had a hand in to a size.
func cut(s string) string { return s[:min(len(s), 300)] }

// appendJSONString adds any text.
func appendJSONString(b []byte, s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		return append(b, "null"...) // no string makes it fail
	}
	return append(b, quoted...)
}

func appendClient(b []byte, a netip.AddrPort) []byte {
	if !a.IsValid() {
		return append(b, "unix"...)
	}
	return a.AppendTo(b)
}

// appendStringOrNull adds a name from the configuration, which needs no more escaping than strconv's.
func appendStringOrNull(b []byte, s string) []byte {
	if s == "" {
		return append(b, "null"...)
	}
	return strconv.AppendQuote(b, s)
}

func appendSeconds(b []byte, nanoseconds int64) []byte {
	return strconv.AppendFloat(b, float64(nanoseconds/1000)/1e6, 'f', -1, 64)
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
