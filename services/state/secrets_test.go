package state

import (
	"fmt"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/keyring"
)

// A new data key is fetched, becomes the current one, and only once all secrets are
// sealed under it the one before is over. What is sealed under another one than the
// current is refused throughout.
func TestRekey(t *testing.T) {
	w := newWorld(t)
	first, second := keyring.NewKey(), keyring.NewKey()
	w.fsm.keys = keyring.Memory(first, second)
	if text := w.refused(KeyNext{Key: second.ID}); !strings.Contains(text, "no cluster") {
		t.Error(text)
	}
	secrets := map[string]keyring.Sealed{}
	for _, name := range []string{"pki/ca.key", "peer/ca.key", "console.key"} {
		s, err := first.Seal(name, []byte("secret "+name))
		if err != nil {
			t.Fatal(err)
		}
		secrets[name] = s
	}
	bad := ClusterCreate{ID: "c-1", Generation: 1, Key: "another", Secrets: secrets}
	if text := w.refused(bad); !strings.Contains(text, "sealed under") {
		t.Error(text)
	}
	w.must(ClusterCreate{ID: "c-1", Generation: 1, Key: first.ID, Secrets: secrets})
	want := func(when, current, next, old string) {
		t.Helper()
		k := w.view().Keyring()
		equal(t, when, fmt.Sprint(k.Current, " ", k.Next, " ", k.Old), fmt.Sprint(current, " ", next, " ", old))
		for name := range secrets {
			if got, err := w.view().OpenSecret(name); err != nil || string(got) != "secret "+name {
				t.Errorf("%s: %s is %q, %v", when, name, got, err)
			}
		}
	}
	want("made", first.ID, "", "")
	before := w.view().Keyring().Mark()
	for _, c := range []Command{KeyNext{Key: first.ID}, KeyNext{}, KeyNext{Key: second.ID, Recipient: "age1a", Copy: []byte("c")}, KeyNext{Key: second.ID, Copy: []byte("c")}, KeyTurn{Key: second.ID}, KeyTurn{}} {
		w.refused(c)
	}
	w.must(KeyNext{Key: "key-of-one-that-died", For: "h-1"})
	w.must(KeyNext{Key: second.ID, For: "h-1"})
	want("made the next", first.ID, second.ID, "")
	w.refused(KeyTurn{Key: "key-of-one-that-died"})
	w.must(KeyTurn{Key: second.ID})
	want("turned", second.ID, "", first.ID)
	w.refused(KeyNext{Key: "key-3"})
	w.waiting(1)
	late := approval(1)
	late.NodeSeed = sealed(first.ID, "seed")
	if text := w.refused(late); !strings.Contains(text, "changed meanwhile") {
		t.Error(text)
	}
	// In two parts; what was changed after it was read stays as it is now.
	part, err := w.view().Reseal(2)
	if err != nil || len(part.Secrets) != 2 {
		t.Fatalf("%+v, %v", part, err)
	}
	w.must(part)
	want("half", second.ID, "", first.ID)
	equal(t, "no backup is worth it on the way", w.view().Keyring().Mark(), "")
	part, err = w.view().Reseal(2)
	if err != nil || len(part.Secrets) != 1 {
		t.Fatalf("%+v, %v", part, err)
	}
	stale := SecretReseal{Secrets: []Resealed{{Name: part.Secrets[0].Name, Was: bytes32("older"), Sealed: sealed(second.ID, "stale")}, {Name: "forgotten", Sealed: sealed(second.ID, "x")}}}
	w.must(stale)
	want("what is stale is left out", second.ID, "", first.ID)
	w.must(part)
	want("over", second.ID, "", "")
	if now := w.view().Keyring().Mark(); now == before || now == "" {
		t.Errorf("marked %q and %q", before, now)
	}
	if none, err := w.view().Reseal(2); err != nil || len(none.Secrets) != 0 {
		t.Errorf("left over: %+v, %v", none, err)
	}
	w.fsm.keys = keyring.Memory(second)
	want("without the old key", second.ID, "", "")
}

func TestRecoveryPut(t *testing.T) {
	w := newWorld(t)
	w.refused(RecoveryPut{Recipient: "age1a", Copy: []byte("copy")})
	w.must(ClusterCreate{ID: "c-1", Generation: 1, Key: "k-1"})
	w.must(KeyNext{Key: "k-2"})
	for _, c := range []RecoveryPut{{Copy: []byte("c"), Keys: []string{"k-1", "k-2"}}, {Recipient: "age1a", Keys: []string{"k-1", "k-2"}}, {Recipient: "age1a", Copy: []byte("c"), Keys: []string{"k-1"}}, {Recipient: "age1a", Copy: make([]byte, maxCopy+1), Keys: []string{"k-1", "k-2"}}} {
		w.refused(c)
	}
	w.must(RecoveryPut{Recipient: "age1a", Copy: []byte("copy"), Keys: []string{"k-2", "k-1", "k-0"}})
	equal(t, "recipient", w.view().Keyring().Recipient, "age1a")
	// The next key's copy must be for it.
	w.refused(KeyNext{Key: "k-3"})
	w.must(KeyNext{Key: "k-3", Recipient: "age1a", Copy: []byte("copy 3")})
	equal(t, "copy", string(w.view().Keyring().Copy), "copy 3")
}
