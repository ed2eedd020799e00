package discovery

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// follower watches a source that tells by a stream that something has changed, and has to be listed again to see what.
//
//	┌─▶ open the stream ─▶ list ─▶ report ─▶ wait ──── resync over ──┐
//	│                       ▲                 │ event; not all ready │
//	│                       └─────────────────┘                      │
//	└────────────────────────────────────────────────────────────────┘
//
// The stream is opened before the first list, so that nothing falls between the two. No stream is trusted for longer than
// resync: one that has gone dead, or has lost an event, is noticed then, whatever the protocol has for that. Whatever fails
// ends Watch.
type follower struct {
	// Set once.
	resync   time.Duration
	patience time.Duration // for the stream to open, and for a list
	open     func(ctx context.Context) (stream, error)
	// list returns what there is; ready is false when something is about to come that no event will tell.
	list func(ctx context.Context) (l List, ready bool, err error)
}

// stream is a stream of events. It ends with the context it was opened with.
type stream interface {
	next() error // blocks until something has happened, or until the stream has ended, with the reason
	close()      // any number of times
}

func noAnswer(d time.Duration) error {
	return fail(ReasonTimeout, fmt.Errorf("no answer within %v", d))
}

func (f *follower) watch(ctx context.Context, report func(List)) error {
	for {
		if err := f.stretch(ctx, report); err != nil {
			return err
		}
	}
}

// stretch follows one stream for resync, and returns nil when that is over.
func (f *follower) stretch(parent context.Context, report func(List)) error {
	ctx, cancel := context.WithCancel(parent)
	var reader sync.WaitGroup
	defer reader.Wait()
	defer cancel()
	st, err := f.opened(ctx, cancel)
	if err != nil {
		return err
	}
	defer st.close()
	events, ended := make(chan struct{}, 1), make(chan error, 1)
	reader.Go(func() {
		for {
			if err := st.next(); err != nil {
				ended <- err
				return
			}
			select {
			case events <- struct{}{}:
			default: // one that was not looked at yet says the same
			}
		}
	})
	over := time.After(f.resync)
	for soon := time.Second; ; {
		list, ready, err := f.listed(ctx)
		if err != nil {
			return err
		}
		report(list)
		var again <-chan time.Time
		if !ready {
			again = time.After(soon)
			soon = min(2*soon, f.resync)
		}
		if err := pause(ctx, askPause); err != nil { // however fast events come
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
			return nil
		case err := <-ended:
			return err
		case <-again:
		case <-events:
			soon = time.Second
		}
	}
}

// opened opens a stream, which is to live longer than the time there is to open it.
func (f *follower) opened(ctx context.Context, cancel func()) (stream, error) {
	late := time.AfterFunc(f.patience, cancel)
	st, err := f.open(ctx)
	if late.Stop() {
		return st, err
	}
	if err == nil {
		st.close()
	}
	return nil, fmt.Errorf("opening the stream: %w", noAnswer(f.patience))
}

func (f *follower) listed(parent context.Context) (List, bool, error) {
	ctx, cancel := context.WithTimeout(parent, f.patience)
	defer cancel()
	list, ready, err := f.list(ctx)
	if err != nil && ctx.Err() != nil && parent.Err() == nil {
		err = fmt.Errorf("listing: %w", noAnswer(f.patience))
	}
	return list, ready, err
}

// pause waits for d, or returns the error of a context that ends before.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
