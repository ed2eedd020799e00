package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// demoBackends are the addresses that awe4lb.toml has in its pool.
var demoBackends = []string{"127.0.0.1:9001", "127.0.0.1:9002", "127.0.0.1:9003"}

func newDemo(p Program) *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:   "demo",
		Short: "see it work: three backends of its own, and the balancer in front of them",
		Long: `Demo starts three small HTTP servers on 127.0.0.1:9001 to 9003 and the balancer in front of them, and says what to try.
Ctrl-C ends all of it.

It uses the file given, or awe4lb.toml in the working directory, or else the one built in.`,
		Example: "  awe4lb demo\n  curl http://127.0.0.1:8080/",
		Args:    cobra.NoArgs,
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
	var pids []int
	for i, address := range demoBackends {
		b, err := startBackend(fmt.Sprint("backend-", i+1), address)
		if err != nil {
			return CannotBind(err)
		}
		defer b.stop()
		pids = append(pids, b.cmd.Process.Pid)
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
func explain(out io.Writer, path string, r Running, pids []int) {
	fmt.Fprintf(out, "\nThe balancer runs. In another terminal:\n\n")
	try := func(why, format string, args ...any) {
		fmt.Fprintf(out, "  %-52s # %s\n", fmt.Sprintf(format, args...), why)
	}
	if len(r.Listeners) > 0 {
		try("again and again: the backends take turns", "curl http://%s/", r.Listeners[0].Address)
	}
	try("end backend-2: no request fails", "kill %d", pids[1])
	try("reload, after editing "+path, "kill -HUP %d", os.Getpid())
	if r.Admin != "" {
		try("the same, and it says what changed", "curl -X POST http://%s/api/v1/reload", r.Admin)
		try("who has how many connections", "curl http://%s/api/v1/status", r.Admin)
		try("for Prometheus", "curl http://%s/metrics", r.Admin)
	}
	fmt.Fprintf(out, "\nCtrl-C ends it. Below, a line for each connection that has ended:\n\n")
}

// backendProcess is a demo backend, in a process of its own so that it can be killed.
type backendProcess struct {
	cmd   *exec.Cmd
	stdin io.Closer // it ends when this is closed, and so when we die
}

func startBackend(name, address string) (*backendProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	// The child inherits the listening socket: when it is taken, that shows here and now.
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("demo %s: %w", name, err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	cmd := exec.Command(self, "demo-backend", name)
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

func (b *backendProcess) stop() {
	_ = b.stdin.Close()
	_ = b.cmd.Wait()
}

func newDemoBackend() *cobra.Command {
	return &cobra.Command{
		Use:    "demo-backend NAME",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE:   func(_ *cobra.Command, args []string) error { return demoBackend(args[0]) },
	}
}

// demoBackend serves HTTP on descriptor 3 until it is told to end or its parent dies.
func demoBackend(name string) error {
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	var n atomic.Int64
	s := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s on %s, request %d\n", name, l.Addr(), n.Add(1))
	})}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			signals <- syscall.SIGTERM
		}()
		<-signals
		_ = s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
