package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/machine"
)

// TestLossIsConfirmedAtATerminal: somebody at a terminal is asked, by what is
// lost, and only yes is an answer that erases.
func TestLossIsConfirmedAtATerminal(t *testing.T) {
	r := newRig(t)
	r.setup()
	const contents = "GPT, 3 partitions: ext4, LVM"
	r.Waiting(1, func(i *machine.Inventory) { i.Disks[0].Contents = contents })
	at := r.types
	for _, answer := range []string{"no\n", "y\n", "\n"} {
		shown, err := at(answer, "approve", "m-00000001")
		if err == nil || !strings.Contains(shown, "holds: "+contents) {
			t.Errorf("answered %q: %v\n%s", answer, err, shown)
		}
	}
	if i := r.View().InstallIntent("m-00000001"); i != nil {
		t.Fatalf("approved without yes: %+v", i)
	}
	shown, err := at("yes\n", "approve", "m-00000001", "--name", "alpha")
	i := r.View().InstallIntent("m-00000001")
	if err != nil || i == nil || i.Erase != contents || i.Disk != (machine.DiskHint{Serial: "S1"}) ||
		!strings.Contains(shown, "serial number S1") || !strings.Contains(shown, "it starts the cluster") {
		t.Errorf("answered yes: %v, %+v\n%s", err, i, shown)
	}

	r.Failed("m-00000001", "the disk does not answer")
	if shown, err := at("no\n", "retry", "alpha", "--disk-serial", "S1"); err == nil || !strings.Contains(shown, contents) {
		t.Errorf("a retry, answered no: %v\n%s", err, shown)
	}
	if _, err := at("yes\n", "retry", "alpha", "--disk-serial", "S1"); err != nil || r.View().InstallIntent("m-00000001").Epoch != 2 {
		t.Errorf("a retry, answered yes: %v", err)
	}
	if _, err := at("", "revoke", "alpha"); err != nil {
		t.Errorf("revoke asks: %v", err)
	}

	// Nothing is asked about an empty disk.
	r.Waiting(2)
	r.must("", "forget", "alpha")
	if shown, err := at("", "approve", "m-00000002", "--name", "beta"); err != nil || shown != "" {
		t.Errorf("an empty disk: %v\n%s", err, shown)
	}
	r.Installed("m-00000002")
	r.Started("m-00000002")
	// A node is not forgotten by the way.
	r.fails("beta is installed (joining)", "", "forget", "beta")
	if shown, err := at("no\n", "forget", "beta"); err == nil || !strings.Contains(shown, "it is a stranger until it is installed anew") {
		t.Errorf("forgets a node, answered no: %v\n%s", err, shown)
	}
	if _, ok := r.View().Machine("m-00000002"); !ok {
		t.Error("it is forgotten all the same")
	}
	if _, err := at("lab\nalpha\nits board is dead\n", "cluster", "abandon"); err == nil || !strings.Contains(err.Error(), "beta") {
		t.Errorf("abandoned by another name: %v", err)
	}
	if _, err := at("room4\nbeta\nits board is dead\n", "cluster", "abandon"); err == nil || !strings.Contains(err.Error(), `is called "lab"`) {
		t.Errorf("another cluster abandoned: %v", err)
	}
	shown, err = at("lab\nbeta\nits board is dead\n", "cluster", "abandon")
	if err != nil || r.View().Bootstrap() != nil || !strings.Contains(shown, "What beta began") || !strings.Contains(shown, "installed machines: 1") {
		t.Errorf("abandoned: %v\n%s", err, shown)
	}
}

// types runs a command for a person at a terminal who types, and returns what is
// shown.
func (r *rig) types(typed string, args ...string) (shown string, err error) {
	r.t.Helper()
	keyboard, tty, err := pty.Open()
	if err != nil {
		r.t.Fatal(err)
	}
	defer keyboard.Close()
	defer tty.Close()
	if _, err := io.WriteString(keyboard, typed); err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	var out bytes.Buffer
	err = execute(ctx, tty, io.Discard, &out, args...)
	return out.String(), err
}

// question is what is shown at a terminal, until want is: then it is answered by
// interrupt.
type question struct {
	want      string
	interrupt func()
	mutex     sync.Mutex
	shown     bytes.Buffer
}

func (q *question) Write(p []byte) (int, error) {
	q.mutex.Lock()
	defer q.mutex.Unlock()
	q.shown.Write(p)
	if strings.Contains(q.shown.String(), q.want) {
		q.interrupt()
	}
	return len(p), nil
}

// TestOneInterruptEndsAQuestion: what a signal does in main.go ends every
// question at once, and nothing is done.
func TestOneInterruptEndsAQuestion(t *testing.T) {
	r := newRig(t)
	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer tty.Close()
	ask := func(want string, args ...string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		q := &question{want: want, interrupt: cancel}
		err := execute(ctx, tty, io.Discard, q, args...)
		if err == nil || err.Error() != "interrupted, nothing was done" || ExitCode(err) != ExitInterrupted {
			t.Errorf("rackseed %s, interrupted at %q: %v, ends with %d; shown:\n%s", strings.Join(args, " "), want, err, ExitCode(err), q.shown.String())
		}
	}
	server := []string{"--server", r.url, "--fingerprint", r.fingerprint}
	ask("Boot service's URL: ", "login")
	ask("(yes/no): ", "login", "--server", r.url)
	ask("Setup code: ", append(server, "setup")...)
	ask("Name: ", append(server, "login")...)
	r.setup()
	r.Waiting(1, func(i *machine.Inventory) { i.Disks[0].Contents = "ext4" })
	ask("Erase it? (yes/no): ", "approve", "m-00000001")
	r.must("", "approve", "m-00000001", "--name", "alpha", "--erase", "ext4")
	r.Installed("m-00000001")
	r.Started("m-00000001")
	ask("Forget it? (yes/no): ", "forget", "alpha")
	ask("name of the cluster to go on: ", "cluster", "abandon")
	if _, ok := r.View().Machine("m-00000001"); !ok || r.View().Bootstrap() == nil {
		t.Error("something was done")
	}
}

// TestInterruptedRequest: it is not taken for a boot service that is away.
func TestInterruptedRequest(t *testing.T) {
	r := newRig(t)
	r.setup()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"status"}, {"image", "pull", "lab/app:v1", t.TempDir() + "/to"}, {"discovery", "close"}} {
		err := r.run(ctx, "", io.Discard, args...)
		if !errors.Is(err, client.ErrInterrupted) || strings.Contains(err.Error(), "context canceled") || strings.Contains(err.Error(), "no answer") || ExitCode(err) != ExitInterrupted {
			t.Errorf("rackseed %s: %v", strings.Join(args, " "), err)
		}
	}
}

// TestPasswordIsHidden while it is typed, and the terminal shows again what is
// typed once it was given, or asking for it was interrupted.
func TestPasswordIsHidden(t *testing.T) {
	r := newRig(t)
	r.setup()
	keyboard, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer tty.Close()
	shows := func() bool {
		t.Helper()
		mode, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return mode.Lflag&unix.ECHO != 0
	}
	login := func(answer func(cancel func())) error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return execute(ctx, tty, io.Discard, &question{want: "Password: ", interrupt: func() {
			if shows() {
				t.Error("the password is shown")
			}
			answer(cancel)
		}}, "login", "--name", "ann")
	}
	once := sync.OnceFunc(func() {
		if _, err := io.WriteString(keyboard, "correct horse\n"); err != nil {
			t.Error(err)
		}
	})
	if err := login(func(func()) { once() }); err != nil || !shows() {
		t.Errorf("answered: %v; shown again: %v", err, shows())
	}
	if err := login(func(cancel func()) { cancel() }); !errors.Is(err, errInterrupted) || !shows() {
		t.Errorf("interrupted: %v; shown again: %v", err, shows())
	}
}
