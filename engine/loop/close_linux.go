package loop

import "syscall"

// closefd is close(2) without telling Go's scheduler: closing a socket or a pipe does not block. EINTR still closes.
func closefd(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }
