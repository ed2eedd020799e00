package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// demoBackends are the backends that awe4lb.toml has in its pools.
var demoBackends = []struct{ name, network, address string }{
	{"backend-1", "tcp", "127.0.0.1:9001"},
	{"backend-2", "tcp", "127.0.0.1:9002"},
	{"backend-3", "tcp", "127.0.0.1:9003"},
	{"dns-1", "udp", "127.0.0.1:9101"},
	{"dns-2", "udp", "127.0.0.1:9102"},
	{"dns-3", "udp", "127.0.0.1:9103"},
}

func newDemo(p Program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "demo",
		Short: "see it work: backends of its own, and the balancer in front of them",
		Long: `Demo starts three small HTTP servers on 127.0.0.1:9001 to 9003, three small DNS servers on 127.0.0.1:9101 to 9103, and the
balancer in front of them, and says what to try. Ctrl-C ends all of it.

It uses the file given, or awe4lb.toml in the working directory, or else the one built in.`,
		Example: "  awe4lb demo\n  curl http://127.0.0.1:8080/",
		Args:    noArgs,
		RunE:    func(c *cobra.Command, _ []string) error { return demo(p, path, c.OutOrStdout()) },
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE`")
	_ = c.MarkFlagFilename("config", "toml")
	return c
}

func demo(p Program, path string, out io.Writer) error {
	if path == "" {
		path = "awe4lb.toml"
		if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
			var remove func()
			if path, remove, err = writeTemporary(p.DefaultConfig); err != nil {
				return err
			}
			defer remove()
		}
	}
	pids := map[string]int{}
	for _, d := range demoBackends {
		b, err := startBackend(d.name, d.network, d.address)
		if err != nil {
			return CannotBind(err)
		}
		defer b.stop()
		pids[d.name] = b.cmd.Process.Pid
	}
	return p.Run(path, func(r Running) { explain(out, path, r, pids) })
}

// writeTemporary puts text into a file of its own, so that the demo can be edited and reloaded wherever it is started.
func writeTemporary(text []byte) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "awe4lb-demo-")
	if err != nil {
		return "", nil, err
	}
	path = dir + "/awe4lb.toml"
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", nil, err
	}
	return path, func() { _ = os.RemoveAll(dir) }, nil
}

// explain says what there is to see.
func explain(out io.Writer, path string, r Running, pids map[string]int) {
	fmt.Fprintf(out, "\nThe balancer runs. In another terminal:\n\n")
	try := func(why, format string, args ...any) {
		fmt.Fprintf(out, "  %-53s # %s\n", fmt.Sprintf(format, args...), why)
	}
	if l := r.listener("tcp", false).Address; l != "" {
		try("again and again: the backends take turns", "curl http://%s/", l)
		try("end backend-2: no request fails", "kill %d", pids["backend-2"])
	}
	if l := r.listener("tcp", true); l.Address != "" {
		_, port, _ := net.SplitHostPort(l.Address)
		try("the same by TLS, which ends at the balancer", "curl --cacert %s https://localhost:%s/", short(l.Certificate), port)
	}
	if l := r.listener("udp", false).Address; l != "" {
		host, port, _ := net.SplitHostPort(l)
		try("again and again, over UDP", "dig @%s -p %s TXT who.demo +short", host, port)
		try("end dns-2: no question is lost", "kill %d", pids["dns-2"])
	}
	try("reload, after editing "+path, "kill -HUP %d", os.Getpid())
	if r.Admin != "" {
		try("in a browser: watch traffic, drain a backend, edit", "http://%s/", r.Admin)
		try("the same on a terminal", "%s top --admin %s", os.Args[0], r.Admin)
		try("reload, and it says what changed", "curl -X POST http://%s/api/v1/reload", r.Admin)
		try("who has how many connections and flows", "curl http://%s/api/v1/status", r.Admin)
		try("for Prometheus", "curl http://%s/metrics", r.Admin)
	}
	fmt.Fprintf(out, "\nCtrl-C ends it. Below, a line for each connection and each UDP flow that has ended:\n\n")
}

// short returns path as seen from the working directory, where that is shorter.
func short(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
			return rel
		}
	}
	return path
}

// backendProcess is a demo backend, in a process of its own so that it can be killed.
type backendProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer // it ends when this is closed, and so when we die
}

func startBackend(name, network, address string) (*backendProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	socket, err := demoSocket(network, address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		err = fmt.Errorf("%w (another demo, or another process: ss -l%snp 'sport = :%s')", err, network[:1], port)
	}
	if err != nil {
		return nil, fmt.Errorf("demo %s: %w", name, err)
	}
	defer socket.Close()
	cmd := exec.Command(self, "demo-backend", name, network)
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &backendProcess{cmd, stdin}, nil
}

// demoSocket binds the socket that a backend inherits: when the address is taken, that shows here and now.
func demoSocket(network, address string) (*os.File, error) {
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		return c.(*net.UDPConn).File()
	}
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.(*net.TCPListener).File()
}

func (b *backendProcess) stop() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait()
}
