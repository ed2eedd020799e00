package tlsbridge

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// ownThread gives the calling goroutine a thread with its own priority and CPU, if either is asked for. The thread ends
// with the goroutine; the Go runtime never makes others from it, so that nothing inherits them.
func ownThread(nice, cpu int) error {
	if nice == 0 && cpu < 0 {
		return nil
	}
	runtime.LockOSThread()
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
