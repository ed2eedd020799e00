// Package systemd tells the service manager what state the process is in, as Type=notify and Type=notify-reload units
// want it. Without a service manager every call does nothing.
package systemd

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Ready says that the process serves, after the start or after a reload.
func Ready() { notify(daemon.SdNotifyReady) }

// Reloading says that a reload has begun. Ready ends it.
func Reloading() {
	var now syscall.Timespec
	const clockMonotonic = 1
	_, _, _ = syscall.Syscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&now)), 0)
	notify(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, now.Nano()/1000))
}

// Stopping says that the process is about to end and finishes what is open.
func Stopping() { notify(daemon.SdNotifyStopping) }

// notify has nobody to report a failure to: the manager that does not hear from us acts on its own timeout.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }
