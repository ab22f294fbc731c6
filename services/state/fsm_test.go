package state

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/rackseed/rackseed/services/machine"
)

func mustPrefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestReplay(t *testing.T) {
	w := newWorld(t)
	story(w)
	for _, batch := range []int{1, 7, 1000} {
		again := newWorld(t)
		for rest := w.log[2:]; len(rest) > 0; {
			n := min(batch, len(rest))
			again.fsm.ApplyBatch(rest[:n])
			rest = rest[n:]
		}
		equal(t, "hash after a replay", again.hash(), w.hash())
	}
}

func TestHalt(t *testing.T) {
	good, err := encode(start, "test", Note{What: "note", Severity: machine.Info, Text: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ name, entry, want string }{
		{"unknown kind", `{"v":1,"kind":"moon.land/1","at":"2026-11-24T12:00:00Z","by":"x","data":{}}`, "moon.land/1 is not known"},
		{"newer version", `{"v":2,"kind":"note/1","by":"x","data":{},"zone":3}`, "has version 2"},
		{"unknown field", `{"v":1,"kind":"note/1","at":"2026-11-24T12:00:00Z","by":"x","data":{"what":"w","colour":"red"}}`, `unknown field "colour"`},
		{"unknown envelope field", `{"v":1,"kind":"note/1","at":"2026-11-24T12:00:00Z","by":"x","data":{},"colour":1}`, `unknown field "colour"`},
		{"no JSON", `moon`, "no envelope"},
		{"two values", string(good) + `{}`, "data after the value"},
		{"nothing", ``, "no envelope"},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			before := w.hash()
			answer, _ := w.enter([]byte(test.entry)).(error)
			if w.halt == nil || !strings.Contains(w.halt.Error(), test.want) || !errors.Is(answer, errHalted) {
				t.Fatalf("halted with %v, answered %v; want %q", w.halt, answer, test.want)
			}
			first := w.halt
			w.halt = nil
			if after, _ := w.enter(good).(error); !errors.Is(after, errHalted) || w.halt != nil || w.hash() != before {
				t.Errorf("after %v the next entry was answered %v, and halt called with %v", first, after, w.halt)
			}
			if _, err := w.fsm.Snapshot(); !errors.Is(err, errHalted) {
				t.Errorf("a snapshot was taken: %v", err)
			}
		})
	}
}

// TestHaltKeepsWhatCameBefore: in one batch, entries before the strange one
// are applied, those after it are not.
func TestHaltKeepsWhatCameBefore(t *testing.T) {
	w := newWorld(t)
	entry := func(index uint64, text string) *raft.Log {
		data, err := encode(start, "test", Note{What: "note", Severity: machine.Info, Text: text})
		if err != nil {
			t.Fatal(err)
		}
		return &raft.Log{Index: index, Term: w.term, Data: data}
	}
	w.fsm.ApplyBatch([]*raft.Log{entry(10, "before"), {Index: 11, Term: w.term, Data: []byte("moon")}, entry(12, "after")})
	events := w.view().Events(0, "", 0)
	equal(t, "last event", events[len(events)-1].Text, "before")
	equal(t, "index", w.view().Index(), 10)
}

// TestEpochFence: what a new leader's term brings before its epoch, does
// nothing.
func TestEpochFence(t *testing.T) {
	w := newWorld(t)
	before := w.hash()
	w.term = 5
	if _, err := w.try("x", Note{What: "note", Severity: machine.Info, Text: "x"}); !errors.Is(err, errNoEpoch) || w.hash() != before {
		t.Errorf("a command of a term without an epoch: %v", err)
	}
	w.must(EpochBegin{Leader: "r-2"})
	equal(t, "epoch", w.must(Note{What: "note", Severity: machine.Info, Text: "x"}).Epoch, 2)
}

func TestEventsAreBounded(t *testing.T) {
	w := newWorldOf(t, 5)
	for range 20 {
		w.must(Note{What: "note", Severity: machine.Info, Text: "x"})
	}
	events := w.view().Events(0, "", 0)
	equal(t, "kept", len(events), 5)
	equal(t, "first", events[0].Seq, 18)
	equal(t, "last", w.view().LastEvent(), 22)
}

func TestChunksAreBounded(t *testing.T) {
	w := newWorld(t)
	w.approved(1)
	stranger := machineID(2)
	w.waiting(2)
	for n := range uint64(maxStrangerChunks + 3) {
		w.must(OutputStore{Chunk: machine.Chunk{Machine: stranger, Stream: "s-1", First: n + 1, Last: n + 1, Digest: digestOf("x"), Size: 2}})
	}
	equal(t, "kept of a stranger", len(w.view().Chunks(stranger, 0, 0)), maxStrangerChunks)
	equal(t, "its next line", w.view().NextLine(stranger, "s-1"), maxStrangerChunks+4)
	chunk := func(n uint64) Command {
		return OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s-1", First: n, Last: n, Digest: digestOf("x"), Size: 2}}
	}
	for n := range uint64(maxChunks + 3) {
		w.must(chunk(n + 1))
	}
	v := w.view()
	all := v.Chunks(machineID(1), 0, 0)
	equal(t, "kept", len(all), maxChunks)
	equal(t, "the newest is of", all[len(all)-1].Time, w.now)
	equal(t, "first", all[0].Seq, 4)
	equal(t, "next line", v.NextLine(machineID(1), "s-1"), maxChunks+4)
	if two := v.Chunks(machineID(1), 10, 2); len(two) != 2 || two[0].Seq != 11 {
		t.Errorf("two chunks after 10: %v", two)
	}
}

func TestLeases(t *testing.T) {
	w := newWorld(t)
	w.must(lease(100, mac(1), start, time.Minute))
	w.now = w.now.Add(time.Hour)
	w.must(lease(100, mac(2), w.now, time.Hour)) // the first has run out
	if _, ok := w.view().LeaseByMAC(mac(1)); ok {
		t.Error("the old holder still has it")
	}
	w.must(lease(101, mac(2), w.now, time.Hour))
	if _, ok := w.view().Lease(address(100)); ok {
		t.Error("a client has two leases")
	}
	w.must(see(1, 2, ""))
	l, _ := w.view().Lease(address(101))
	equal(t, "lease of a machine seen after it", l.Machine, machineID(1))
	w.now = w.now.Add(leaseMemory + 2*time.Hour)
	w.must(lease(102, mac(3), w.now, time.Hour))
	equal(t, "leases after a week", len(w.view().Leases()), 1)
	w.must(LeaseDecline{Address: address(102), MAC: mac(3), Until: w.now.Add(time.Minute)})
	if _, ok := w.view().LeaseByMAC(mac(3)); ok {
		t.Error("the client still has the address that it declined")
	}
	w.now = w.now.Add(time.Hour)
	w.must(lease(102, mac(4), w.now, time.Hour)) // declined no longer
}

func TestBootDecisionsAreToldOnce(t *testing.T) {
	w := newWorld(t)
	w.waiting(1)
	decide := BootDecide{Machine: machineID(1), Decision: machine.BootDecision{Kind: machine.BootDiscovery, Reason: "x"}}
	equal(t, "events of the first", len(w.must(decide).Events), 1)
	equal(t, "events of the next", len(w.must(decide).Events), 0)
	w.now = w.now.Add(bootEventPause)
	equal(t, "events of a later one", len(w.must(decide).Events), 1)
	w.must(approval(1))
	decide.Decision.Kind = machine.BootInstall
	equal(t, "events of another", len(w.must(decide).Events), 1)
}

func TestLogins(t *testing.T) {
	w := newWorld(t)
	w.must(UserPut{Name: "ann", PasswordHash: []byte("h")})
	w.must(LoginOpen{TokenHash: bytes32("1"), User: "ann", Expires: w.now.Add(time.Minute)})
	w.now = w.now.Add(time.Hour)
	w.must(LoginOpen{TokenHash: bytes32("2"), User: "ann", Expires: w.now.Add(time.Minute)})
	if _, ok := w.view().Login(bytes32("1")); ok {
		t.Error("an expired login is kept")
	}
	w.must(UserPut{Name: "ann", PasswordHash: []byte("new")})
	if _, ok := w.view().Login(bytes32("2")); ok {
		t.Error("a login outlives the password")
	}
	// Whoever has a setup code may be anybody, also one who is known.
	w.must(ClusterCreate{ID: "c-1", Generation: 1, SetupHash: bytes32("setup")})
	w.must(LoginOpen{TokenHash: bytes32("4"), User: "ann", Expires: w.now.Add(time.Minute)})
	w.must(UserPut{Name: "ann", PasswordHash: []byte("newest"), SetupHash: bytes32("setup")})
	if _, ok := w.view().Login(bytes32("4")); ok {
		t.Error("a login outlives the password that a setup code replaced")
	}
	if u, _ := w.view().User("ann"); string(u.PasswordHash) != "newest" {
		t.Errorf("the password is %q", u.PasswordHash)
	}
	w.must(LoginOpen{TokenHash: bytes32("3"), User: "ann", Expires: w.now.Add(time.Minute)})
	w.must(LoginEnd{TokenHash: bytes32("3")})
	if _, ok := w.view().Login(bytes32("3")); ok {
		t.Error("a login outlives its end")
	}
}

func TestDamagedSnapshots(t *testing.T) {
	w := newWorld(t)
	story(w)
	var whole bytes.Buffer
	if err := writeSnapshot(&whole, w.view().v.txn, 0); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(whole.String(), "\n")
	for name, text := range map[string]string{
		"empty":         "",
		"no end":        strings.Join(lines[:len(lines)-2], ""),
		"a row too few": strings.Join(append(append([]string{}, lines[:3]...), lines[4:]...), ""),
		"more":          whole.String() + lines[1],
		"other version": strings.Replace(whole.String(), `"v":1`, `"v":2`, 1),
		"other table":   strings.Replace(whole.String(), `"table":"cluster"`, `"table":"moon"`, 1),
		"other field":   strings.Replace(whole.String(), `"generation"`, `"colour"`, 1),
		"cut in a row":  whole.String()[:whole.Len()/2],
	} {
		if _, _, err := readSnapshot(strings.NewReader(text), FeatureLevel); err == nil {
			t.Errorf("%s: it was read", name)
		}
	}
	// Whatever is flipped is damage, and not what another release wrote.
	for at := strings.Index(whole.String(), "\n") + 1; at < whole.Len(); at += 7 {
		flipped := bytes.Clone(whole.Bytes())
		flipped[at] ^= 1
		if _, _, err := readSnapshot(bytes.NewReader(flipped), FeatureLevel); err == nil || strings.Contains(err.Error(), "release") {
			t.Errorf("byte %d of %d flipped: %v", at, whole.Len(), err)
		}
	}
	before := w.hash()
	if err := w.fsm.Restore(io.NopCloser(strings.NewReader(lines[0]))); err == nil || w.hash() != before {
		t.Errorf("restoring half a snapshot: %v", err)
	}
}

func TestSupported(t *testing.T) {
	if err := supported("note/1", 1); err != nil {
		t.Error(err)
	}
	if err := supported("note/1", 0); err == nil || !strings.Contains(err.Error(), "feature level 1") {
		t.Errorf("above the cluster's level: %v", err)
	}
	// Not this binary's level: a log that began under an older release replays
	// alike, and old replicas may be there.
	equal(t, "level of a new cluster", newWorld(t).view().t.cluster().FeatureLevel, 1)
}

func TestText(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Hour: "1h", 90 * time.Minute: "1h30m", 90 * time.Second: "1m30s", 45 * time.Second: "45s", 10 * time.Minute: "10m"} {
		equal(t, "span", span(d), want)
	}
	for b, want := range map[uint64]string{0: "0 B", 4 << 30: "4 GiB", 3 << 29: "1.5 GiB", 1 << 40: "1 TiB"} {
		equal(t, "size", size(b), want)
	}
	equal(t, "clip", clip("a\x1b[31m\nb\xff"), "a[31m b")
	if s := clip(strings.Repeat("é", maxText)); len(s) > maxText+len("…") || !strings.HasSuffix(s, "é…") {
		t.Errorf("clipped to %d bytes: …%q", len(s), s[len(s)-6:])
	}
}

func FuzzDecode(f *testing.F) {
	for _, c := range samples() {
		entry, err := encode(start, "x", c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(entry)
	}
	f.Fuzz(func(t *testing.T, entry []byte) {
		w := newWorld(t)
		if w.enter(entry) == nil {
			t.Error("no answer")
		}
		checkInvariants(t, w)
	})
}
