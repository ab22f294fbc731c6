package child

import (
	"bufio"
	"context"
	"runtime"
	"testing"
)

// What a child started ends with it: its output is at an end only when both are
// gone.
func TestCommandEndsAll(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := Command(ctx, "sh", "-c", "sleep 1000 & echo started; wait")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "started" {
		t.Fatalf("it said %q, %v", lines.Text(), lines.Err())
	}
	cancelled := make(chan error)
	go func() { // CommandContext cancels from Wait alone
		cancelled <- c.Cancel()
	}()
	for lines.Scan() {
		t.Errorf("it said %q", lines.Text())
	}
	if err := <-cancelled; err != nil {
		t.Error(err)
	}
	if err := c.Wait(); err == nil {
		t.Error("it ended well")
	}
}
