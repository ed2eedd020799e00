package sys

// Package syscall has no name for these two on every architecture.
const (
	sysRecvmmsg = 299
	sysSendmmsg = 307
)
