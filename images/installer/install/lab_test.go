package install

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/contents"
	"github.com/rackseed/rackseed/images/pid1"
	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/netboot"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
	"golang.org/x/sys/unix"
)

// lab is an installer with the real client, against the real service over a
// real state in memory. Its disk is a file.
type lab struct {
	t         *testing.T
	store     *state.Store
	client    *client.Client
	installer *Installer
	order     wire.Order
	disk      string
	watch     *watch
	before    map[int64]string // the disk's data at the beginning
	blobs     *blobs

	mu      sync.Mutex
	claims  int
	onClaim func(n int, w http.ResponseWriter, r *http.Request) // instead of the service; n counts from 1
	reports []wire.Report
	server  http.Handler
}

// blobs is a blob store in memory.
type blobs struct {
	mu    sync.Mutex
	bytes map[string][]byte
	files []wire.File
	reads map[string]int
}

type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

func (b *blobs) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads[digest]++
	if content, ok := b.bytes[digest]; ok {
		return opened{bytes.NewReader(content)}, nil
	}
	return nil, fs.ErrNotExist
}

func (b *blobs) Files(string) ([]wire.File, error) { return b.files, nil }

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

const imageDigest = "sha256:00000000000000000000000000000000000000000000000000000000000000aa"

// erofs is something with the magic number of an erofs (superblock at 1024).
func erofs(n int) []byte {
	b := bytes.Repeat([]byte("erofs image "), n/12+1)[:n]
	clear(b[1024:1152])
	copy(b[1024:], []byte{0xe2, 0xe1, 0xf5, 0xe0})
	return b
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, blobs: &blobs{bytes: map[string][]byte{}, reads: map[string]int{}}}
	quiet := slog.New(slog.DiscardHandler)
	store, err := state.Open(state.Config{ID: "r-1", InMemory: true, Keys: statetest.Keys(), Now: time.Now, Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	l.store = store
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := store.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	l.publish(rootImage, erofs(3<<20+5))
	for _, f := range espFiles {
		l.publish(f.name, []byte(f.name))
	}
	l.propose(state.SiteApply{Site: machine.Site{
		Version: 1, Name: "lab", ServiceAddress: netip.MustParseAddr("10.77.0.1"),
		Links: []machine.SiteLink{{Interface: "eth0", Address: netip.MustParsePrefix("10.77.0.2/24")}},
	}})
	l.propose(state.ImagePublish{Images: []machine.Image{{Ref: "installer", Digest: imageDigest}, {Ref: "node", Digest: imageDigest}}})
	l.propose(state.DiscoveryWindow{Until: time.Now().Add(time.Hour)})
	files, err := events.OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l.server = netboot.New(netboot.Config{
		Store: store, Blobs: l.blobs, Output: events.New(store, files),
		Ignition: func(state.View, machine.Machine) ([]byte, error) { return nil, errors.New("the lab ends here") },
		Now:      time.Now, Logger: quiet,
	})
	h := httptest.NewServer(l)
	t.Cleanup(h.Close)
	sign, seal, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	l.client = client.New(h.URL, sign, quiet)

	l.disk = filepath.Join(t.TempDir(), "disk")
	l.write(l.disk, map[int64]string{0: "somebody's partition table", 5 << 30: "somebody's data", 16<<30 - 16: "the disk's end!!"})
	l.before = l.data(l.disk)
	l.installer = &Installer{
		Service: l.client, Permanent: client.Permanent, Log: quiet, Children: &pid1.Children{}, SealKey: seal, UEFI: true,
		Report: func(r wire.Report) {
			l.mu.Lock()
			defer l.mu.Unlock()
			l.reports = append(l.reports, r)
		},
		Disks: func() ([]machine.Disk, error) {
			d, err := l.look(l.disk)
			return []machine.Disk{d}, err
		},
		Look:   l.look,
		LoadFS: func() error { return nil },
		SetRTC: func() error { return nil },
	}
	reported, err := l.look(l.disk)
	if err != nil {
		t.Fatal(err)
	}
	l.installer.Reported.Disks = []machine.Disk{reported}
	l.watch = newWatch(t, l.disk)

	const mac = machine.MAC("52:54:00:00:00:01")
	session, err := l.client.OpenSession(t.Context(), wire.SessionRequest{
		SignKey: sign.Public().(ed25519.PublicKey), SealKey: seal.PublicKey().Bytes(), Version: "test",
		Inventory: machine.Inventory{Firmware: "uefi", BootMAC: mac, NICs: []machine.NIC{{Name: "eth0", MAC: mac}}, Disks: []machine.Disk{reported}},
	})
	if err != nil {
		t.Fatal(err)
	}
	key, sealed := statetest.Node(session.Machine, make([]byte, ed25519.SeedSize))
	l.propose(state.MachineApprove{
		Machine: session.Machine, Session: session.Session, Intent: "i-1", Name: "node-1", Image: imageDigest,
		Profile: machine.Profile{Name: "control-plane", Role: machine.RoleControlPlane},
		Disk:    reported.Exact(), Erase: reported.Contents,
		Address: netip.MustParseAddr("10.77.0.11"), NodeKey: key, NodeSeed: sealed, Bootstrap: "b-1",
	})
	l.fetchOrder()
	return l
}

// look looks at the disk as the installer does at one, but for what the kernel
// tells.
func (l *lab) look(path string) (machine.Disk, error) {
	d := machine.Disk{Path: path, Serial: "d1", Transport: "sata", Bytes: 16 << 30, SectorSize: 512}
	f, err := os.Open(path)
	if err != nil {
		return d, err
	}
	d.Contents, err = contents.Describe(f, int64(d.Bytes), d.SectorSize)
	return d, errors.Join(err, f.Close())
}

func (l *lab) publish(name string, content []byte) {
	digest := digestOf(content)
	l.blobs.bytes[digest] = content
	l.blobs.files = append(l.blobs.files, wire.File{Name: name, Digest: digest, Size: int64(len(content))})
}

func (l *lab) propose(c state.Command) {
	l.t.Helper()
	if _, err := l.store.Propose(l.t.Context(), "operator:ann", c); err != nil {
		l.t.Fatalf("%s: %v", c.Kind(), err)
	}
}

func (l *lab) fetchOrder() {
	l.t.Helper()
	var err error
	if l.order, err = l.client.Order(l.t.Context(), 0); err != nil || l.order.Kind != wire.OrderInstall {
		l.t.Fatalf("%+v, %v", l.order, err)
	}
}

// ServeHTTP is the service, with the test between it and the installer.
func (l *lab) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == wire.PathClaim {
		// Whatever the answer will be, nothing may be written yet.
		l.untouched("when the claim was asked for")
		l.mu.Lock()
		l.claims++
		n, on := l.claims, l.onClaim
		l.mu.Unlock()
		if on != nil {
			on(n, w, r)
			return
		}
	}
	l.server.ServeHTTP(w, r)
}

func (l *lab) write(path string, pieces map[int64]string) {
	l.t.Helper()
	f, err := os.Create(path)
	if err != nil {
		l.t.Fatal(err)
	}
	for at, text := range pieces {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		l.t.Fatal(err)
	}
}

// data reads all of a sparse file that is not a hole: where it begins, and its
// bytes. Writing anything, zeroes too, shows.
func (l *lab) data(path string) map[int64]string {
	f, err := os.Open(path)
	if err != nil {
		l.t.Error(err)
		return nil
	}
	defer f.Close()
	found := map[int64]string{}
	for at := int64(0); ; {
		first, err := f.Seek(at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return found
		}
		end, err2 := f.Seek(first, unix.SEEK_HOLE)
		if err := errors.Join(err, err2); err != nil {
			l.t.Error(err)
			return found
		}
		b := make([]byte, end-first)
		if _, err := f.ReadAt(b, first); err != nil {
			l.t.Error(err)
		}
		found[first], at = string(b), end
	}
}

func (l *lab) touched() bool {
	now := l.data(l.disk)
	if len(now) != len(l.before) {
		return true
	}
	for at, b := range l.before {
		if now[at] != b {
			return true
		}
	}
	return false
}

func (l *lab) untouched(when string) {
	l.t.Helper()
	if l.touched() {
		l.t.Errorf("%s the disk was written", when)
	}
	if l.watch.opened() {
		l.t.Errorf("%s the disk had been opened for writing", when)
	}
}

// last is the step that was last told to have a status.
func (l *lab) last(status wire.ReportStatus) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	step := ""
	for _, r := range l.reports {
		if r.Status == status {
			step = r.Step
		}
	}
	return step
}

// withPartitions replaces what needs a block device. The partitions are files;
// it returns the path of slot A's.
func (l *lab) withPartitions() (slotA string) {
	dir := l.t.TempDir()
	slotA = filepath.Join(dir, "3")
	l.installer.replaced = &edges{
		partition: func(_ context.Context, path string, t gpt.Table) (map[int]block.Device, error) {
			parts := map[int]block.Device{}
			for _, p := range t.Partitions {
				file := filepath.Join(dir, fmt.Sprint(p.Number))
				size := int64(p.Last-p.First+1) * 512
				f, err := os.Create(file)
				if err != nil {
					return nil, err
				}
				if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
					return nil, err
				}
				parts[p.Number] = block.Device{Path: file, Bytes: size, Number: p.Number}
			}
			return parts, nil
		},
		program: func(context.Context, string, ...string) (string, error) { return "", nil },
		finish:  func(string, gpt.Table, string) error { return nil },
		forget:  func(*os.File) error { return nil },
	}
	return slotA
}
