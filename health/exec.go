package health

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// maxOutput is how much of what a command says is kept. The rest is read, so that the command does not hang, and dropped.
const maxOutput = 4 << 10

// reapDelay is how long a pipe may stay open after the command has ended: a child that it left behind may hold it.
const reapDelay = 100 * time.Millisecond

// bounded keeps the beginning of what is written.
type bounded struct{ kept bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	b.kept.Write(p[:min(len(p), maxOutput-b.kept.Len())])
	return len(p), nil
}

// execute runs the command: no shell, nothing of our environment, in a process group of its own, which is killed when the
// command has ended or its time is up.
func (c *check) execute(ctx context.Context) outcome {
	host, port := c.hostPort()
	place := strings.NewReplacer("$host", host, "$port", port)
	args := make([]string, len(c.h.Command))
	for i, arg := range c.h.Command {
		args[i] = place.Replace(arg)
	}
	cmd := exec.CommandContext(ctx, c.h.Command[0], args[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C", "AWE4LB_HOST=" + host, "AWE4LB_PORT=" + port}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	killGroup := func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Cancel = killGroup
	cmd.WaitDelay = reapDelay
	var stdout, stderr bounded
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		o := c.failed("start", err)
		o.verdict = unknown // our command, and no fault of the backend
		return o
	}
	err := cmd.Wait()
	_ = killGroup() // what it left behind
	if ctx.Err() != nil {
		return isBad("command: not done within %v", c.h.Timeout)
	}
	return c.judgeCommand(err, bytes.TrimSpace(stdout.kept.Bytes()), bytes.TrimSpace(stderr.kept.Bytes()))
}

func (c *check) judgeCommand(err error, stdout, stderr []byte) outcome {
	note := ""
	if len(stdout) > 0 {
		note = shown(stdout)
	}
	said := ""
	if more := append(stderr, stdout...); len(stderr) > 0 || len(stdout) > 0 {
		said = ": " + shown(more)
	}
	o := isGood("command: exit status 0")
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		o = isBad("command: %s%s", exit.String(), said)
	case err != nil && !errors.Is(err, exec.ErrWaitDelay): // ErrWaitDelay: it ended well, and left somebody behind
		o = c.failed("command", err)
	case c.h.OutputUp == "" && c.h.OutputDown == "":
	case string(stdout) == strings.TrimSpace(c.h.OutputUp) && c.h.OutputUp != "":
		o = isGood("command: output " + shown(stdout))
	case string(stdout) == strings.TrimSpace(c.h.OutputDown) && c.h.OutputDown != "":
		o = isBad("command: output %s", shown(stdout))
	default:
		o = isBad("command: output %s means neither up nor down", shown(stdout))
		o.verdict = unknown
	}
	o.note = note
	return o
}
