package blobsync

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/machine"
)

// stick has all blobs, alone. Of those in breaks only so many bytes come at a time.
func stick(blobs map[blob.Digest]string, broken error, breaks ...string) *others {
	o := &others{peers: []string{"stick"}, has: map[string]map[blob.Digest]string{"stick": blobs}}
	o.sends = func(_, rest string) io.Reader {
		if !slices.ContainsFunc(breaks, func(b string) bool { return strings.HasSuffix(b, rest) }) || len(rest) <= 4 {
			return strings.NewReader(rest)
		}
		return io.MultiReader(strings.NewReader(rest[:4]), iotest.ErrReader(broken))
	}
	return o
}

func parts(t *testing.T, s *blob.Store) []blob.Digest {
	t.Helper()
	list, err := s.Parts()
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// round runs a loop until all is here, or a round failed.
func round(t *testing.T, l *Loop) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	if err := l.Run(ctx, func(ok bool, text string) {
		if ok || strings.Contains(text, "are missing") {
			stop()
		}
	}); err != nil {
		t.Fatal(err)
	}
}

var errCable = errors.New("its cable is out")

// With one source a transfer that breaks off goes on where it was, too.
func TestItGoesOnAtTheOnlySource(t *testing.T) {
	text := "0123456789"
	s := store(t)
	from := stick(map[blob.Digest]string{digestOf(text): text}, errCable, text)
	l := loop(s, from)
	for range 2 {
		if err := l.Fetch(t.Context(), digestOf(text)); !errors.Is(err, errCable) {
			t.Fatalf("what broke off: %v", err)
		}
	}
	if err := l.Fetch(t.Context(), digestOf(text)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(from.asked, ", "); got != "stick 0, stick 4, stick 8" || !s.Has(digestOf(text)) || len(parts(t, s)) != 0 {
		t.Errorf("asked %s; of parts %v are left", got, parts(t, s))
	}
}

// So it does in the next process; what no image names any more goes.
func TestItGoesOnAfterARestart(t *testing.T) {
	const layer, dropped = "0123456789abcdef", "abcdefghijklmnop"
	one, blobs := image(t, layer)
	other, more := image(t, dropped)
	maps.Copy(blobs, more)
	dir := t.TempDir()
	start := func(images ...machine.Image) (*Loop, *others) {
		s, err := blob.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		from := stick(blobs, errCable, layer, dropped)
		return loop(s, from, images...), from
	}
	l, _ := start(one, other)
	round(t, l)
	if got := parts(t, l.Blobs); len(got) != 2 {
		t.Fatalf("parts: %v", got)
	}
	l, from := start(one)
	round(t, l)
	if got := parts(t, l.Blobs); len(got) != 1 || got[0] != digestOf(layer) || strings.Join(from.asked, ", ") != "stick 8" {
		t.Errorf("parts: %v; asked %v", got, from.asked)
	}
	l, from = start(one)
	round(t, l)
	if !l.Blobs.Has(digestOf(layer)) || strings.Join(from.asked, ", ") != "stick 12" {
		t.Errorf("asked %v", from.asked)
	}
}

// Bytes that an earlier process left and that are others than they should be are
// thrown away, and the one source is asked for all.
func TestASpoiltPart(t *testing.T) {
	text := "0123456789"
	s := store(t)
	u, err := s.Continue(t.Context(), digestOf(text))
	if err == nil {
		_, err = io.WriteString(u, "0x")
	}
	if err = errors.Join(err, u.Leave()); err != nil {
		t.Fatal(err)
	}
	from := stick(map[blob.Digest]string{digestOf(text): text}, nil)
	if err := loop(s, from).Fetch(t.Context(), digestOf(text)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(from.asked, ", "); got != "stick 2, stick 0" || !s.Has(digestOf(text)) {
		t.Errorf("asked %s", got)
	}
}

// Parts are bounded: by number, by time where no image names them, and none is kept
// on a full disk.
func TestPartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blobs, breaks := map[blob.Digest]string{}, []string(nil)
		for n := range maxParts + 2 {
			text := fmt.Sprintf("%02d-%s", n, strings.Repeat("x", 6))
			blobs[digestOf(text)], breaks = text, append(breaks, text)
		}
		s := store(t)
		l := loop(s, stick(blobs, errCable, breaks...))
		for d := range blobs {
			if err := l.Fetch(t.Context(), d); err == nil {
				t.Error("what broke off is said to be here")
			}
		}
		if got := parts(t, s); len(got) != maxParts {
			t.Errorf("%d parts are kept", len(got))
		}
		time.Sleep(partLimit)
		l.dropParts(nil, false)
		if got := parts(t, s); len(got) != 0 {
			t.Errorf("%d parts are kept that no image names", len(got))
		}
		full := loop(s, stick(blobs, unix.ENOSPC, breaks...))
		if err := full.Fetch(t.Context(), digestOf(breaks[0])); !errors.Is(err, unix.ENOSPC) || len(parts(t, s)) != 0 {
			t.Errorf("a full disk: %v, of parts %v are kept", err, parts(t, s))
		}
	})
}

// ends is a reader that ends once it may.
type ends chan struct{}

func (e ends) Read([]byte) (int, error) {
	<-e
	return 0, io.EOF
}

// The last byte of what is read as it comes is there once all was compared.
func TestTheLastByteIsHeldBack(t *testing.T) {
	for name, sent := range map[string]string{"the right bytes": "0123456789", "other bytes": "012345678x"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const text = "0123456789"
				end := make(ends)
				from := stick(map[blob.Digest]string{digestOf(text): sent}, nil)
				from.sends = func(_, rest string) io.Reader { return io.MultiReader(strings.NewReader(rest), end) }
				f, err := loop(store(t), from).Open(t.Context(), digestOf(text))
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := io.ReadFull(f, make([]byte, len(text)-1)); err != nil {
					t.Fatal(err)
				}
				last := make(chan error, 1)
				go func() {
					_, err := io.ReadFull(f, make([]byte, 1))
					last <- err
				}()
				synctest.Wait()
				select {
				case err := <-last:
					t.Errorf("it came before all was compared: %v", err)
				default:
				}
				close(end)
				synctest.Wait()
				if err := <-last; (err == nil) != (sent == text) {
					t.Error(err)
				}
			})
		})
	}
}
