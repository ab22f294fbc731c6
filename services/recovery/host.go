package recovery

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

// Host is where a machine keeps its replica, and how that is stopped.
type Host struct {
	Data   string // its folder
	Socket string // of the replica that runs, for root alone
	Node   Node
	// Stop has whatever keeps the replica running end it, and Start undoes that. nil:
	// that is up to the operator.
	Stop  func() error
	Start func() error
}

const (
	stopLimit = 3 * time.Minute // for a replica to end once it is told to
	stopLook  = time.Second
)

// AwaitStopped waits until no replica runs in a folder.
func AwaitStopped(ctx context.Context, data string) error {
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	dir := filepath.Join(data, folderState)
	for {
		if _, err := os.Stat(dir); err != nil {
			return nil // Begin says what that means
		}
		held, err := state.Lock(state.LockOf(dir))
		if err == nil {
			return held.Close()
		}
		t := time.NewTimer(stopLook)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("the replica did not end: %w", err)
		}
	}
}
