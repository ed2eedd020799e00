package sys

// Package syscall has no name for these two on every architecture.
const (
	sysRecvmmsg = 243
	sysSendmmsg = 269
)
