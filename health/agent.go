package health

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// Kind agent: a program beside the backend says in one line of words how it is, as haproxy's agent-check has it. The words
// are separated by spaces, tabs or commas; what comes after # is for people.
//
//	up ready                good
//	down stopped fail       bad
//	drain maint             no new sessions, until it says ready; good, as it says nothing else
//	75%                     of its weight, until it says another percentage; 0% is no new sessions
//	maxconn:30                        is read over

// maxLine bounds what an agent says.
const maxLine = 1 << 10

func (c *check) askAgent(conn net.Conn) outcome {
	if len(c.h.SendBytes) > 0 {
		if _, err := conn.Write(c.h.SendBytes); err != nil {
			return c.failed("send", err)
		}
	}
	line, err := bufio.NewReaderSize(io.LimitReader(conn, maxLine), maxLine).ReadString('\n')
	if err != nil && (err != io.EOF || line == "") {
		return c.failed("answer", err)
	}
	return judgeAgent(line)
}

// judgeAgent judges the line an agent says. Where words contradict each other the worst counts.
func judgeAgent(line string) outcome {
	line, _, _ = strings.Cut(line, "\n")
	words, description, _ := strings.Cut(line, "#")
	weight, up, down, order := -1, false, "", ""
	for _, word := range strings.FieldsFunc(words, func(r rune) bool { return strings.ContainsRune(" \t\r,", r) }) {
		switch lower := strings.ToLower(word); lower {
		case "up":
			up = true
		case "ready":
			if order == "" {
				order = lower
			}
		case "drain":
			if order != "maint" {
				order = lower
			}
		case "maint":
			order = lower
		case "down", "stopped", "fail":
			if down == "" {
				down = lower
			}
		default:
			if digits, ok := strings.CutSuffix(lower, "%"); ok {
				n, err := strconv.ParseUint(digits, 10, 16)
				if err != nil || n > 25600 {
					return isBad("answer: got %s; want a percentage", shown(word))
				}
				weight = int(n)
			} else if !strings.HasPrefix(lower, "maxconn:") {
				return isBad("answer: got %s; want up, ready, down, stopped, fail, drain, maint or a percentage", shown(word))
			}
		}
	}
	o := isGood("the agent says " + shown(strings.TrimSpace(words)))
	switch {
	case down != "":
		o = isBad("the agent says %s", down)
	case !up && weight < 0 && order == "":
		return isBad("answer: got %s; want a word such as up", shown(line))
	}
	if description = strings.TrimSpace(description); description != "" {
		o.note = shown(description)
		o.why = fmt.Sprintf("%s: %s", o.why, o.note)
	}
	o.weight, o.order = weight, order
	return o
}
