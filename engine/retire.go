package engine

// A UDP listener that is no longer configured stays open until its last flow has ended, because answers have to leave from
// its port. New flows do not begin there.

// sweep has closeLeft look for listeners that can go. Never blocks; safe from any goroutine.
func (e *Engine) sweep() {
	select {
	case e.left <- struct{}{}:
	default:
	}
}

// closeLeft closes the sockets of listeners that are no longer configured and have no flow left.
func (e *Engine) closeLeft() {
	for {
		select {
		case <-e.left:
			e.closeFlowless()
		case <-e.quit:
			return
		}
	}
}

func (e *Engine) closeFlowless() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	for key, b := range e.retired {
		if b.flows.Load() > 0 {
			continue
		}
		for i, sh := range e.shards {
			sh.loop.Call(func() { sh.flows.forget(b.fds[i]) })
		}
		b.close()
		delete(e.retired, key)
	}
}
