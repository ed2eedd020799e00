// Package top is the live view of awe4lb top: a model in the manner of bubbletea, fed by the stream of the admin. It draws what
// it is told and orders what the user confirms; whom to ask, and as whom, its client knows.
package top

import (
	"context"
	"errors"
	"io"
	"time"

	"awe4lb/internal/client"

	tea "charm.land/bubbletea/v2"
)

// Run shows the view until the user quits, the process is told to end or ctx is done. in and out are a terminal, which is left
// as it was.
func Run(ctx context.Context, api *client.Client, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	p := tea.NewProgram(newModel(ctx, api), tea.WithContext(ctx), tea.WithInput(in), tea.WithOutput(out))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		watch(ctx, api, p.Send)
	}()
	_, err := p.Run()
	cancel()
	<-watched
	if errors.Is(err, tea.ErrInterrupted) { // SIGINT, as ctrl-c
		return nil
	}
	return err
}

// Pauses between attempts to have the stream again.
const (
	firstPause = 500 * time.Millisecond
	mostPause  = 8 * time.Second
)

// watch sends what the stream brings, and has it again when it is cut, until ctx is done.
func watch(ctx context.Context, api *client.Client, send func(tea.Msg)) {
	pause := firstPause
	for {
		err := api.Watch(ctx, "*", client.Watcher{
			Sample: func(s *client.Sample) {
				pause = firstPause
				send(sampleMsg{s})
			},
			Change: func(list []client.Event) { send(changeMsg{list}) },
		})
		if ctx.Err() != nil {
			return
		}
		send(cutMsg{err})
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, mostPause)
	}
}
