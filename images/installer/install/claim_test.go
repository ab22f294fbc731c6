package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/images/installer/claim"
	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/inventory"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// Nothing is written unless the claim was granted. The steps that write are the
// real ones; the last case shows that they do write this disk.
func TestNothingIsWrittenWithoutAClaim(t *testing.T) {
	revoked := errors.New("revoked by the boot service")
	for name, c := range map[string]struct {
		prepare func(l *lab, cancel context.CancelCauseFunc)
		want    string // in the error
		claims  int
		writes  bool
	}{
		"revoked before it is asked for": {func(l *lab, _ context.CancelCauseFunc) {
			l.propose(state.IntentRevoke{Intent: l.order.Intent, Reason: "a mistake"})
		}, "409", 1, false},
		"of an older epoch": {func(l *lab, _ context.CancelCauseFunc) {
			if err := l.client.Claim(l.t.Context(), wire.ClaimRequest{Intent: l.order.Intent, Epoch: l.order.Epoch, Disk: l.installer.Reported.Disks[0]}); err != nil {
				l.t.Fatal(err)
			}
			if err := l.client.Report(l.t.Context(), wire.Report{Number: 1, Intent: l.order.Intent, Epoch: l.order.Epoch, Step: wire.StepPartition, Status: wire.StepFailed}); err != nil {
				l.t.Fatal(err)
			}
			l.propose(state.IntentRetry{Intent: l.order.Intent})
		}, "epoch", 2, false},
		"of another intent": {func(l *lab, _ context.CancelCauseFunc) { l.order.Intent = "i-0" }, "409", 1, false},
		"refused at the second try, the first answer being lost": {func(l *lab, _ context.CancelCauseFunc) {
			l.onClaim = func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 1 {
					l.propose(state.IntentRevoke{Intent: l.order.Intent, Reason: "a mistake"})
					panic(http.ErrAbortHandler)
				}
				l.server.ServeHTTP(w, r)
			}
		}, "409", 2, false},
		"holding what nobody named": {func(l *lab, _ context.CancelCauseFunc) {
			l.somebodyWrites(0)
		}, "only backup", 1, false},
		"tried before in this session, and holding what nobody named since": {func(l *lab, _ context.CancelCauseFunc) {
			if err := l.client.Claim(l.t.Context(), wire.ClaimRequest{Intent: l.order.Intent, Epoch: l.order.Epoch, Disk: l.installer.Reported.Disks[0]}); err != nil {
				l.t.Fatal(err)
			}
			if err := l.client.Report(l.t.Context(), wire.Report{Number: 1, Intent: l.order.Intent, Epoch: l.order.Epoch, Step: wire.StepPartition, Status: wire.StepFailed}); err != nil {
				l.t.Fatal(err)
			}
			l.propose(state.IntentRetry{Intent: l.order.Intent})
			l.order.Epoch++
			l.somebodyWrites(0)
		}, "only backup", 2, false},
		"granted, the answer being lost, and holding what nobody named since": {func(l *lab, _ context.CancelCauseFunc) {
			l.onClaim = func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 1 { // committed, and never told
					l.server.ServeHTTP(httptest.NewRecorder(), r)
					panic(http.ErrAbortHandler)
				}
				l.server.ServeHTTP(w, r)
			}
			l.somebodyWrites(1)
		}, "only backup", 2, false},
		"another disk at its path": {func(l *lab, _ context.CancelCauseFunc) {
			look := l.installer.Look
			l.installer.Look = func(path string) (machine.Disk, error) {
				d, err := look(path)
				d.Serial = "d2"
				return d, err
			}
		}, `its serial number was "d1" and is "d2" now: it is not the disk that was approved`, 0, false},
		"of another size than was reported": {func(l *lab, _ context.CancelCauseFunc) { l.installer.Reported.Disks[0].Bytes = 32 << 30 },
			`its size was "32GiB" and is "16GiB" now`, 0, false},
		"that was not there when the machine was looked at": {func(l *lab, _ context.CancelCauseFunc) {
			l.installer.Reported.Disks[0].Serial = "d0"
		}, "it was not there when this machine was looked at: it is not the disk that was approved", 0, false},
		"gone": {func(l *lab, _ context.CancelCauseFunc) {
			l.installer.Look = func(path string) (machine.Disk, error) {
				return machine.Disk{}, fmt.Errorf("disk %s is gone: %w", path, os.ErrNotExist)
			}
		}, "is gone", 0, false},
		"reached by two paths": {func(l *lab, _ context.CancelCauseFunc) {
			disks := l.installer.Disks
			l.installer.Disks = func() ([]machine.Disk, error) {
				list, err := disks()
				list[0].Transport = inventory.Multipath
				return list, err
			}
		}, "reached by several paths", 0, false},
		"granted after a revocation was heard of": {func(l *lab, cancel context.CancelCauseFunc) {
			l.onClaim = func(_ int, w http.ResponseWriter, r *http.Request) {
				cancel(revoked)
				l.server.ServeHTTP(w, r)
			}
		}, "revoked by the boot service", 1, false},
		"granted": {func(*lab, context.CancelCauseFunc) {}, "the kernel does not take the new partition table", 1, true},
		"granted again, the first answer being lost": {func(l *lab, _ context.CancelCauseFunc) {
			l.onClaim = func(n int, w http.ResponseWriter, r *http.Request) {
				if n == 1 { // committed, and never told
					l.server.ServeHTTP(httptest.NewRecorder(), r)
					panic(http.ErrAbortHandler)
				}
				l.server.ServeHTTP(w, r)
			}
		}, "the kernel does not take the new partition table", 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			c.prepare(l, cancel)
			err := l.installer.Run(ctx, l.order)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, wanted %q", err, c.want)
			}
			if l.claims != c.claims {
				t.Errorf("%d claims", l.claims)
			}
			if l.touched() != c.writes || l.watch.opened() != c.writes {
				t.Errorf("the disk was written, or opened for it: %v", !c.writes)
			}
			step := wire.StepDisk
			if c.writes {
				step = wire.StepPartition
			}
			if got := l.last(wire.StepFailed); got != step {
				t.Errorf("step %q failed", got)
			}
		})
	}
}

// somebodyWrites has the disk hold what nobody named, once it was looked at so often.
func (l *lab) somebodyWrites(after int) {
	look, looks := l.installer.Look, 0
	l.installer.Look = func(path string) (machine.Disk, error) {
		d, err := look(path)
		if looks++; looks > after {
			d.Contents = `ext4 "the only backup"`
		}
		return d, err
	}
}

// A disk that is gone when it is to be written fails the step that names it.
func TestTheDiskVanishes(t *testing.T) {
	l := newLab(t)
	l.onClaim = func(_ int, w http.ResponseWriter, r *http.Request) {
		l.server.ServeHTTP(w, r)
		if err := os.Remove(l.disk); err != nil {
			t.Error(err)
		}
	}
	err := l.installer.Run(t.Context(), l.order)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "disk "+l.disk) || l.last(wire.StepFailed) != wire.StepPartition {
		t.Errorf("%v", err)
	}
	if _, err := os.Stat(l.disk); err == nil {
		t.Error("it was made as a file")
	}
}

// answers are a service whose claims are answered by a function; nothing but a
// claim may be asked of it.
type answers struct {
	t     *testing.T
	claim func(context.Context) error
}

func (a answers) Claim(ctx context.Context, _ wire.ClaimRequest) error { return a.claim(ctx) }
func (a answers) Ignition(context.Context) (wire.Sealed, error) {
	a.t.Error("the Ignition was fetched")
	return wire.Sealed{}, errors.New("no")
}
func (a answers) Fetch(context.Context, wire.File, io.WriterAt, func(int64)) error {
	a.t.Error("a blob was fetched")
	return errors.New("no")
}
func (a answers) Retry(ctx context.Context, _ string, permanent func(error) bool, do func(context.Context) error) error {
	for {
		if err := do(ctx); err == nil || permanent(err) || ctx.Err() != nil {
			return err
		}
	}
}

// A permission that took long is asked for again: it may have ended meanwhile.
// One that comes in the moment of the order's end is none.
func TestAnOldPermissionIsNone(t *testing.T) {
	path := t.TempDir() + "/disk"
	if err := os.WriteFile(path, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	found := machine.Disk{Path: path, Serial: "d1", Transport: "sata", Bytes: 16 << 30, SectorSize: 512}
	install := func(ctx context.Context, claim func(context.Context) error) error {
		i := &Installer{
			Service: answers{t, claim}, Permanent: client.Permanent, Report: func(wire.Report) {}, Log: slog.New(slog.DiscardHandler), UEFI: true,
			Disks:  func() ([]machine.Disk, error) { return []machine.Disk{found}, nil },
			Look:   func(string) (machine.Disk, error) { return found, nil },
			LoadFS: func() error { return nil },
		}
		i.Reported.Disks = []machine.Disk{found}
		return i.Run(ctx, order(nil))
	}
	synctest.Test(t, func(t *testing.T) {
		claims := 0
		err := install(t.Context(), func(context.Context) error {
			if claims++; claims == 1 {
				time.Sleep(claim.Fresh + time.Second) // of the bubble's clock
				return nil
			}
			return &client.StatusError{Status: http.StatusConflict, Text: "revoked meanwhile"}
		})
		if err == nil || !strings.Contains(err.Error(), "revoked meanwhile") || claims != 2 {
			t.Errorf("%v after %d claims", err, claims)
		}
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := errors.New("revoked at this moment")
	if err := install(ctx, func(context.Context) error { cancel(ended); return nil }); !errors.Is(err, ended) {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "data" {
		t.Errorf("the disk holds %q, %v", b, err)
	}
}

// The image is on the slot, whole and alone, or the step fails and says why.
func TestTheImage(t *testing.T) {
	good := erofs(3<<20 + 5)
	digest := digestOf(good)
	for name, c := range map[string]struct {
		serves  []byte
		want    string
		names   string // also in the error
		fetched int    // times that the service opened it
	}{
		"good":    {good, "the lab ends here", "", 1},
		"corrupt": {append(bytes.Clone(good[:len(good)-1]), 'x'), "digest mismatch", strings.TrimPrefix(digest, "sha256:"), 2},
		"shorter": {good[:2<<20], "ends before byte 2097152 of 3145733", "416", 2},
		"longer":  {append(bytes.Clone(good), "more"...), "the lab ends here", "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			slotA := l.withPartitions()
			l.blobs.bytes[digest] = c.serves
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			end := errors.New("the lab ends here")
			report := l.installer.Report
			l.installer.Report = func(r wire.Report) {
				report(r)
				if r.Step == wire.StepIgnition {
					cancel(end) // what follows needs a root file system
				}
			}
			err := l.installer.Run(ctx, l.order)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, wanted %q", err, c.want)
			}
			if n := l.blobs.reads[digest]; n != c.fetched {
				t.Errorf("it was fetched %d times", n)
			}
			if c.want != "the lab ends here" {
				if !strings.Contains(err.Error(), rootImage) || !strings.Contains(err.Error(), c.names) || l.last(wire.StepFailed) != wire.StepImage {
					t.Errorf("the error does not name the image: %v", err)
				}
				return
			}
			if l.last(wire.StepDone) != wire.StepImage {
				t.Errorf("step %q was the last done", l.last(wire.StepDone))
			}
			got := l.data(slotA)
			if len(got) != 1 || strings.TrimRight(got[0], "\x00") != strings.TrimRight(string(good), "\x00") {
				t.Errorf("the slot holds %d runs of data, the first of %d bytes", len(got), len(got[0]))
			}
		})
	}
}
