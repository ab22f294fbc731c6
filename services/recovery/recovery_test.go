package recovery

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
)

func options(data string) Options {
	return Options{Data: data, Release: "v1", Now: time.Now, Logger: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, data, id string) *state.Store {
	t.Helper()
	ring, err := keyring.Open(filepath.Join(data, folderKeys), keyring.Protectors(data)...)
	if err != nil {
		t.Fatal(err)
	}
	s, err := state.Open(state.Config{Dir: filepath.Join(data, folderState), ID: id, Keys: ring})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.WaitLeader(t.Context()); err != nil {
		t.Fatal(errors.Join(err, s.Close()))
	}
	return s
}

// newReplica makes a folder of one with a cluster, and a backup of its state.
func newReplica(t *testing.T) (data, backup, recovery string, own identity.Own) {
	t.Helper()
	data = t.TempDir()
	ring, err := keyring.Open(filepath.Join(data, folderKeys), keyring.Protectors(data)...)
	if err != nil {
		t.Fatal(err)
	}
	under := keyring.NewKey()
	recovery, recipient, err := keyring.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	copied, err := keyring.Copy(recipient, under)
	if err != nil {
		t.Fatal(err)
	}
	own, err = identity.Found(filepath.Join(data, folderIdentity), under)
	if err != nil {
		t.Fatal(err)
	}
	crt, err := under.Seal(peerapi.SecretCrt, own.AuthorityCrt)
	if err := errors.Join(err, ring.Add(under)); err != nil {
		t.Fatal(err)
	}
	s := open(t, data, own.ID)
	var text bytes.Buffer
	for i, c := range []state.Command{
		state.ClusterCreate{ID: own.Cluster, Generation: own.Generation, Key: under.ID, Secrets: map[string]keyring.Sealed{peerapi.SecretKey: *own.AuthorityKey, peerapi.SecretCrt: crt}},
		state.ReplicaTell{ID: own.ID, Name: "appliance", Endpoint: "127.0.0.1:1", Key: make([]byte, 32), Release: "v1", Level: 1},
		state.UserPut{Name: "ann", PasswordHash: []byte("hash")},
		state.RecoveryPut{Recipient: recipient, Copy: copied, Keys: []string{under.ID}},
		state.Note{What: "note", Severity: machine.Info, Text: "after the backup"},
	} {
		if i == 4 {
			if _, err := s.Export(&text); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Propose(t.Context(), "test", c); err != nil {
			t.Fatal(err)
		}
	}
	backup = filepath.Join(t.TempDir(), "state-1")
	if err := errors.Join(s.Close(), identity.Given(filepath.Join(data, folderIdentity)), os.WriteFile(backup, text.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return data, backup, recovery, own
}

func recover1(t *testing.T, o Options) (text string) {
	t.Helper()
	r, err := Begin(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	text = strings.Join(r.Text(), "\n")
	if _, err := Begin(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("two at once: %v", err)
	}
	if err := errors.Join(r.Do(t.Context(), "root@lab"), r.Close()); err != nil {
		t.Fatal(err)
	}
	return text
}

// A cluster goes on as a new generation: with its users and events, without a gap,
// under a new ID and authority; twice in turn; and what was is kept.
func TestRecover(t *testing.T) {
	data, backup, _, old := newReplica(t)
	s := open(t, data, old.ID)
	if _, err := Begin(t.Context(), options(data)); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("while it runs: %v", err)
	}
	before := s.View().Events(0, "", 0)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	text := recover1(t, options(data))
	if !strings.Contains(text, "generation 2 from "+old.ID) {
		t.Errorf("it said: %s", text)
	}
	check(t, data, "", old, 2, before)
	// And again, from the backup of before: only where nothing newer is left.
	o := options(data)
	o.From = backup
	if _, err := Begin(t.Context(), o); err == nil || !strings.Contains(err.Error(), "without --from") {
		t.Errorf("from less than there is: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(data, folderState)); err != nil {
		t.Fatal(err)
	}
	text = recover1(t, o)
	if !strings.Contains(text, "generation 3 from backup state-1") {
		t.Errorf("it said: %s", text)
	}
	check(t, data, backup, old, 3, before[:len(before)-2])
}

func check(t *testing.T, data, from string, old identity.Own, generation uint64, before []machine.Event) {
	t.Helper()
	own, err := identity.Load(filepath.Join(data, folderIdentity))
	if err != nil || own.Cluster != old.Cluster || own.Generation != generation || own.ID == old.ID || own.AuthorityKey != nil || bytes.Equal(own.AuthorityCrt, old.AuthorityCrt) {
		t.Errorf("generation %d: %+v, %v", generation, own.Name, err)
	}
	if _, err := os.Stat(filepath.Join(data, fmt.Sprint(folderAside, generation), folderIdentity, "identity.json")); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(data, "recover*")); err != nil || !slices.Equal(left, []string{filepath.Join(data, fileLock)}) {
		t.Errorf("left over: %v, %v", left, err)
	}
	s := open(t, data, own.ID)
	defer s.Close()
	events := s.View().Events(0, "", 0)
	for i, e := range events {
		if e.Seq != uint64(i)+1 || i < len(before) && e.Text != before[i].Text {
			t.Fatalf("event %d: %+v", i, e)
		}
	}
	recovered := slices.IndexFunc(events, func(e machine.Event) bool {
		return e.Kind == "cluster.recovered" && e.Data["generation"] == fmt.Sprint(generation)
	})
	if recovered < 0 || !strings.Contains(events[recovered].Text, "root@lab") {
		t.Errorf("events %+v", events)
	}
	if _, ok := s.View().User("ann"); !ok {
		t.Error("its user is gone")
	}
	if r, ok := s.View().Replica(old.ID); !ok || r.InService() {
		t.Errorf("the old replica: %+v", r)
	}
	// From its own folder it knows where it is found; from a backup the folder's
	// replica of a later generation is not in the state.
	if r, ok := s.View().Replica(own.ID); from == "" && (!ok || r.Endpoint != "127.0.0.1:1" || own.Endpoints[own.ID] != "127.0.0.1:1") {
		t.Errorf("the new replica: %+v, %v", r, own.Endpoints)
	}
}

func TestRefused(t *testing.T) {
	data, _, _, _ := newReplica(t)
	_, foreign, recovery, _ := newReplica(t)
	used, _, _, own := newReplica(t)
	s := open(t, used, own.ID)
	if _, err := s.Propose(t.Context(), "test", state.ReplicaInvite{TokenHash: make([]byte, 32), Name: "node-1", Expires: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	key := sha256.Sum256([]byte("key"))
	if _, err := s.Propose(t.Context(), "test", state.ReplicaJoin{TokenHash: make([]byte, 32), ID: "r-2", Endpoint: "127.0.0.1:2", Key: key[:], Release: "v1", Level: 1}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()
	spoilt := filepath.Join(t.TempDir(), "spoilt")
	if err := os.WriteFile(spoilt, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]Options{
		"no such file":            {Data: filepath.Join(empty, "none")},
		"there is no replica":     {Data: empty},
		"machines were installed": {Data: used, From: foreign},
		"no state of Rackseed":    {Data: data, From: spoilt},
		"backup/none: no such fi": {Data: data, From: "backup/none"},
	} {
		o.Now, o.Logger = time.Now, slog.New(slog.DiscardHandler)
		if _, err := Begin(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	// Into an empty folder a backup may go.
	o := options(empty)
	o.From = foreign
	other, _, err := keyring.NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	look, err := Begin(t.Context(), o)
	if err != nil || !strings.Contains(strings.Join(look.Text(), "\n"), "! this folder has not the data keys") || look.Do(t.Context(), "root@lab") == nil || look.Close() != nil {
		t.Errorf("without the recovery key: %v", err)
	}
	for key, want := range map[string]string{other: "does not fit", "a": "no recovery key"} {
		o.RecoveryKey = key
		if _, err := Begin(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("recovery key %q: %v", key, err)
		}
	}
	o.RecoveryKey = recovery
	recover1(t, o)
	own, err = identity.Load(filepath.Join(empty, folderIdentity))
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, empty, own.ID)
	defer s.Close()
	secret, err := s.View().OpenSecret(peerapi.SecretKey)
	if _, e := peer.ParseAuthority(secret, own.AuthorityCrt); err != nil || e != nil {
		t.Errorf("the new authority: %v, %v", err, e)
	}
}

// A backup is for when no replica is left: while one answers where the backup knows it, of
// its generation or a later one, nothing is done.
func TestSomebodyIsLeft(t *testing.T) {
	data, _, key, own := newReplica(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, data, own.ID)
	tell := state.ReplicaTell{ID: own.ID, Name: "node-1", Endpoint: l.Addr().String(), Key: make([]byte, 32), Release: "v1", Level: 1}
	if _, err := s.Propose(t.Context(), "test", tell); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(t.TempDir(), "backup")
	f, err := os.Create(backup)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Export(f)
	if err := errors.Join(err, f.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	network := peer.New(peer.Config{
		Identity: own.Identity, Member: func(string) bool { return false }, Endpoint: func(string) (string, error) { return "", errors.New("none") },
		Members: http.NotFoundHandler(), Joins: http.NotFoundHandler(), Logger: slog.New(slog.DiscardHandler),
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- network.Serve(ctx, l) }()
	o := options(t.TempDir())
	o.From, o.RecoveryKey = backup, key
	if r, err := Begin(t.Context(), o); err == nil || !strings.Contains(err.Error(), "replica node-1 answers at "+l.Addr().String()) {
		t.Errorf("%v, %v", r, err)
	}
	stop()
	network.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	recover1(t, o)
}

// A new stick began a cluster of its own by itself: a backup, gzipped as
// the command line saves it, takes its place. Then it has more than that backup.
func TestNewStick(t *testing.T) {
	stick, _, _, began := newReplica(t)
	_, backup, key, old := newReplica(t)
	text, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	o := options(stick)
	o.From, o.RecoveryKey = backup+".gz", key
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err = z.Write(text)
	if err := errors.Join(err, z.Close(), os.WriteFile(o.From, packed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if said := recover1(t, o); !strings.Contains(said, "generation 2") || !strings.Contains(said, began.Cluster+", which this stick began by itself") {
		t.Errorf("it said: %s", said)
	}
	check(t, stick, backup, old, 2, nil)
	if _, err := Begin(t.Context(), o); err == nil || !strings.Contains(err.Error(), "take rackseed.backup off it") {
		t.Errorf("once it went on: %v", err)
	}
}

// A data key that was to be the next one may be nowhere: nothing is sealed under it.
func TestWithoutTheNextKey(t *testing.T) {
	data, _, _, old := newReplica(t)
	s := open(t, data, old.ID)
	k := s.View().Keyring()
	if _, err := s.Propose(t.Context(), "test", state.KeyNext{Key: "lost", For: "h-1", Recipient: k.Recipient, Copy: k.Copy}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	recover1(t, options(data))
	own, err := identity.Load(filepath.Join(data, folderIdentity))
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, data, own.ID)
	defer s.Close()
	if k := s.View().Keyring(); k.Next != "" || k.For != "" {
		t.Errorf("%+v", k)
	}
	if _, err := s.View().OpenSecret(peerapi.SecretKey); err != nil {
		t.Error(err)
	}
}

// Who may have a vote is noted beside the log, which may have lost that: those are asked.
func TestNamedAreAsked(t *testing.T) {
	data, _, _, _ := newReplica(t)
	if err := identity.Name(filepath.Join(data, folderIdentity), identity.Named{Endpoints: map[string]string{"replica-9": "127.0.0.1:1"}}); err != nil {
		t.Fatal(err)
	}
	r, err := Begin(t.Context(), options(data))
	if err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(r.Text(), "\n"); !strings.Contains(text, "! replica replica-9 (127.0.0.1:1) does not answer") || !strings.Contains(text, "Silent is not dead") {
		t.Errorf("it says: %s", text)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// Of five three are dead, and the other one that is left has more: that is the one to
// recover, and a script that says --yes does not lose what it has.
func TestAhead(t *testing.T) {
	past := &state.Past{Last: 100, View: statetest.Open(t).View()}
	for _, id := range []string{"a", "b", "c", "d", "e"} {
		past.Members = append(past.Members, state.Member{ID: id, Voter: true})
	}
	dead := peerapi.Answer{Err: errors.New("no route to host")}
	for last, ahead := range map[uint64]string{100: "", 101: "b"} {
		r := &Recovery{own: identity.Own{Identity: peer.Identity{Name: peer.Name{ID: "a"}}}, past: past}
		err := r.weigh(map[string]string{}, map[string]peerapi.Answer{"b": {Stored: state.Stored{Last: last}}, "c": dead, "d": dead, "e": dead})
		if err != nil || r.Ahead() != ahead {
			t.Errorf("another one has entry %d: %q is ahead, %v", last, r.Ahead(), err)
		}
	}
}

func TestMajority(t *testing.T) {
	for there, refused := range map[string]bool{"": false, "b": true, "b c": true, "x": false} {
		answering := map[string]bool{}
		for _, id := range strings.Fields(there) {
			answering[id] = true
		}
		if err := majority([]string{"a", "b", "c"}, "a", answering); (err != nil) != refused {
			t.Errorf("%q: %v", there, err)
		}
	}
	if err := majority([]string{"a"}, "a", nil); err != nil {
		t.Errorf("alone: %v", err)
	}
	if err := majority([]string{"a"}, "b", map[string]bool{"a": true}); err == nil {
		t.Error("one without a vote, beside the only voter")
	}
	if err := majority([]string{"a", "b", "c"}, "sealed", map[string]bool{"a": true}); err != nil {
		t.Errorf("a sealed one, with one of three: %v", err)
	}
}

// Wherever it is cut off after it was decided, it is completed; before, nothing
// happened.
func TestFinishAnywhere(t *testing.T) {
	put := func(path, text string) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	moves := [][2]string{
		{"state", "before-generation-2/state"}, {"recovered/state", "state"},
		{"identity", "before-generation-2/identity"}, {"recovered/identity", "identity"}, {"recovered", "recovering"},
	}
	for done := range len(moves) + 1 {
		data := t.TempDir()
		for _, name := range []string{folderState, folderIdentity} {
			put(filepath.Join(data, name, "file"), "old "+name)
			put(filepath.Join(data, folderDecided, name, "file"), "new "+name)
		}
		put(filepath.Join(data, folderDecided, fileGeneration), "2")
		if err := os.MkdirAll(filepath.Join(data, "before-generation-2"), 0o700); err != nil {
			t.Fatal(err)
		}
		for _, m := range moves[:done] {
			if err := os.Rename(filepath.Join(data, m[0]), filepath.Join(data, m[1])); err != nil {
				t.Fatal(err)
			}
		}
		for again := range 2 {
			finished, err := Finish(data)
			if err != nil || finished != (again == 0 && done < len(moves)) {
				t.Fatalf("after %d moves: %v, %v", done, finished, err)
			}
		}
		for _, name := range []string{folderState, folderIdentity} {
			for at, want := range map[string]string{name: "new ", "before-generation-2/" + name: "old "} {
				if text, err := os.ReadFile(filepath.Join(data, at, "file")); err != nil || string(text) != want+name {
					t.Errorf("after %d moves: %s has %q, %v", done, at, text, err)
				}
			}
		}
	}
}

// One that was killed while it was prepared is begun anew.
func TestBegunAnew(t *testing.T) {
	data, _, _, old := newReplica(t)
	r, err := Begin(t.Context(), options(data))
	if err != nil {
		t.Fatal(err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Do(over, "root@lab"); err == nil {
		t.Error("it went on after it was interrupted")
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if finished, err := Finish(data); finished || err != nil {
		t.Errorf("%v, %v", finished, err)
	}
	if own, err := identity.Load(filepath.Join(data, folderIdentity)); err != nil || own.ID != old.ID {
		t.Errorf("%v, %v", own.Name, err)
	}
	recover1(t, options(data))
}
