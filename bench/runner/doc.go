// Package runner measures proxies beside each other: it finds or builds them, starts them with equal settings in front
// of the same backends, sends short runs of load to one after the other, and hands report.Results over.
//
// How noise is kept from deciding:
//   - All proxies run all the time, idle ones cost nothing, so a run starts at once and systems alternate every second or
//     two. The order is rotated and reversed from round to round; ratios are made within a round.
//   - The figure that counts is the CPU of the proxy's process tree per unit of work. It depends far less on what else
//     runs than rates and latencies do.
//   - All processes are started in the runner's session (never setsid): with autogroups each session is a scheduling group
//     of its own, which alone moved a ratio from 0.90 to 1.13 in our trials. The runner checks this and the report says so.
//   - Every run notes what other processes used and what the hypervisor stole meanwhile.
//
// Every process is stopped by its PID when Run returns, whatever the reason; should the runner be killed, the kernel
// sends SIGTERM to them (PR_SET_PDEATHSIG).
package runner

// The words of load's gate, between the runner and a generator process.
const (
	GateReady = "ready"
	GateDone  = "done"
)

// addresses are those of the backends.
type addresses struct {
	HTTP []string
	Bulk string
	UDP  string
}
