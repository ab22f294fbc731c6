package netboot

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// blobs is a blob store in memory.
type blobs struct {
	mu    sync.Mutex
	bytes map[string][]byte
	files map[string][]wire.File
}

type opened struct{ *bytes.Reader }

func (opened) Close() error { return nil }

func (b *blobs) Open(_ context.Context, digest string) (io.ReadSeekCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if content, ok := b.bytes[digest]; ok {
		return opened{bytes.NewReader(content)}, nil
	}
	return nil, fmt.Errorf("no replica has it: %w", fs.ErrNotExist)
}

func (b *blobs) Files(manifest string) ([]wire.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if files, ok := b.files[manifest]; ok {
		return files, nil
	}
	return nil, fs.ErrNotExist
}

func digestFor(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// hooked is a Store that a test can come between.
type hooked struct {
	*state.Store
	before func(state.Command)                  // each proposal
	ctx    func(context.Context, state.Command) // the same, with its context
	viewed chan struct{}                        // not nil: told of each view
}

func (h *hooked) View() state.View {
	if h.viewed != nil {
		select {
		case h.viewed <- struct{}{}:
		default:
		}
	}
	return h.Store.View()
}

func (h *hooked) Propose(ctx context.Context, by string, c state.Command) (state.Result, error) {
	if h.before != nil {
		h.before(c)
	}
	if h.ctx != nil {
		h.ctx(ctx, c)
	}
	return h.Store.Propose(ctx, by, c)
}

// lab is a server over a real state in memory, with a clock of its own.
type lab struct {
	store  *hooked
	blobs  *blobs
	server *Server
	url    string
	clock  atomic.Int64 // nanoseconds since 1970
}

// Contents of the two artifacts that machines boot.
const (
	installerKernel, installerInitrd = "the installer's kernel", "the installer's initrd"
	nodeRoot                         = "the node's root"
	shimProgram                      = "shim"
)

var (
	installerManifest = digestFor("installer manifest")
	nodeManifest      = digestFor("node manifest")
	shimManifest      = digestFor("shim manifest")
	ipxeManifest      = digestFor("iPXE manifest")
)

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{blobs: &blobs{bytes: map[string][]byte{}, files: map[string][]wire.File{}}}
	l.clock.Store(time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC).UnixNano())
	now := func() time.Time { return time.Unix(0, l.clock.Load()).UTC() }
	store, err := state.Open(state.Config{ID: "r-1", InMemory: true, Keys: statetest.Keys(), Now: now, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
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
	l.store = &hooked{Store: store}
	for name, files := range map[string]map[string]string{
		installerManifest: {"vmlinuz": installerKernel, "initrd.img": installerInitrd},
		nodeManifest:      {"root.erofs": nodeRoot},
		shimManifest:      {"shimx64.efi": shimProgram, "grubx64.efi": "GRUB"},
		ipxeManifest:      {"snponly.efi": "iPXE for UEFI", "undionly.kpxe": "iPXE for BIOS"},
	} {
		for file, content := range files {
			digest := digestFor(content)
			l.blobs.bytes[digest] = []byte(content)
			l.blobs.files[name] = append(l.blobs.files[name], wire.File{Name: file, Digest: digest, Size: int64(len(content))})
		}
	}
	l.propose(t, state.SiteApply{Site: machine.Site{
		Version: 1, Name: "lab", ServiceAddress: netip.MustParseAddr("10.77.0.1"), Discovery: machine.SiteDiscovery{Always: true},
		Links: []machine.SiteLink{{Interface: "eth0", Address: netip.MustParsePrefix("10.77.0.2/24")}},
	}})
	l.propose(t, state.ImagePublish{Images: []machine.Image{{Ref: "installer", Digest: installerManifest}, {Ref: "node", Digest: nodeManifest},
		{Ref: "shim", Digest: shimManifest}, {Ref: "ipxe", Digest: ipxeManifest}}})
	files, err := events.OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	l.server = New(Config{
		Store: l.store, Blobs: l.blobs, Output: events.New(l.store, files),
		Ignition: func(v state.View, m machine.Machine) ([]byte, error) { return []byte("secret of " + m.Name), nil },
		Now:      now, Logger: slog.New(slog.DiscardHandler),
	})
	return l
}

func (l *lab) propose(t *testing.T, c state.Command) state.Result {
	t.Helper()
	r, err := l.store.Store.Propose(t.Context(), "operator:ann", c)
	if err != nil {
		t.Fatalf("%s: %v", c.Kind(), err)
	}
	return r
}

// serve puts the server on a loopback port.
func (l *lab) serve(t *testing.T) *lab {
	t.Helper()
	h := httptest.NewServer(l.server)
	t.Cleanup(h.Close)
	l.url = h.URL
	return l
}

// reply is an answer that was read.
type reply struct {
	code   int
	header http.Header
	body   string
}

func (r reply) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), v); err != nil {
		t.Fatalf("%d %q: %v", r.code, r.body, err)
	}
}

// raw sends a request, signed if key is not nil.
func (l *lab) raw(key ed25519.PrivateKey, method, path string, body []byte, header ...string) (reply, error) {
	r, err := http.NewRequest(method, l.url+path, bytes.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	if key != nil {
		wire.Sign(r, key, body)
		wire.Challenge(r)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return reply{}, err
	}
	b, err := io.ReadAll(a.Body)
	if err := errors.Join(err, a.Body.Close()); err != nil {
		return reply{}, err
	}
	// Whatever a node is told, errors too, it must know who says it. What is refused
	// before its signature is looked at is not.
	unread := a.StatusCode == http.StatusTooManyRequests || a.StatusCode == http.StatusRequestEntityTooLarge
	if key != nil && !unread && !strings.HasPrefix(path, "/v1/installer/") {
		if _, node := l.store.View().MachineByNodeKey(key.Public().(ed25519.PublicKey)); node && !wire.Authentic(key.Seed(), r, a, b) {
			return reply{}, fmt.Errorf("%s %s: the answer to a node is not authenticated: %d %s", method, path, a.StatusCode, b)
		}
	}
	return reply{a.StatusCode, a.Header, string(b)}, nil
}

// call is raw for what must be answered, with a value as body.
func (l *lab) call(t *testing.T, key ed25519.PrivateKey, method, path string, body any) reply {
	t.Helper()
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	a, err := l.raw(key, method, path, b)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// want is call for an answer with a status and a part of its text.
func (l *lab) want(t *testing.T, code int, says string, key ed25519.PrivateKey, method, path string, body any) reply {
	t.Helper()
	a := l.call(t, key, method, path, body)
	if a.code != code || !strings.Contains(a.body, says) {
		t.Fatalf("%s %s: %d %q, want %d %q", method, path, a.code, a.body, code, says)
	}
	return a
}

type keys struct {
	sign ed25519.PrivateKey
	seal *ecdh.PrivateKey
}

func (l *lab) keys(t *testing.T) keys {
	t.Helper()
	sign, seal, err := wire.NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys{sign, seal}
}

func sessionRequest(k keys, mac machine.MAC) wire.SessionRequest {
	return wire.SessionRequest{
		SignKey: k.sign.Public().(ed25519.PublicKey), SealKey: k.seal.PublicKey().Bytes(), Version: "test",
		Inventory: machine.Inventory{Firmware: "uefi", BootMAC: mac, NICs: []machine.NIC{{Name: "eth0", MAC: mac}}},
	}
}

// session opens an installer session.
func (l *lab) session(t *testing.T, k keys, mac machine.MAC) (s wire.SessionReply) {
	t.Helper()
	l.want(t, 200, "", k.sign, "POST", wire.PathSession, sessionRequest(k, mac)).decode(t, &s)
	return s
}

// approve approves a session's machine, and returns the key of its node.
func (l *lab) approve(t *testing.T, s wire.SessionReply, name string, role machine.Role) ed25519.PrivateKey {
	t.Helper()
	seed := sha256.Sum256([]byte(s.Session))
	key, sealed := statetest.Node(s.Machine, seed[:])
	last := byte(10 + len(l.store.View().Machines()))
	l.propose(t, state.MachineApprove{
		Machine: s.Machine, Session: s.Session, Intent: "i-" + s.Session, Name: name, Image: nodeManifest,
		Profile: machine.Profile{Name: string(role), Role: role, KernelArguments: []string{"quiet"}},
		Address: netip.AddrFrom4([4]byte{10, 77, 0, last}),
		NodeKey: key, NodeSeed: sealed, Bootstrap: "b-" + s.Session,
	})
	return ed25519.NewKeyFromSeed(seed[:])
}

// kinds are the events of a machine.
func (l *lab) kinds(of machine.ID) (kinds []string) {
	for _, e := range l.store.View().Events(0, of, 0) {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}
