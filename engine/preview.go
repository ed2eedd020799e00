package engine

import (
	"fmt"
	"maps"
	"path/filepath"

	"awe4lb/acl"
	"awe4lb/balancer"
	"awe4lb/config"
	"awe4lb/internal/socketfile"

	"golang.org/x/sys/unix"
)

// Preview implements balancer.Plane. Whether a new address can be had it finds out by binding to it, without listening, and
// letting go of it at once. It reads the files that next names, as Prepare does. Blocks as Prepare does.
func (e *Engine) Preview(next *balancer.Snapshot) ([]balancer.Change, error) {
	if err := checkHost(next.Config); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.keeper != nil {
		if _, err := e.keeper.Prepare(next.Config); err != nil {
			return nil, err
		}
	}
	if _, err := acl.Prepare(next.Config); err != nil {
		return nil, err
	}
	changes, wanted, removed := []balancer.Change{}, map[bindKey]*bound{}, maps.Clone(e.bindings)
	stay := takeOver(e.bindings, next, nil)
	back := takeOver(e.retired, next, stay)
	note := func(a config.Address, action, detail string) {
		changes = append(changes, balancer.Change{Kind: "listener", Name: a.String(), Action: action, Detail: detail})
	}
	for _, f := range next.Frontends {
		for _, key := range keysOf(f.Config) {
			old := e.bindings[stay[key]]
			delete(removed, stay[key])
			if old == nil {
				if _, ok := back[key]; !ok {
					if err := e.tryAddress(key, wanted); err != nil {
						return nil, &BindError{f.Config.BindKey(key.address), f.Config.Name, key.address, key.udp, err}
					}
				}
				note(key.address, "added", "")
				old = &bound{binding: &binding{address: key.address, local: key.address, udp: key.udp}, front: f}
			} else if was := old.front.Config.Name; was != f.Config.Name {
				note(old.local, "changed", fmt.Sprintf("from frontend %s to %s", was, f.Config.Name))
			}
			wanted[key] = old
		}
	}
	for _, b := range removed {
		note(b.local, "removed", "")
	}
	return changes, nil
}

// tryAddress reports why an address cannot be listened on. Datagrams that another socket of ours is there for are left alone:
// to bind is to get some of them.
func (e *Engine) tryAddress(key bindKey, wanted map[bindKey]*bound) error {
	a := key.address
	if a.IsUnix() {
		if err := socketfile.InTheWay(a.Path); err != nil {
			return err
		}
		return unix.Access(filepath.Dir(a.Path), unix.W_OK|unix.X_OK)
	}
	kind, shared := unix.SOCK_STREAM, e.overlaps(a, key.udp, wanted) || !key.udp && e.isLeaving(a)
	if key.udp {
		if kind = unix.SOCK_DGRAM; shared {
			return nil
		}
	}
	fd, err := bindSocket(a, kind, shared)
	if err == nil {
		_ = unix.Close(fd)
	}
	return err
}
