package rescue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// outputGrace is how long output is read on after a program has ended: what it
// left running in the background may keep its terminal for ever.
const outputGrace = time.Second

// hangUpGrace is how long a program may go on after its client is gone.
const hangUpGrace = 2 * time.Second

// session is one shell or command of a client's (RFC 4254 §6).
type session struct {
	*Server
	channel ssh.Channel
	from    string

	mu       sync.Mutex
	terminal *os.File // the near end, once there is one
	size     pty.Winsize
	wants    bool // a terminal
	env      []string
	cmd      *exec.Cmd   // while it runs: its ID may be another's afterwards
	gone     unix.Signal // what a program gets since the client is gone; 0: it is not
}

// Payloads of requests (RFC 4254 §6.2 to §6.10).
type (
	ptyRequest struct {
		Term          string
		Columns, Rows uint32
		Width, Height uint32
		Modes         string
	}
	windowChange struct{ Columns, Rows, Width, Height uint32 }
	envRequest   struct{ Name, Value string }
	execRequest  struct{ Command string }
	signalName   struct{ Signal string }
	exitStatus   struct{ Status uint32 }
	exitSignal   struct {
		Signal   string
		Core     bool
		Message  string
		Language string
	}
)

// passed are the variables that a client may set.
var passed = []string{"TERM", "LANG", "COLORTERM"}

const maxEnv = 4096 // bytes of one

func (c *session) serve(requests <-chan *ssh.Request) {
	defer c.channel.Close()
	ended := make(chan struct{})
	started := false
	for {
		select {
		case <-ended:
			return
		case r, more := <-requests:
			if !more { // the client is gone
				if started {
					c.hangUp(ended)
				}
				return
			}
			ok := false
			switch r.Type {
			case "shell", "exec":
				if !started {
					cmd, err := c.command(r)
					if ok = err == nil; ok {
						started = true
						go func() {
							defer close(ended)
							defer c.guard()
							c.run(cmd)
						}()
					}
				}
			default:
				ok = c.ask(r)
			}
			if r.WantReply {
				// A client that is gone shows as such above.
				_ = r.Reply(ok, nil)
			}
		}
	}
}

// ask carries out what is asked for beside a program.
func (c *session) ask(r *ssh.Request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Type {
	case "pty-req":
		var q ptyRequest
		if ssh.Unmarshal(r.Payload, &q) != nil {
			return false
		}
		c.wants, c.size = true, winsize(q.Columns, q.Rows)
		return c.setenv("TERM", q.Term)
	case "window-change":
		var q windowChange
		if ssh.Unmarshal(r.Payload, &q) != nil {
			return false
		}
		c.size = winsize(q.Columns, q.Rows)
		return c.terminal == nil || pty.Setsize(c.terminal, &c.size) == nil
	case "env":
		var q envRequest
		return ssh.Unmarshal(r.Payload, &q) == nil && (slices.Contains(passed, q.Name) || strings.HasPrefix(q.Name, "LC_")) && c.setenv(q.Name, q.Value)
	case "signal":
		var q signalName
		if ssh.Unmarshal(r.Payload, &q) != nil || c.cmd == nil {
			return false
		}
		n, known := signals[q.Signal]
		return known && unix.Kill(-c.cmd.Process.Pid, n) == nil
	}
	return false // subsystems, forwarding of agents and of X11
}

func winsize(columns, rows uint32) pty.Winsize {
	return pty.Winsize{Cols: uint16(min(columns, 1<<15)), Rows: uint16(min(rows, 1<<15))}
}

func (c *session) setenv(name, value string) bool {
	if len(value) > maxEnv || strings.ContainsRune(value, 0) {
		return false
	}
	c.env = append(c.env, name+"="+value)
	return len(c.env) <= 32
}

// signals by their names (RFC 4254 §6.10).
var signals = map[string]unix.Signal{
	"ABRT": unix.SIGABRT, "ALRM": unix.SIGALRM, "HUP": unix.SIGHUP, "INT": unix.SIGINT, "KILL": unix.SIGKILL,
	"PIPE": unix.SIGPIPE, "QUIT": unix.SIGQUIT, "SEGV": unix.SIGSEGV, "TERM": unix.SIGTERM, "USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2,
}

// command is the program that a request wants.
func (c *session) command(r *ssh.Request) (*exec.Cmd, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	cmd := exec.Command(c.Shell[0])
	cmd.Args = slices.Clone(c.Shell)
	if r.Type == "exec" {
		var q execRequest
		if err := ssh.Unmarshal(r.Payload, &q); err != nil {
			return nil, err
		}
		cmd.Args = []string{c.Shell[0], "-c", q.Command}
	} else if c.wants {
		// Nothing reads it before the shell is there.
		_, _ = io.WriteString(c.channel, strings.ReplaceAll(c.Greeting, "\n", "\r\n"))
	}
	cmd.Env = append(os.Environ(), append([]string{"USER=root", "LOGNAME=root", "HOME=/root", "SHELL=" + c.Shell[0], "PS1=rescue:\\w# "}, c.env...)...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.WaitDelay = outputGrace
	return cmd, nil
}

// run runs the program and tells how it ended.
func (c *session) run(cmd *exec.Cmd) {
	var err error
	if c.wants {
		err = c.onTerminal(cmd)
	} else {
		err = c.onPipes(cmd)
	}
	var exit *exec.ExitError
	name, payload := "exit-status", ssh.Marshal(exitStatus{})
	switch {
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled():
		name, payload = "exit-signal", ssh.Marshal(exitSignal{Signal: signalWord(exit.Sys().(syscall.WaitStatus).Signal())})
	case errors.As(err, &exit):
		payload = ssh.Marshal(exitStatus{uint32(exit.ExitCode())})
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		fmt.Fprintf(c.channel.Stderr(), "rescue shell: %v\r\n", err)
		payload = ssh.Marshal(exitStatus{127})
	}
	// A client that is gone needs no answer.
	_, _ = c.channel.SendRequest(name, false, payload)
}

func signalWord(s syscall.Signal) string {
	for word, n := range signals {
		if n == s {
			return word
		}
	}
	return fmt.Sprintf("%d@rackseed", int(s))
}

// wait waits for the program's end.
func (c *session) wait(cmd *exec.Cmd) error {
	err := c.Children.Wait(cmd)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmd = nil
	return err
}

// onPipes runs a program without a terminal.
func (c *session) onPipes(cmd *exec.Cmd) error {
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = c.channel, c.channel.Stderr()
	if err := c.start(cmd); err != nil {
		return err
	}
	go func() {
		// A program need not read what is sent to it.
		_, _ = io.Copy(in, c.channel)
		_ = in.Close()
	}()
	return c.wait(cmd)
}

// onTerminal runs a program on a terminal of its own.
func (c *session) onTerminal(cmd *exec.Cmd) error {
	near, far, err := pty.Open()
	if err != nil {
		return fmt.Errorf("opening a terminal: %w", err)
	}
	defer near.Close()
	c.mu.Lock()
	size := c.size
	c.terminal = near
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.terminal = nil
		c.mu.Unlock()
	}()
	if err := pty.Setsize(near, &size); err != nil {
		return errors.Join(err, far.Close())
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = far, far, far
	cmd.SysProcAttr.Setctty = true // of standard input
	err = c.start(cmd)
	if err = errors.Join(err, far.Close()); err != nil {
		return err
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		// It ends with an error once nobody has the far end any more.
		_, _ = io.Copy(c.channel, near)
	}()
	go func() { _, _ = io.Copy(near, c.channel) }()
	err = c.wait(cmd)
	t := time.NewTimer(outputGrace)
	defer t.Stop()
	select {
	case <-drained:
	case <-t.C:
	}
	return err
}

func (c *session) start(cmd *exec.Cmd) error {
	if err := c.Children.Start(cmd); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cmd = cmd
	if c.gone != 0 {
		// It may have ended already.
		_ = unix.Kill(-cmd.Process.Pid, c.gone)
	}
	return nil
}

// hangUp ends a program whose client is gone, as a closed terminal does; one that
// does not listen to that would hold a place for ever, and is killed.
func (c *session) hangUp(ended <-chan struct{}) {
	c.signal(unix.SIGHUP)
	t := time.NewTimer(hangUpGrace)
	defer t.Stop()
	select {
	case <-ended:
		return
	case <-t.C:
	}
	c.signal(unix.SIGKILL)
	<-ended
}

// signal signals a program whose client is gone, also one that is just started.
func (c *session) signal(n unix.Signal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = n
	if c.cmd != nil {
		// It may have ended meanwhile.
		_ = unix.Kill(-c.cmd.Process.Pid, n)
	}
}
