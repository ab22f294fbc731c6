package killed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/approve"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/silence"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// discoveryWait is short, so that who nobody approves goes back within a run.
const discoveryWait = 10 * time.Minute

// service is the boot service: switched on, off, and cut off.
type service struct {
	r      *run
	dir    string
	failed chan *incarnation // those that lost their power, to be switched on again

	mu  sync.Mutex
	now *incarnation // nil: it has no power
}

// incarnation is the boot service from one start to the loss of its power.
type incarnation struct {
	ctx    context.Context
	cancel context.CancelFunc
	dead   atomic.Bool
	work   sync.WaitGroup // loops and requests
	store  *state.Store
	log    *events.Log
	server *netboot.Server
}

// audited is a store that notes what was ever asked for.
type audited struct {
	*state.Store
	ledger *ledger
}

func (a audited) Propose(ctx context.Context, by string, c state.Command) (state.Result, error) {
	a.ledger.asked(by, c)
	return a.Store.Propose(ctx, by, c)
}

// current is the running one, or nil.
func (s *service) current() *incarnation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// enter is current for who works with it: it is not closed before work is done.
func (s *service) enter() *incarnation {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil {
		s.now.work.Add(1)
	}
	return s.now
}

// start opens the data folder as it is, and serves.
func (s *service) start() error {
	store, err := state.Open(state.Config{ID: "replica-1", Dir: filepath.Join(s.dir, "state"), Now: time.Now, Keys: statetest.Keys(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	i := &incarnation{ctx: ctx, cancel: cancel, store: store}
	led, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	if err := errors.Join(store.WaitLeader(led), s.begin(led, store)); err != nil {
		cancel()
		return errors.Join(err, store.Close())
	}
	files, err := events.OpenFiles(filepath.Join(s.dir, "output"))
	if err != nil {
		cancel()
		return errors.Join(err, store.Close())
	}
	watched := audited{store, s.r.ledger}
	i.log = events.New(store, files)
	i.server = netboot.New(netboot.Config{
		Store: watched, Blobs: images, Output: i.log, Now: time.Now, Logger: slog.New(slog.DiscardHandler),
		Ignition: func(v state.View, m machine.Machine) ([]byte, error) {
			in, err := ignition.FromView(v, m, "")
			if err != nil {
				return nil, err
			}
			return ignition.Assemble(in)
		},
		JoinSecret: func(_ context.Context, _ state.View, m machine.Machine, intent machine.Intent) (wire.JoinSecret, error) {
			return wire.JoinSecret{Intent: intent.ID, Epoch: intent.Epoch, Token: s.r.ledger.secret("token of " + string(m.ID))}, nil
		},
	})
	if err := s.r.ledger.remembers(store.View()); err != nil {
		s.r.violated("after a restart of the boot service: %v", err)
	}
	quiet := slog.New(slog.DiscardHandler)
	approval := &approve.Loop{Store: watched, Logger: quiet}
	silent := &silence.Loop{Store: watched, Now: time.Now, Logger: quiet}
	i.work.Go(func() { _ = approval.Run(ctx) })
	i.work.Go(func() { _ = silent.Run(ctx) })
	i.work.Go(func() { s.r.follow(ctx, store) })
	s.mu.Lock()
	s.now = i
	s.mu.Unlock()
	return nil
}

// begin is what a boot service does at its first start.
func (s *service) begin(ctx context.Context, store *state.Store) error {
	if _, ok := store.View().Site(); ok {
		return nil
	}
	site := statetest.Site()
	site.SSHKeys = []string{"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIG8fbLlDrnfEr1aOMvTvNYGvCvXhMfmCj1KMQmVQxT8k test"}
	site.Discovery.Wait = machine.Duration(discoveryWait)
	for _, b := range s.r.rack {
		if b.listed {
			site.Machines = append(site.Machines, machine.ListedMachine{MAC: b.m.Inventory.NICs[0].MAC, Name: "listed", Approve: true})
		}
	}
	for _, c := range []state.Command{
		state.ClusterCreate{ID: "c-1", Generation: 1, SetupHash: []byte("setup"), Secrets: map[string]keyring.Sealed{"pki/ca.key": statetest.Seal("pki/ca.key", []byte(s.r.ledger.secret("key of the first cluster")))}},
		state.ImagePublish{Images: []machine.Image{{Ref: "installer", Digest: images.installer}, {Ref: "node", Digest: images.node}}},
		state.SiteApply{Site: site},
	} {
		if _, err := store.Propose(ctx, "test", c); err != nil {
			return err
		}
	}
	return nil
}

// cut takes the power away: no answer leaves any more. What a request that is
// being worked on commits in this moment stays, as with the real thing.
func (s *service) cut(why string) {
	s.mu.Lock()
	i := s.now
	s.now = nil
	s.mu.Unlock()
	if i == nil {
		return
	}
	s.r.tell("boot service: POWER CUT, %s", why)
	i.dead.Store(true)
	i.cancel()
	s.failed <- i
}

// close ends one for good. An entry that waits for its turn in Raft when that
// ends is never answered, and who waits for it would wait beyond the bubble's
// end: what was handed over is committed first. Its answers are lost all the same.
func (i *incarnation) close() error {
	i.cancel()
	i.work.Wait()
	synctest.Wait()
	return i.store.Close()
}

// revive gives the boot service its power back, until ctx ends.
func (s *service) revive(ctx context.Context, off func() time.Duration) {
	for {
		select {
		case <-ctx.Done():
			return
		case i := <-s.failed:
			if err := i.close(); err != nil {
				s.r.violated("closing the boot service: %v", err)
			}
			wait(ctx, off())
			if err := s.start(); err != nil {
				s.r.violated("the boot service does not start again: %v", err)
				return
			}
			s.r.tell("boot service: is back")
		}
	}
}

// end closes the one that runs, if any, and those that were cut last.
func (s *service) end() error {
	s.mu.Lock()
	i := s.now
	s.now = nil
	s.mu.Unlock()
	var errs []error
	if i != nil {
		i.dead.Store(true)
		errs = append(errs, i.close())
	}
	for {
		select {
		case i := <-s.failed:
			errs = append(errs, i.close())
		default:
			return errors.Join(errs...)
		}
	}
}

// wait waits for d, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// artifacts are the images, the same in all runs.
type artifacts struct {
	installer, node string // digests of manifests
	bytes           map[string][]byte
	files           map[string][]wire.File
}

var images = func() *artifacts {
	digest := func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return "sha256:" + hex.EncodeToString(sum[:])
	}
	a := &artifacts{installer: digest("installer"), node: digest("node"), bytes: map[string][]byte{}, files: map[string][]wire.File{}}
	add := func(manifest string, names ...string) {
		for _, name := range names {
			text := fmt.Sprintf("%s of %s", name, manifest)
			a.bytes[digest(text)] = []byte(text)
			a.files[manifest] = append(a.files[manifest], wire.File{Name: name, Digest: digest(text), Size: int64(len(text))})
		}
	}
	add(a.installer, "vmlinuz", "initrd.img")
	add(a.node, "root.erofs", "vmlinuz", "initrd.img")
	return a
}()

type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

func (a *artifacts) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	if b, ok := a.bytes[digest]; ok {
		return opened{bytes.NewReader(b)}, nil
	}
	return nil, fs.ErrNotExist
}

func (a *artifacts) Files(manifest string) ([]wire.File, error) {
	if f, ok := a.files[manifest]; ok {
		return f, nil
	}
	return nil, fs.ErrNotExist
}

// link is the network that machines are on.
var link = netip.MustParsePrefix("192.0.2.0/24")
