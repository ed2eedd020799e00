package sys

import (
	"fmt"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// Interest and readiness bits, as epoll_ctl(2) has them.
const (
	In    uint32 = syscall.EPOLLIN
	Out   uint32 = syscall.EPOLLOUT
	RdHup uint32 = syscall.EPOLLRDHUP
	Hup   uint32 = syscall.EPOLLHUP
	Err   uint32 = syscall.EPOLLERR
	Edge  uint32 = 1 << 31
)

// Event is one readiness report. Slot and Gen are what Add was given: an owner that reuses slots raises Gen, so that an
// event of the slot's former socket, later in the same batch, can be told apart and dropped.
type Event = syscall.EpollEvent

// Slot returns the first half of the tag given to Add.
func Slot(e *Event) int { return int(e.Fd) }

// Gen returns the second half of the tag given to Add.
func Gen(e *Event) int32 { return e.Pad }

// Epoll is one epoll instance, owned by one goroutine.
type Epoll struct {
	fd int
}

// noPwait2 is set for good once the kernel has said it has no epoll_pwait2.
var noPwait2 atomic.Bool

// NewEpoll opens an epoll instance.
func NewEpoll() (Epoll, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return Epoll{-1}, fmt.Errorf("epoll_create1: %w", err)
	}
	return Epoll{fd}, nil
}

// Add watches fd for interest and tags its events with slot and gen.
func (p Epoll) Add(fd int, interest uint32, slot int, gen int32) syscall.Errno {
	return p.control(syscall.EPOLL_CTL_ADD, fd, interest, slot, gen)
}

// Change replaces what fd is watched for.
func (p Epoll) Change(fd int, interest uint32, slot int, gen int32) syscall.Errno {
	return p.control(syscall.EPOLL_CTL_MOD, fd, interest, slot, gen)
}

func (p Epoll) control(op, fd int, interest uint32, slot int, gen int32) syscall.Errno {
	e := Event{Events: interest, Fd: int32(slot), Pad: gen}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0)
	return errno
}

// Wait fills events and returns how many there are. It blocks for at most timeout, with nanosecond resolution where the
// kernel has epoll_pwait2 and milliseconds otherwise; a negative timeout waits for ever. A signal counts as 0 events.
func (p Epoll) Wait(events []Event, timeout time.Duration) int {
	if !noPwait2.Load() {
		var limit unsafe.Pointer
		var ts syscall.Timespec
		if timeout >= 0 {
			ts = syscall.NsecToTimespec(int64(timeout))
			limit = unsafe.Pointer(&ts)
		}
		n, _, errno := syscall.Syscall6(sysEpollPwait2, uintptr(p.fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(limit), 0, 0)
		if errno == 0 {
			return int(n)
		}
		if errno != syscall.ENOSYS {
			return 0
		}
		noPwait2.Store(true)
	}
	millis := -1
	if timeout >= 0 {
		millis = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	n, _, errno := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(millis), 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// Close closes the instance; watched sockets stay open.
func (p Epoll) Close() { Close(p.fd) }

// PreciseTimers lets the calling thread's waits end on time: the kernel's default is to round them up by as much as 50
// microseconds. The caller must hold its thread (runtime.LockOSThread).
func PreciseTimers() {
	syscall.RawSyscall(syscall.SYS_PRCTL, prSetTimerSlack, 1, 0)
}

// RaiseOpenFiles lifts this process' soft limit of open files to the hard one and returns the hard one. Children inherit
// the limit set here; the Go runtime's habit of restoring the old soft limit for children does not apply after that.
func RaiseOpenFiles() (uint64, error) {
	var lim syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("getrlimit: %w", err)
	}
	lim.Cur = lim.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &lim); err != nil {
		return 0, fmt.Errorf("setrlimit of open files to %d: %w", lim.Max, err)
	}
	return lim.Max, nil
}
