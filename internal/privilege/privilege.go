// Package privilege gives up what a process started as root no longer needs once its ports are bound, and says what would be lacking
// then.
package privilege

import (
	"fmt"
	"os/user"
	"strconv"

	"kernel.org/pub/linux/libs/security/libcap/cap"
)

// Drop makes every thread of the process run as the user (a name or a number) and the group (likewise; "" is the user's
// own), with the user's other groups, no capability but CAP_NET_BIND_SERVICE (a reload may add a listener below port 1024)
// and those given, and no way to gain one by exec. It needs root. When it fails half-way the process must not go on: the error says where.
func Drop(userName, group string, keep ...Capability) error {
	u, err := lookupUser(userName)
	if err != nil {
		return fmt.Errorf("engine.user: %w", err)
	}
	uid, gid, groups, err := ids(u, group)
	if err != nil {
		return err
	}
	if err := cap.SetGroups(gid, groups...); err != nil {
		return fmt.Errorf("become group %d: %w (engine.user needs root)", gid, err)
	}
	if err := cap.SetUID(uid); err != nil {
		return fmt.Errorf("become user %d: %w (engine.user needs root)", uid, err)
	}
	set := cap.NewSet()
	kept := append([]Capability{cap.NET_BIND_SERVICE}, keep...)
	for _, flag := range []cap.Flag{cap.Permitted, cap.Effective} {
		if err := set.SetFlag(flag, true, kept...); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	if err := set.SetProc(); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	const noNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
	if _, err := cap.Prctlw(noNewPrivs, 1); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return nil
}

// Capability is a Linux capability (capabilities(7)).
type Capability = cap.Value

// NetAdmin is what sending with the clients' addresses needs.
const NetAdmin = cap.NET_ADMIN

// Check reports whether the user and group exist, before anything is bound.
func Check(userName, group string) error {
	u, err := lookupUser(userName)
	if err != nil {
		return fmt.Errorf("engine.user: %w", err)
	}
	_, _, _, err = ids(u, group)
	return err
}

func lookupUser(name string) (*user.User, error) {
	if _, err := strconv.Atoi(name); err == nil {
		return user.LookupId(name)
	}
	return user.Lookup(name)
}

func ids(u *user.User, group string) (uid, gid int, groups []int, err error) {
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, nil, fmt.Errorf("engine.user: %w", err)
	}
	gid, err = strconv.Atoi(u.Gid)
	if group != "" {
		gid, err = lookupGroup(group)
	}
	if err != nil {
		return 0, 0, nil, fmt.Errorf("engine.group: %w", err)
	}
	names, err := u.GroupIds()
	if err != nil {
		return 0, 0, nil, fmt.Errorf("groups of %s: %w", u.Username, err)
	}
	for _, n := range names {
		if id, err := strconv.Atoi(n); err == nil {
			groups = append(groups, id)
		}
	}
	return uid, gid, groups, nil
}

func lookupGroup(name string) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}
