package admin

import (
	"errors"
	"io/fs"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/valyala/fasthttp"
)

// upgradeOutput is how much of what an upgrade says goes into the log, in bytes.
const upgradeOutput = 4096

// upgrading is an upgrade that was started.
type upgrading struct {
	Program string    `json:"program"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// upgrade starts the program of admin.upgrade and does not wait: most often it ends this process. It has a session of its own,
// an empty environment but for PATH, and what it says goes into the log.
func (s *Server) upgrade(*call) (any, error) {
	argv := s.access.Load().upgrade
	if len(argv) == 0 {
		return nil, problemf(fasthttp.StatusConflict, "admin.upgrade names no program")
	}
	if !s.upgrades.CompareAndSwap(false, true) {
		return nil, problemf(fasthttp.StatusConflict, "an upgrade is under way")
	}
	var said limited
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = time.Second // whoever inherited its output is not waited for
	if err := cmd.Start(); err != nil {
		s.upgrades.Store(false)
		var p *fs.PathError
		if errors.As(err, &p) {
			err = p.Err
		}
		return nil, problemf(fasthttp.StatusInternalServerError, "admin.upgrade: %s: %v", argv[0], err)
	}
	out := upgrading{argv[0], cmd.Process.Pid, rounded(time.Now())}
	go func() {
		err := cmd.Wait()
		s.upgrades.Store(false)
		s.o.Log.Info("upgrade ended", "program", argv[0], "pid", out.PID, "status", cmd.ProcessState.ExitCode(), "error", err, "said", strings.TrimSpace(string(said.text)))
	}()
	return out, nil
}

// limited keeps the beginning of what is written.
type limited struct{ text []byte }

func (l *limited) Write(b []byte) (int, error) {
	l.text = append(l.text, b[:min(len(b), upgradeOutput-len(l.text))]...)
	return len(b), nil
}
