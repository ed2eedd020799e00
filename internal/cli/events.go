package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"awe4lb/internal/client"
	"awe4lb/internal/human"
)

func (c *call) printEvent(e *client.Event) {
	line := fmt.Sprintf("%s %s", e.Time.Local().Format("2006-01-02 15:04:05"), e.Pool)
	if e.Backend != "" {
		line += "/" + e.Backend
	}
	line += " " + e.What + " " + e.Change()
	if e.Discovery.Source != "" {
		line += " (" + e.Discovery.Source + ")"
	}
	if e.Why != "" {
		line += ": " + e.Why
	}
	if e.By != "" {
		line += " (by " + e.By + ")"
	}
	c.printf("%s\n", human.Printable(line))
}

// follower prints each event once. The API has them by the millisecond, so that those of the last one are remembered.
type follower struct {
	*call
	last time.Time
	seen map[client.Event]bool // of that time
}

// followPause is how long a follower waits before it asks for the stream again.
const followPause = time.Second

// followEvents prints the last events, then what happens, until it is interrupted. A process that cannot be reached at the
// start is an error; one that goes away later is waited for.
func (c *call) followEvents(limit int) error {
	f := &follower{call: c, seen: map[client.Event]bool{}}
	if err := f.catchUp(limit); err != nil {
		return err
	}
	for {
		first := true
		err := c.api.Watch(c.context(), "", client.Watcher{
			Sample: func(*client.Sample) {
				if first { // what happened before the stream began to look
					first = false
					_ = f.catchUp(1 << 30)
				}
			},
			Change: f.print,
		})
		if c.context().Err() != nil {
			return nil
		}
		fmt.Fprintf(c.ErrOrStderr(), "awe4lb: %v; trying again\n", err)
		select {
		case <-c.context().Done():
			return nil
		case <-time.After(followPause):
		}
	}
}

// catchUp prints the events that have not been printed, at most limit.
func (f *follower) catchUp(limit int) error {
	var list client.EventList
	ctx, cancel := context.WithTimeout(f.context(), 10*time.Second)
	defer cancel()
	if err := f.api.Get(ctx, "/api/v1/events", nil, &list); err != nil {
		return err
	}
	if n := len(list.Events); n > limit {
		f.remember(&list.Events[limit])
		list.Events = list.Events[:limit]
	}
	f.print(list.Events)
	return nil
}

// print prints what is new of a list with the newest first.
func (f *follower) print(list []client.Event) {
	for i := len(list) - 1; i >= 0; i-- {
		e := &list[i]
		if e.Time.Before(f.last) || f.seen[*e] {
			continue
		}
		f.remember(e)
		if f.output != "json" {
			f.printEvent(e)
		} else if text, err := json.Marshal(e); err == nil {
			f.printf("%s\n", text)
		}
	}
}

func (f *follower) remember(e *client.Event) {
	if e.Time.After(f.last) {
		f.last = e.Time
		clear(f.seen)
	}
	f.seen[*e] = true
}
