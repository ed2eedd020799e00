package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

const (
	streamSilence = 5 * time.Second // of a stream that sends a sample each second
	maxEvent      = 32 << 20        // bytes of one event
)

// Watcher is told what comes by a stream.
type Watcher struct {
	Sample func(*Sample)
	Change func([]Event) // the newest first
}

// Watch tells w what the stream brings, until ctx is done or the stream is cut, and returns why: it fails as Do, and never
// returns nil. Samples have the backends of pools, which are names with commas between; "*" is all. w is told by the goroutine
// that calls Watch.
func (c *Client) Watch(ctx context.Context, pools string, w Watcher) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.silence, func() { cancel(fmt.Errorf("nothing came for %v", c.silence)) })
	defer silence.Stop()
	res, err := c.send(ctx, Request{Method: http.MethodGet, Path: "/api/v1/stream", Query: url.Values{"pools": {pools}}})
	if err != nil {
		return whyEnded(ctx, err)
	}
	defer res.Body.Close()
	err = readEvents(res.Body, func(name string, data []byte) error {
		silence.Reset(c.silence)
		switch name {
		case "sample":
			var s Sample
			if err := json.Unmarshal(data, &s); err != nil {
				return err
			}
			if w.Sample != nil {
				w.Sample(&s)
			}
		case "change":
			var list EventList
			if err := json.Unmarshal(data, &list); err != nil {
				return err
			}
			if w.Change != nil {
				w.Change(list.Events)
			}
		}
		return nil // what a later version adds is left alone
	})
	return whyEnded(ctx, &Unreachable{c.address, err})
}

// whyEnded returns the cause of the end of ctx where that is what ended something, else err.
func whyEnded(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// readEvents reads server-sent events (WHATWG HTML, section 9.2) and hands each to handle, until one of the two fails. The
// end of the stream is an error too.
func readEvents(r io.Reader, handle func(name string, data []byte) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	name, data := "", []byte(nil)
	for lines.Scan() {
		line := lines.Bytes()
		if len(line) == 0 {
			if data != nil {
				if err := handle(name, data); err != nil {
					return err
				}
			}
			name, data = "", nil
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			name = string(value)
		case "data":
			if data != nil {
				data = append(data, '\n')
			} else {
				data = []byte{}
			}
			if data = append(data, value...); len(data) > maxEvent {
				return errors.New("an event without end")
			}
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("the stream has ended")
}
