// Package statetest is a boot service's state for tests of what stands on it:
// in memory, led, with a site, and machines at the stages of their way.
package statetest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

// Secret is the value of the one secret that the cluster has, to look for where
// none may be.
const Secret = "a secret of the cluster"

// NextKey is the ID of a data key that Keys has besides.
const NextKey = "key-next"

// Keys has the data key of a cluster that names none, as the clusters of tests do.
func Keys() *keyring.Ring {
	return keyring.Memory(keyring.Key{Bytes: make([]byte, 32)}, keyring.Key{ID: NextKey, Bytes: bytes.Repeat([]byte{1}, 32)})
}

// Seal seals a secret under it.
func Seal(name string, secret []byte) keyring.Sealed {
	s, err := Keys().Seal("", name, secret)
	if err != nil {
		panic(err)
	}
	return s
}

// Node is what an approval needs of a node's key: the key and its sealed seed.
func Node(id machine.ID, seed []byte) (key []byte, sealed keyring.Sealed) {
	return ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey), Seal(state.NodeSecret(id), seed)
}

// State is the state of one test. It is closed when the test ends.
type State struct {
	*state.Store
	t      testing.TB
	leader atomic.Pointer[string] // another one than this; nil: this
}

// Led makes another replica the leader, as far as the state and the membership
// say; this one goes on committing.
func (s *State) Led(by string) {
	s.t.Helper()
	s.Must(state.EpochBegin{Leader: by})
	s.leader.Store(&by)
}

// Membership is the store's, with the leader that Led made.
func (s *State) Membership() state.Membership {
	m := s.Store.Membership()
	if by := s.leader.Load(); by != nil {
		m.Leader = *by
	}
	return m
}

// Leaderless is a state whose replica, while Nobody is set, knows of none that leads:
// nothing is committed.
type Leaderless struct {
	*State
	Nobody atomic.Bool
}

// Membership is the state's, without a leader while there is none.
func (l *Leaderless) Membership() state.Membership {
	m := l.State.Membership()
	if l.Nobody.Load() {
		m.Leader = ""
	}
	return m
}

// Propose is the state's, or runs out of time at once.
func (l *Leaderless) Propose(ctx context.Context, by string, c state.Command) (state.Result, error) {
	if l.Nobody.Load() {
		return state.Result{}, context.DeadlineExceeded
	}
	return l.State.Propose(ctx, by, c)
}

// Open opens an empty state that leads.
func Open(t testing.TB) *State {
	t.Helper()
	store, err := state.Open(state.Config{ID: "replica-1", Now: time.Now, Logger: slog.New(slog.DiscardHandler), InMemory: true, Keys: Keys()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	return &State{Store: store, t: t}
}

// Site is a site with one link, which is served.
func Site() machine.Site {
	return machine.Site{
		Version: 1, Name: "lab", ServiceAddress: netip.MustParseAddr("192.0.2.1"),
		Links: []machine.SiteLink{{
			Interface: "eth0", Address: netip.MustParsePrefix("192.0.2.2/24"),
			DHCP: &machine.SiteDHCP{From: netip.MustParseAddr("192.0.2.100"), To: netip.MustParseAddr("192.0.2.200")},
		}},
		Profiles: []machine.Profile{
			{Name: string(machine.RoleControlPlane), Role: machine.RoleControlPlane},
			{Name: string(machine.RoleWorker), Role: machine.RoleWorker},
		},
	}
}

// Begin makes the cluster, applies the site and opens the discovery window for
// a day. setupHash is the setup code's, as the API hashes it.
func (s *State) Begin(setupHash []byte, site machine.Site) {
	s.t.Helper()
	s.Must(state.ClusterCreate{
		ID: "c-1", Generation: 1, SetupHash: setupHash,
		Secrets: map[string]keyring.Sealed{"pki/ca.key": Seal("pki/ca.key", []byte(Secret))},
	})
	s.Must(state.SiteApply{Site: site})
	s.Must(state.DiscoveryWindow{Until: time.Now().Add(24 * time.Hour)})
}

// Must commits a command, or ends the test.
func (s *State) Must(c state.Command) state.Result {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	result, err := s.Propose(ctx, "test", c)
	if err != nil {
		s.t.Fatalf("%s: %v", c.Kind(), err)
	}
	return result
}

// Image publishes a node image.
func (s *State) Image() {
	s.t.Helper()
	s.Must(state.ImagePublish{Images: []machine.Image{{Ref: "node", Digest: "sha256:" + strings.Repeat("ab", 32)}}})
}

// Inventory is machine n's: one empty disk, one network card, no two alike.
func Inventory(n int) machine.Inventory {
	return machine.Inventory{
		UUID: fmt.Sprintf("00000000-0000-4000-8000-%012x", n), Serial: fmt.Sprintf("SN-%d", n), AssetTag: fmt.Sprintf("A%04d", n),
		Manufacturer: "QEMU", Product: "Standard PC", Firmware: "uefi", MemoryBytes: 4 << 30, CPU: machine.CPU{Model: "QEMU", Threads: 2},
		Disks: []machine.Disk{{Path: "/dev/vda", Transport: "virtio", Serial: "S1", Bytes: 64 << 30, SectorSize: 512, Contents: machine.Empty}},
		NICs:  []machine.NIC{{Name: "eth0", MAC: MAC(n), Driver: "virtio_net", Carrier: true}},
	}
}

// ID is machine n's.
func ID(n int) machine.ID { return machine.ID(fmt.Sprintf("m-%08x", n)) }

// MAC is the address of machine n's network card.
func MAC(n int) machine.MAC { return machine.MAC(fmt.Sprintf("52:54:00:00:%02x:%02x", n>>8, n&255)) }

// Waiting lets machine n's installer report, with its inventory as change makes
// it: it waits for approval.
func (s *State) Waiting(n int, change ...func(*machine.Inventory)) machine.ID {
	s.t.Helper()
	key := func(what string) []byte { h := sha256.Sum256(fmt.Append(nil, what, n)); return h[:] }
	inventory := Inventory(n)
	for _, c := range change {
		c(&inventory)
	}
	s.Must(state.SessionOpen{
		NewID:     ID(n),
		Session:   machine.Session{ID: fmt.Sprintf("s-%08x", n), SignKey: key("sign"), SealKey: key("seal"), Opened: time.Now().UTC()},
		Inventory: inventory,
	})
	return ID(n)
}

// Installed lets the install that is ordered for a machine end well.
func (s *State) Installed(id machine.ID) {
	s.t.Helper()
	i := s.View().InstallIntent(id)
	s.Claimed(id)
	s.report(id, i, wire.Report{Step: wire.StepReboot, Status: wire.StepDone})
}

// Claimed grants a machine the permission to write its first disk.
func (s *State) Claimed(id machine.ID) {
	s.t.Helper()
	m, _ := s.View().Machine(id)
	i := s.View().InstallIntent(id)
	s.Must(state.IntentClaim{Intent: i.ID, Epoch: i.Epoch, Session: i.Session, Disk: m.Inventory.Disks[0]})
}

// Failed lets the install that is ordered for a machine fail while the image is
// written.
func (s *State) Failed(id machine.ID, why string) {
	s.t.Helper()
	s.Claimed(id)
	s.report(id, s.View().InstallIntent(id), wire.Report{Step: wire.StepImage, Status: wire.StepFailed, Text: why})
}

func (s *State) report(id machine.ID, i *machine.Intent, r wire.Report) {
	s.t.Helper()
	r.Number, r.Intent, r.Epoch = 1, i.ID, i.Epoch
	s.Must(state.InstallReport{Machine: id, Session: i.Session, Report: r})
}

// Started lets an installed machine that may start the cluster do so.
func (s *State) Started(id machine.ID) {
	s.t.Helper()
	s.Must(state.BootstrapClaim{Machine: id})
	s.Node(id, 1, wire.NodeJoined)
}

// Node is a report of a machine's node agent.
func (s *State) Node(id machine.ID, number uint64, event wire.NodeEvent) {
	s.t.Helper()
	s.Must(state.NodeReport{Machine: id, Report: wire.NodeReport{BootID: "boot-1", Number: number, Event: event}})
}
