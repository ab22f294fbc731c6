package keyring

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/rackseed/rackseed/services/durable"
)

// Protector wraps a replica's ring on its disk.
type Protector interface {
	Name() string
	// Wrap wraps 32 bytes; an error says that the protector does not work here.
	Wrap(secret []byte) ([]byte, error)
	Unwrap(wrapped []byte) ([]byte, error)
}

// NamePlaintext is the name of the protector that is none.
const NamePlaintext = "plaintext"

// Plaintext protects nothing: whoever reads the disk has the secrets. It is shown as
// such.
type Plaintext struct{}

// Name implements Protector.
func (Plaintext) Name() string { return NamePlaintext }

// Wrap implements Protector.
func (Plaintext) Wrap(secret []byte) ([]byte, error) { return secret, nil }

// Unwrap implements Protector.
func (Plaintext) Unwrap(wrapped []byte) ([]byte, error) { return wrapped, nil }

const (
	file    = "keyring.json"
	oldFile = "keyring.old" // while it is overwritten
)

// stored is the file: the keys sealed under one that the protector wrapped.
type stored struct {
	Protector string `json:"protector"`
	Wrapped   []byte `json:"wrapped"`
	Keys      []byte `json:"keys"`
}

// Ring is the data keys that a replica has, by ID. Which of them is the current one
// is in the state.
type Ring struct {
	dir     string      // "": in memory only
	protect []Protector // the best one first

	mu        sync.Mutex
	keys      map[string]Key
	protector string // that wrapped what is on the disk
	destroyed bool
	worse     bool  // the next change may be protected worse
	lost      error // what is on the disk cannot be unwrapped
}

// Memory is a ring that is on no disk.
func Memory(keys ...Key) *Ring {
	r := &Ring{keys: map[string]Key{}}
	for _, k := range keys {
		r.keys[k.ID] = k
	}
	return r
}

// Open opens the ring in a folder; one without is empty. The first protector that
// works wraps what is written, but never a worse one than wrapped what is there; that
// is unwrapped by the one that wrapped it. Where that fails the ring is empty, and Lost
// says why: Reopen tries again, and another replica may have the keys.
func Open(dir string, protect ...Protector) (*Ring, error) {
	r := &Ring{dir: dir, protect: protect, keys: map[string]Key{}}
	text, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("this replica's keyring: %w", err)
	}
	r.lost = r.unwrap(text)
	return r, nil
}

// Reopen tries again to unwrap what is on the disk, where that failed: a TPM may be busy,
// or come later than the ring.
func (r *Ring) Reopen() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lost == nil {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(r.dir, file))
	if err != nil {
		return fmt.Errorf("this replica's keyring: %w", err)
	}
	r.lost = r.unwrap(text)
	return r.lost
}

// Improve wraps the ring by a better protector than wrapped what is on the disk, if one
// works now. An error says why one that is there does not: nothing was changed.
func (r *Ring) Improve() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.protector == "" || r.lost != nil {
		return nil
	}
	better := r.protect[:r.rank()]
	if len(better) == 0 {
		return nil
	}
	err := r.write(r.keys, better)
	if errors.Is(err, fs.ErrNotExist) { // this machine has none
		return nil
	}
	return err
}

// AllowWorse lets the next change be wrapped by a worse protector than wrapped what is on
// the disk: a deliberate act of who knows that the better one is gone for good.
func (r *Ring) AllowWorse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.worse = true
}

// rank is which protector wrapped what is on the disk; there is one.
func (r *Ring) rank() int {
	return slices.IndexFunc(r.protect, func(p Protector) bool { return p.Name() == r.protector })
}

// ringName is under which name a ring's keys are sealed.
const ringName = "keyring"

func (r *Ring) unwrap(text []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("the keyring %s cannot be unwrapped: %w", filepath.Join(r.dir, file), err)
		}
	}()
	var s stored
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	r.protector = s.Protector
	i := r.rank()
	if i < 0 {
		return fmt.Errorf("it was wrapped by %q, which is not known here", s.Protector)
	}
	b, err := r.protect[i].Unwrap(s.Wrapped)
	if err != nil {
		return fmt.Errorf("%s: %w", s.Protector, err)
	}
	plain, err := Key{s.Protector, b}.Open(ringName, Sealed{s.Protector, s.Keys})
	if err != nil {
		return err
	}
	var list []Key
	if err := json.Unmarshal(plain, &list); err != nil {
		return err
	}
	for _, k := range list {
		r.keys[k.ID] = k
	}
	return nil
}

// Lost is why what is on the disk could not be unwrapped; nil: it could, or is
// written anew.
func (r *Ring) Lost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost
}

// Protector is the name of what protects the ring on the disk; "": nothing is there.
func (r *Ring) Protector() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.protector
}

// Has says whether all those keys are there.
func (r *Ring) Has(ids ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if _, ok := r.keys[id]; !ok {
			return false
		}
	}
	return true
}

// IDs are those of all keys that are there.
func (r *Ring) IDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.keys))
}

// Keys are those of the named ones that are there, in that order.
func (r *Ring) Keys(ids ...string) (list []Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range ids {
		if k, ok := r.keys[id]; ok {
			list = append(list, k)
		}
	}
	return list
}

// Any is one of the keys, for who has no state yet that says which is current.
func (r *Ring) Any() (Key, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(r.keys)) {
		return r.keys[id], true
	}
	return Key{}, false
}

// Seal seals a secret under a data key.
func (r *Ring) Seal(key, name string, secret []byte) (Sealed, error) {
	k, err := r.key(key)
	if err != nil {
		return Sealed{}, fmt.Errorf("secret %s cannot be sealed: %w", name, err)
	}
	return k.Seal(name, secret)
}

// Open opens a secret.
func (r *Ring) Open(name string, s Sealed) ([]byte, error) {
	k, err := r.key(s.Key)
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be opened: %w", name, err)
	}
	return k.Open(name, s)
}

func (r *Ring) key(id string) (Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.keys[id]
	if !ok {
		err := fmt.Errorf("this replica has no data key %s: it gets it from the others once it can reach them", id)
		return k, errors.Join(err, r.lost)
	}
	return k, nil
}

// Add takes keys into the ring. When it returns nil they are on the disk.
func (r *Ring) Add(keys ...Key) error {
	for _, k := range keys {
		if _, err := k.aead(""); err != nil {
			return err
		}
	}
	return r.change(func(all map[string]Key) {
		for _, k := range keys {
			all[k.ID] = k
		}
	})
}

// Keep drops all keys but the named ones.
func (r *Ring) Keep(ids ...string) error {
	return r.change(func(all map[string]Key) {
		maps.DeleteFunc(all, func(id string, _ Key) bool { return !slices.Contains(ids, id) })
	})
}

func (r *Ring) change(do func(map[string]Key)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.destroyed {
		return errors.New("this replica's keyring was destroyed: it takes no keys any more")
	}
	all := maps.Clone(r.keys)
	do(all)
	if maps.EqualFunc(all, r.keys, func(a, b Key) bool { return string(a.Bytes) == string(b.Bytes) }) && r.lost == nil {
		return nil
	}
	if r.dir != "" {
		by := r.may()
		err := r.write(all, by)
		if err != nil && len(by) < len(r.protect) {
			err = fmt.Errorf("it stays as it was, protected by %s; if that is gone for good, stop this replica and remove %s, and it is written without: %w",
				r.protector, filepath.Join(r.dir, file), err)
		}
		if err != nil {
			return fmt.Errorf("writing this replica's keyring: %w", err)
		}
	}
	r.keys, r.lost, r.worse = all, nil, false
	return nil
}

// may are the protectors that may wrap what is written: one call of a TPM that fails
// must not leave the keys on the disk for everybody.
func (r *Ring) may() []Protector {
	if r.protector == "" || r.worse || r.rank() < 0 {
		return r.protect
	}
	return r.protect[:r.rank()+1]
}

// write wraps the keys by the first protector that works, under a key that is new
// each time.
func (r *Ring) write(all map[string]Key, by []Protector) error {
	var list []Key
	for _, id := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[id])
	}
	plain, err := json.Marshal(list)
	if err != nil {
		return err
	}
	var failed []error
	for _, p := range by {
		one := NewKey()
		wrapped, err := p.Wrap(one.Bytes)
		if err == nil { // what cannot be unwrapped protects from everybody
			_, err = p.Unwrap(wrapped)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", p.Name(), err))
			continue
		}
		sealed, err := one.Seal(ringName, plain)
		if err != nil {
			return err
		}
		text, err := json.Marshal(stored{p.Name(), wrapped, sealed.Value})
		if err != nil {
			return err
		}
		if err := os.MkdirAll(r.dir, 0o700); err != nil {
			return err
		}
		if err := r.replace(text); err != nil {
			return err
		}
		r.protector = p.Name()
		return nil
	}
	return fmt.Errorf("nothing can protect it: %w", errors.Join(failed...))
}

// replace writes the file. The old one may hold a key that is to be gone: it is
// overwritten once the new one is there, by a second name, since a crash in between
// must not lose both.
func (r *Ring) replace(text []byte) error {
	path, old := filepath.Join(r.dir, file), filepath.Join(r.dir, oldFile)
	if err := r.dropOld(); err != nil {
		return err
	}
	// A filesystem may have no links: what was there stays in its free blocks then.
	linked := os.Link(path, old) == nil
	if err := durable.WriteFile(path, text, 0o600); err != nil || !linked {
		return err
	}
	return Overwrite(old)
}

// dropOld removes what a crash left in replace.
func (r *Ring) dropOld() error {
	if err := r.dropUnnamed(); err != nil {
		return err
	}
	old := filepath.Join(r.dir, oldFile)
	was, err := os.Stat(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if is, err := os.Stat(filepath.Join(r.dir, file)); err == nil && os.SameFile(was, is) {
		return os.Remove(old) // the new one was not there yet
	}
	return Overwrite(old)
}

// dropUnnamed overwrites what a crash left of a file before it got its name (see
// durable.WriteFile): it may be all of it.
func (r *Ring) dropUnnamed() error {
	left, err := filepath.Glob(filepath.Join(r.dir, "."+file+"-*"))
	for _, path := range left {
		err = errors.Join(err, Overwrite(path))
	}
	return err
}

// Destroy makes this replica's ring unreadable: it is overwritten, on the disk, and
// removed, and takes no keys any more. A flash medium may keep the old blocks where
// only its maker reads them.
func (r *Ring) Destroy() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dir != "" {
		err := r.dropUnnamed()
		for _, name := range []string{file, oldFile} {
			err = errors.Join(err, Overwrite(filepath.Join(r.dir, name)))
		}
		if err != nil {
			return fmt.Errorf("destroying this replica's keyring: %w", err)
		}
	}
	r.keys, r.protector, r.lost, r.destroyed = map[string]Key{}, "", nil, true
	return nil
}

// Overwrite overwrites a file on the disk and removes it. One that is not there is
// gone.
func Overwrite(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		_, err = f.WriteAt(make([]byte, info.Size()), 0)
	}
	if err = errors.Join(err, f.Sync(), f.Close(), os.Remove(path)); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
