//go:build host

package medium

import (
	"io"
	"os/exec"
	"testing"
)

// The superblock and its copies are where mke2fs writes them.
func TestLookFindsWhatMke2fsMakes(t *testing.T) {
	f := stick(t, size16G)
	out, err := exec.Command("mke2fs", append(append([]string{}, formatOptions...), "-E", "offset=8589934592,lazy_itable_init=1", f.Name(), "2000000")...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	const size = 2000000 * blockBytes
	place := io.NewSectionReader(f, DataOffset, size)
	if found, what, err := look(place, size); err != nil || found != Ours {
		t.Fatalf("whole: %d %q, %v", found, what, err)
	}
	zero := make([]byte, 1024)
	at := int64(1024)
	for _, group := range copies {
		if _, err := f.WriteAt(zero, DataOffset+at); err != nil {
			t.Fatal(err)
		}
		if found, what, err := look(place, size); err != nil || found != Damaged {
			t.Errorf("before the copy in group %d: %d %q, %v", group, found, what, err)
		}
		at = group * groupBlocks * blockBytes
	}
}
