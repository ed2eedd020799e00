package main

import (
	"os"
	"os/signal"
	"syscall"
)

// signals are those the process reacts to. Each kind has a channel of its own, so that none pushes another out: an order
// to end must not be lost behind orders to reload. Of reload and reopen, many in a row mean no more than one.
type signals struct {
	end    chan os.Signal // SIGTERM, SIGINT: drain and end; another one: end now
	reload chan os.Signal // SIGHUP; when the terminal has gone, an order to end
	reopen chan os.Signal // SIGUSR1
}

// catchSignals takes the signals from now on, until release is called.
func catchSignals() (s signals, release func()) {
	s = signals{make(chan os.Signal, 2), make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(s.end, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.reopen, syscall.SIGUSR1)
	return s, func() {
		signal.Stop(s.end)
		signal.Stop(s.reload)
		signal.Stop(s.reopen)
	}
}
