package engine

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"awe4lb/config"
)

// The bits of the sysctl net.ipv4.tcp_fastopen, without which the kernel takes the socket options and does nothing.
const (
	fastOpenSysctl = "/proc/sys/net/ipv4/tcp_fastopen"
	fastOpenClient = 1 // the only one set by default
	fastOpenServer = 2
)

// warnFastOpen logs who asks for TCP Fast Open in vain.
func (e *Engine) warnFastOpen(c *config.Config) {
	text, err := os.ReadFile(fastOpenSysctl)
	if err != nil {
		return // a kernel without it, or a sandbox: nothing is known
	}
	bits, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return
	}
	for _, key := range fastOpenInVain(c, bits) {
		e.log.Warn("TCP Fast Open is off in the kernel: see net.ipv4.tcp_fastopen", "setting", key, "tcp_fastopen", bits)
	}
}

// fastOpenInVain returns the keys that ask for what the bits do not allow.
func fastOpenInVain(c *config.Config, bits int) (keys []string) {
	for _, f := range c.Frontends {
		if f.TCP.FastOpen && bits&fastOpenServer == 0 {
			keys = append(keys, fmt.Sprintf("frontends.%s.tcp.fastopen", f.Name))
		}
	}
	for _, p := range c.Pools {
		if p.TCP.FastOpen && bits&fastOpenClient == 0 {
			keys = append(keys, fmt.Sprintf("pools.%s.tcp.fastopen", p.Name))
		}
	}
	return keys
}
