package privilege

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

// As calls f with the rights that Drop would leave to files and folders: as the user, and the group or the user's own, with
// the user's other groups and no capability. It needs root; f is not called when that fails. Only the thread that f runs on
// changes, and it ends with f: what f starts goroutines for has the rights of the process.
func As(userName, group string, f func()) error {
	u, err := lookupUser(userName)
	if err != nil {
		return fmt.Errorf("engine.user: %w", err)
	}
	uid, gid, groups, err := ids(u, group)
	if err != nil {
		return err
	}
	all := make([]uint32, len(groups)+1) // not empty, so that there is a first one
	for i, g := range groups {
		all[i] = uint32(g)
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is of no more use
		// The calls of package syscall are for all threads.
		for _, c := range []struct {
			name                string
			number, a, b, third uintptr
		}{
			{"setgroups", syscall.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&all[0])), 0},
			{"setresgid", syscall.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
			{"setresuid", syscall.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
		} {
			if _, _, errno := syscall.RawSyscall(c.number, c.a, c.b, c.third); errno != 0 {
				done <- fmt.Errorf("become user %d: %w (engine.user needs root)", uid, os.NewSyscallError(c.name, errno))
				return
			}
		}
		f()
		done <- nil
	}()
	return <-done
}
