package keyring

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSealAndOpen(t *testing.T) {
	k, secret := NewKey(), []byte("the secret")
	s, err := k.Seal("pki/ca.key", secret)
	if err != nil || bytes.Contains(s.Value, secret) || s.Key != k.ID {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, err := k.Open("pki/ca.key", s); err != nil || !bytes.Equal(got, secret) {
		t.Errorf("%q, %v", got, err)
	}
	again, err := k.Seal("pki/ca.key", secret)
	if err != nil || bytes.Equal(again.Value, s.Value) {
		t.Errorf("sealed twice it is the same: %v", err)
	}
	changed := Sealed{s.Key, bytes.Clone(s.Value)}
	changed.Value[len(changed.Value)-1] ^= 1
	for what, try := range map[string]func() ([]byte, error){
		"another name":  func() ([]byte, error) { return k.Open("pki/sa.key", s) },
		"another key":   func() ([]byte, error) { return NewKey().Open("pki/ca.key", s) },
		"a changed bit": func() ([]byte, error) { return k.Open("pki/ca.key", changed) },
		"nothing":       func() ([]byte, error) { return k.Open("pki/ca.key", Sealed{}) },
		"a short key":   func() ([]byte, error) { return Key{"k", []byte("short")}.Open("pki/ca.key", s) },
		"no such key":   func() ([]byte, error) { return Memory(NewKey()).Open("pki/ca.key", s) },
	} {
		if got, err := try(); err == nil {
			t.Errorf("%s: opened as %q", what, got)
		}
	}
}

// flag wraps by turning bits, as long as it works.
type flag struct {
	name  string
	fails error
}

func (f *flag) Name() string { return f.name }

func (f *flag) Wrap(secret []byte) ([]byte, error) {
	out := bytes.Clone(secret)
	for i := range out {
		out[i] ^= 0xff
	}
	return out, f.fails
}

func (f *flag) Unwrap(wrapped []byte) ([]byte, error) { return f.Wrap(wrapped) }

func TestRing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keyring")
	broken, good := &flag{"broken", errors.New("it is burnt")}, &flag{"good", nil}
	open := func(protect ...Protector) *Ring {
		t.Helper()
		r, err := Open(dir, protect...)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := open(broken, good, Plaintext{})
	if r.Has("") || r.Protector() != "" || r.Lost() != nil {
		t.Error("an empty one has something")
	}
	a, b := NewKey(), NewKey()
	if err := errors.Join(r.Add(a), r.Add(b)); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(Key{"k", []byte("short")}); err == nil {
		t.Error("a short key was taken")
	}
	r = open(broken, good)
	if !r.Has(a.ID, b.ID) || r.Has("other") || r.Protector() != "good" || len(r.Keys(b.ID, "other", a.ID)) != 2 {
		t.Errorf("reopened: %v, %q", r.Keys(a.ID, b.ID), r.Protector())
	}
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(a.ID)) {
		t.Error("the keys are in the clear")
	}
	if err := r.Keep(b.ID); err != nil || r.Has(a.ID) || !open(good).Has(b.ID) || open(good).Has(a.ID) {
		t.Errorf("one was to go: %v", err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("left in the folder: %v, %v", list, err)
	}
	// Killed while it was written, the old one is there by two names.
	if err := os.Link(filepath.Join(dir, file), filepath.Join(dir, oldFile)); err != nil {
		t.Fatal(err)
	}
	if err := r.Add(a); err != nil || !open(good).Has(a.ID, b.ID) {
		t.Errorf("after a crash: %v", err)
	}
	// Its protector does not work, and then does again.
	good.fails = errors.New("it is busy")
	r = open(good, Plaintext{})
	if r.Has(a.ID) || r.Lost() == nil || !strings.Contains(r.Lost().Error(), "busy") || r.Reopen() == nil {
		t.Errorf("without its protector: %v", r.Lost())
	}
	if _, err := r.Seal(a.ID, "x", nil); err == nil || !strings.Contains(err.Error(), "gets it from the others") || !strings.Contains(err.Error(), "unwrapped") {
		t.Errorf("sealing without keys: %v", err)
	}
	if err := r.Add(a); err == nil || !strings.Contains(err.Error(), "stays as it was") || r.Has(a.ID) {
		t.Errorf("taken anew without its protector: %v", err)
	}
	good.fails = nil
	if err := r.Reopen(); err != nil || r.Lost() != nil || !r.Has(a.ID, b.ID) {
		t.Errorf("opened again: %v", err)
	}
	good.fails = errors.New("it is busy")
	c := NewKey()
	if err := r.Add(c); err == nil || r.Has(c.ID) || r.Protector() != "good" {
		t.Errorf("a key more: %v, %s", err, r.Protector())
	}
	good.fails = nil
	if now := open(good); !now.Has(a.ID, b.ID) || now.Protector() != "good" {
		t.Errorf("after that: %v", now.Lost())
	}
	// It is gone for good, and somebody says so.
	good.fails = fs.ErrNotExist
	r = open(good, Plaintext{})
	r.AllowWorse()
	if err := r.Add(a); err != nil || r.Lost() != nil || r.Protector() != NamePlaintext {
		t.Errorf("taken anew: %v, %v", err, r.Lost())
	}
	if err := r.Improve(); err != nil || r.Protector() != NamePlaintext {
		t.Errorf("better by one that is not there: %v", err)
	}
	good.fails = errors.New("it is busy")
	if err := r.Improve(); err == nil || !strings.Contains(err.Error(), "busy") || r.Protector() != NamePlaintext || !open(good, Plaintext{}).Has(a.ID) {
		t.Errorf("better by one that does not work: %v", err)
	}
	good.fails = nil
	if err := r.Improve(); err != nil || r.Protector() != "good" || !open(good).Has(a.ID) {
		t.Errorf("better: %v, %s", err, r.Protector())
	}
	if err := r.Improve(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(filepath.Join(dir, file)); err != nil {
		t.Fatal(err)
	}
	if err := open(broken).Add(b); err == nil || !strings.Contains(err.Error(), "burnt") {
		t.Errorf("nothing can wrap: %v", err)
	}
	if err := r.Destroy(); err != nil || r.Has(a.ID) {
		t.Error(err)
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
		t.Errorf("left of a destroyed one: %v, %v", list, err)
	}
	if err := r.Destroy(); err != nil {
		t.Errorf("twice: %v", err)
	}
	if err := r.Add(a); err == nil || r.Has(a.ID) {
		t.Error("a destroyed one took a key")
	}
}

func TestSpoiltRing(t *testing.T) {
	dir := t.TempDir()
	r, err := Open(dir, Plaintext{})
	if err == nil {
		err = r.Add(NewKey())
	}
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if err := os.WriteFile(filepath.Join(dir, file), whole[:n*len(whole)/20], 0o600); err != nil {
			t.Fatal(err)
		}
		if r, err := Open(dir, Plaintext{}); err != nil || r.Lost() == nil {
			t.Errorf("cut off at %d of 20: %v", n, err)
		}
	}
}

func TestRecoveryKey(t *testing.T) {
	key, recipient, err := NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	a, b := NewKey(), NewKey()
	c, err := Copy(recipient, a, b)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Recover(" "+strings.ToLower(key)+"\n", c)
	if err != nil || len(got) != 2 || got[1].ID != b.ID || !bytes.Equal(got[1].Bytes, b.Bytes) {
		t.Errorf("%+v, %v", got, err)
	}
	other, _, err := NewRecoveryKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		key  string
		copy []byte
		want string
	}{{other, c, "does not fit"}, {key, nil, "no copy"}, {key, c[:len(c)-1], "keys' copy"}, {recipient, c, "AGE-SECRET-KEY-1"}} {
		if _, err := Recover(x.key, x.copy); err == nil || !strings.Contains(err.Error(), x.want) || strings.Contains(err.Error(), x.key) {
			t.Errorf("want %q: %v", x.want, err)
		}
	}
	if _, err := Copy("age1none", a); err == nil {
		t.Error("a copy for nobody")
	}
}
