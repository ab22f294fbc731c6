package efi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/gpt"
	"golang.org/x/sys/unix"
)

const (
	// global is EFI_GLOBAL_VARIABLE (§3.3).
	global = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
	// attributes: non-volatile, boot service and run-time access (§8.2).
	attributes = 7
	// bootOrder is the variable with the numbers of the entries that are tried
	// (§3.3).
	bootOrder = "BootOrder"
	// immutable is FS_IMMUTABLE_FL of linux/fs.h.
	immutable = 0x10
)

// Variables are the firmware's global ones. Errors of Read wrap os.ErrNotExist
// when there is none of that name.
type Variables interface {
	Names() ([]string, error)
	Read(name string) ([]byte, error)
	Write(name string, data []byte) error
	Remove(name string) error
}

// FS is a mounted efivarfs.
type FS struct{ Dir string }

// System is where the kernel's is mounted.
var System = FS{"/sys/firmware/efi/efivars"}

func (v FS) Names() ([]string, error) {
	files, err := os.ReadDir(v.Dir)
	if err != nil {
		return nil, fmt.Errorf("firmware variables: %w", err)
	}
	var names []string
	for _, f := range files {
		if name, ok := strings.CutSuffix(f.Name(), "-"+global); ok {
			names = append(names, name)
		}
	}
	return names, nil
}

func (v FS) Read(name string) ([]byte, error) {
	b, err := os.ReadFile(v.path(name))
	if err != nil {
		return nil, fmt.Errorf("firmware variable %s: %w", name, err)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("firmware variable %s: has no attributes", name)
	}
	return b[4:], nil
}

// Write sets a variable, in one write as efivarfs wants.
func (v FS) Write(name string, data []byte) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("firmware variable %s: %w", name, err)
		}
	}()
	if err := v.unlock(name); err != nil {
		return err
	}
	f, err := os.OpenFile(v.path(name), os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(append(binary.LittleEndian.AppendUint32(nil, attributes), data...))
	return errors.Join(err, f.Close())
}

func (v FS) Remove(name string) error {
	if err := errors.Join(v.unlock(name), os.Remove(v.path(name))); err != nil {
		return fmt.Errorf("firmware variable %s: %w", name, err)
	}
	return nil
}

// unlock clears the immutable flag by which the kernel guards most variables
// against rm -rf.
func (v FS) unlock(name string) error {
	f, err := os.Open(v.path(name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil && flags&immutable != 0 {
		err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
	} else if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOTSUP) {
		err = nil // a file system without such flags
	}
	return errors.Join(err, f.Close())
}

func (v FS) path(name string) string { return filepath.Join(v.Dir, name+"-"+global) }

// SecureBoot says whether the firmware enforces signatures.
func SecureBoot(v Variables) bool {
	b, err := v.Read("SecureBoot")
	return err == nil && len(b) == 1 && b[0] == 1
}

// ReadBoot reads what the firmware boots, and in which order. An entry that
// cannot be read has no description, but its number is taken.
func ReadBoot(v Variables) (Boot, error) {
	b := Boot{Entries: map[uint16]Entry{}}
	names, err := v.Names()
	if err != nil {
		return b, err
	}
	for _, name := range names {
		hex, isBoot := strings.CutPrefix(name, "Boot")
		n, err := strconv.ParseUint(hex, 16, 16)
		if !isBoot || len(hex) != 4 || err != nil {
			continue
		}
		b.Entries[uint16(n)] = Entry{}
		if data, err := v.Read(name); err == nil {
			if e, err := ParseEntry(data); err == nil {
				b.Entries[uint16(n)] = e
			}
		}
	}
	order, err := v.Read(bootOrder)
	if err == nil {
		b.Order, err = parseOrder(order)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return b, err
	}
	if c, err := v.Read("BootCurrent"); err == nil && len(c) == 2 {
		current := binary.LittleEndian.Uint16(c)
		b.Current = &current
	}
	return b, nil
}

// Saved are variables as they were before they were changed, nil for those that
// there were not.
type Saved map[string][]byte

// save reads variables. One that is there and cannot be read is an error: it
// could not be put back.
func save(v Variables, names ...string) (Saved, error) {
	s := Saved{}
	for _, name := range names {
		data, err := v.Read(name)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		s[name] = data
	}
	return s, nil
}

// Restore makes the variables what they were. BootOrder comes after the entries
// that it names are back, and before others are removed.
func (s Saved) Restore(v Variables) error {
	var errs []error
	var gone []string
	put := func(name string) {
		if data := s[name]; data != nil {
			errs = append(errs, set(v, name, data))
		} else if _, err := v.Read(name); !errors.Is(err, os.ErrNotExist) {
			gone = append(gone, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if name != bootOrder {
			put(name)
		}
	}
	if _, saved := s[bootOrder]; saved {
		put(bootOrder)
	}
	slices.Reverse(gone)
	for _, name := range gone {
		errs = append(errs, v.Remove(name))
	}
	return errors.Join(errs...)
}

// AddEntry makes or replaces the boot entry of that name, once, and puts it in
// its place (Boot.NewOrder); mac is the interface that was netbooted from. It
// returns the new order, for people, and what was there before. Nothing that is
// so already is written, and what was written is read back: there is firmware
// that says yes and forgets. With an error all is as it was.
func AddEntry(v Variables, name, mac string, p gpt.Partition, file string) (lines []string, before Saved, err error) {
	b, err := ReadBoot(v)
	if err != nil {
		return nil, nil, err
	}
	ours, others := b.Numbers(name)
	changed := []string{bootOrder, variable(ours)}
	for _, n := range others {
		changed = append(changed, variable(n))
	}
	if before, err = save(v, changed...); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err, before = errors.Join(err, before.Restore(v)), nil
		}
	}()
	option := LoadOption(name, p, file)
	order := b.NewOrder(ours, mac, others)
	for _, w := range []struct {
		name string
		data []byte
	}{{variable(ours), option}, {bootOrder, encodeOrder(order)}} {
		if err := set(v, w.name, w.data); err != nil {
			return nil, before, err
		}
	}
	entry, err := ParseEntry(option)
	if err != nil {
		return nil, before, err
	}
	b.Order, b.Entries[ours] = order, entry
	lines = b.Lines()
	for _, n := range others {
		// Nothing boots it any more; it only takes room.
		if err := v.Remove(variable(n)); err != nil {
			lines = append(lines, fmt.Sprintf("an older entry stays: %v", err))
		}
	}
	return lines, before, nil
}

func set(v Variables, name string, data []byte) error {
	if b, err := v.Read(name); err == nil && bytes.Equal(b, data) {
		return nil
	}
	if err := v.Write(name, data); err != nil {
		return err
	}
	if b, err := v.Read(name); err != nil {
		return fmt.Errorf("reading back: %w", err)
	} else if !bytes.Equal(b, data) {
		return fmt.Errorf("firmware variable %s: the firmware took it and has another value now", name)
	}
	return nil
}

func variable(n uint16) string { return fmt.Sprintf("Boot%04X", n) }
