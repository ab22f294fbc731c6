package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/wire"
)

// A run counts only if the disk has the image afterwards.
func TestTimed(t *testing.T) {
	image := bytes.Repeat([]byte("image"), 1000)
	tr := &transfer{
		image:  wire.File{Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(image)), Size: int64(len(image))},
		target: filepath.Join(t.TempDir(), "disk"),
	}
	write := func(b []byte) func(context.Context) error {
		return func(context.Context) error {
			f, err := os.OpenFile(tr.target, os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.Write(b)
			return errors.Join(err, f.Close())
		}
	}
	if rate, err := tr.timed(write(image))(t.Context()); err != nil || rate <= 0 {
		t.Errorf("a good run: %v MiB/s, %v", rate, err)
	}
	if rate, err := tr.timed(write(image[1:]))(t.Context()); err == nil || !strings.Contains(err.Error(), "not the image") {
		t.Errorf("another image: %v MiB/s, %v", rate, err)
	}
	broken := errors.New("it broke")
	if _, err := tr.timed(func(context.Context) error { return broken })(t.Context()); !errors.Is(err, broken) {
		t.Errorf("a failed run: %v", err)
	}
	if _, err := os.Stat(tr.target); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the disk stays behind: %v", err)
	}
}
