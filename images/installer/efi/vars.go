package efi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	// immutable is FS_IMMUTABLE_FL of linux/fs.h.
	immutable = 0x10
)

// Variables is a mounted efivarfs.
type Variables struct{ Dir string }

// System is where the kernel's is mounted.
var System = Variables{"/sys/firmware/efi/efivars"}

// Read returns a global variable's data; the error wraps os.ErrNotExist when
// there is none.
func (v Variables) Read(name string) ([]byte, error) {
	b, err := os.ReadFile(v.path(name))
	if err != nil {
		return nil, fmt.Errorf("firmware variable %s: %w", name, err)
	}
	if len(b) < 4 {
		return nil, fmt.Errorf("firmware variable %s: has no attributes", name)
	}
	return b[4:], nil
}

// Write sets it, in one write as efivarfs wants.
func (v Variables) Write(name string, data []byte) (err error) {
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

// unlock clears the immutable flag by which the kernel guards most variables
// against rm -rf.
func (v Variables) unlock(name string) error {
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

func (v Variables) path(name string) string { return filepath.Join(v.Dir, name+"-"+global) }

// SecureBoot says whether the firmware enforces signatures.
func (v Variables) SecureBoot() bool {
	b, err := v.Read("SecureBoot")
	return err == nil && len(b) == 1 && b[0] == 1
}

// AddEntry makes or replaces the boot entry of that name and puts it second
// behind the entry of this boot. It returns the new order, for people.
func (v Variables) AddEntry(name string, p gpt.Partition, file string) (string, error) {
	entries, err := v.entries()
	if err != nil {
		return "", err
	}
	number := Free(entries, name)
	if err := v.Write(fmt.Sprintf("Boot%04X", number), LoadOption(name, p, file)); err != nil {
		return "", err
	}
	var order []uint16
	b, err := v.Read("BootOrder")
	if err == nil {
		order, err = ParseOrder(b)
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return "", err
	}
	current := number
	if b, err := v.Read("BootCurrent"); err == nil && len(b) == 2 {
		current = binary.LittleEndian.Uint16(b)
	}
	order = NewOrder(order, current, number)
	if err := v.Write("BootOrder", EncodeOrder(order)); err != nil {
		return "", err
	}
	entries[number] = name
	var text []string
	for _, n := range order {
		text = append(text, fmt.Sprintf("%04X %s", n, entries[n]))
	}
	return strings.Join(text, ", "), nil
}

// entries lists Boot#### with their names; one that cannot be read has none,
// but is taken.
func (v Variables) entries() (map[uint16]string, error) {
	files, err := os.ReadDir(v.Dir)
	if err != nil {
		return nil, fmt.Errorf("firmware variables: %w", err)
	}
	entries := map[uint16]string{}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), "-"+global)
		hex, isBoot := strings.CutPrefix(name, "Boot")
		n, err := strconv.ParseUint(hex, 16, 16)
		if !ok || !isBoot || len(hex) != 4 || err != nil {
			continue
		}
		entries[uint16(n)] = ""
		if b, err := v.Read(name); err == nil {
			if d, err := Description(b); err == nil {
				entries[uint16(n)] = d
			}
		}
	}
	return entries, nil
}
