package tlsbridge

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// onOwnThread runs f on a thread of its own, which ends with f; the Go runtime makes no others from it, so that nothing
// inherits what f sets. It is not the process's first thread, whose priority and CPUs ps and taskset take for the whole
// process's, and which would keep them: it cannot end.
func onOwnThread(f func()) {
	runtime.LockOSThread()
	if syscall.Gettid() != syscall.Getpid() {
		f()
		return
	}
	var other sync.WaitGroup // while this goroutine holds the first thread, the other one gets another
	other.Go(func() { onOwnThread(f) })
	other.Wait()
	runtime.UnlockOSThread()
}

// setThread sets the priority and the CPU of the calling goroutine's thread: 0 and -1 leave them.
func setThread(nice, cpu int) error {
	if nice != 0 {
		// For Linux, 0 is the calling thread.
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, nice); err != nil {
			return fmt.Errorf("setpriority %d: %w", nice, err)
		}
	}
	if cpu >= 0 {
		var set [128]uint64
		if cpu >= len(set)*64 {
			return fmt.Errorf("CPU %d: want less than %d", cpu, len(set)*64)
		}
		set[cpu/64] = 1 << (cpu % 64)
		_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(set), uintptr(unsafe.Pointer(&set)))
		if errno != 0 {
			return fmt.Errorf("CPU %d: sched_setaffinity: %w", cpu, errno)
		}
	}
	return nil
}
