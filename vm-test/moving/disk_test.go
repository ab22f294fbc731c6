//go:build host || full

package moving

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rackseed/rackseed/services/netns"
)

// dataSize is that of a disk for a replica's data, in MiB: more than what a registry
// keeps free (1 GiB).
const dataSize = 1536

// ownDisk gives a host a disk of its own for its data.
func (h *host) ownDisk() {
	h.t.Helper()
	image := filepath.Join(h.dir, "disk")
	netns.Run(h.t, "truncate", "-s", fmt.Sprintf("%dM", dataSize), image)
	netns.Run(h.t, "mke2fs", "-q", "-t", "ext4", "-m", "0", image)
	if err := os.MkdirAll(h.data(), 0o700); err != nil {
		h.t.Fatal(err)
	}
	netns.Run(h.t, "mount", "-o", "loop", image, h.data())
	h.t.Cleanup(func() { // the newest first: before the folder is removed, so after the process ended
		h.kill()
		netns.Run(h.t, "umount", h.data())
	})
	if err := os.RemoveAll(filepath.Join(h.data(), "lost+found")); err != nil {
		h.t.Fatal(err)
	}
}

// freeze has every write to its disk hang. The program that does it thaws the disk
// also when this test is killed.
func (h *host) freeze() (mend func()) {
	h.t.Helper()
	freezer := exec.Command("sh", "-c", `fsfreeze -f "$1" && echo frozen && read end; fsfreeze -u "$1"`, "sh", h.data())
	freezer.Stderr = os.Stderr
	in, err := freezer.StdinPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := freezer.StdoutPipe()
	if err != nil {
		h.t.Fatal(err)
	}
	if err := freezer.Start(); err != nil {
		h.t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("frozen\n"))); err != nil {
		h.t.Fatalf("freezing the disk: %v", err)
	}
	thawed := false
	mend = func() {
		if thawed {
			return
		}
		thawed = true
		in.Close()     //nolint // what it does then is waited for
		freezer.Wait() //nolint // read ends without a line
	}
	h.t.Cleanup(mend)
	return mend
}
