package health

import (
	"bufio"
	"fmt"
	"net"
	"strings"
)

// askRedis asks PING, after AUTH where a password is given. Valkey and others that speak RESP answer alike.
func (c *check) askRedis(conn net.Conn) outcome {
	var ask strings.Builder
	commands := 1
	if c.h.Password != "" {
		commands++
		if c.h.User != "" {
			writeRESP(&ask, "AUTH", c.h.User, c.h.Password)
		} else {
			writeRESP(&ask, "AUTH", c.h.Password)
		}
	}
	writeRESP(&ask, "PING")
	if _, err := conn.Write([]byte(ask.String())); err != nil {
		return c.failed("send", err)
	}
	r := bufio.NewReaderSize(conn, maxLine)
	for i := range commands {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return c.failed("answer", err)
		}
		if o := judgeRedis(string(line), i == commands-1); o.verdict != good {
			return o
		}
	}
	return isGood("PONG")
}

func writeRESP(b *strings.Builder, words ...string) {
	fmt.Fprintf(b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(b, "$%d\r\n%s\r\n", len(w), w)
	}
}

// judgeRedis judges the answer to AUTH, or to PING.
func judgeRedis(line string, ping bool) outcome {
	line = strings.TrimRight(line, "\r\n")
	want := "+OK"
	if ping {
		want = "+PONG"
	}
	switch {
	case line == want:
		return isGood(line[1:])
	case strings.HasPrefix(line, "-NOAUTH"):
		return isBad("answer: it wants a password")
	case strings.HasPrefix(line, "-"):
		return isBad("answer: %s", shown(line[1:]))
	}
	return isBad("answer: got %s; want %s", shown(line), want)
}
