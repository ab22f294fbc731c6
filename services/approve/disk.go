package approve

import (
	"fmt"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Occupied refuses an order to write over a disk, because what is on it was not
// confirmed as what may be lost.
type Occupied struct {
	Machine machine.ID
	Disk    machine.Disk
	Named   string // what was confirmed instead; "": nothing
	Order   string // "approve" or "retry"
}

func (o *Occupied) Error() string {
	text := fmt.Sprintf("machine %s: disk %s", o.Machine, machine.ListDisks([]machine.Disk{o.Disk}))
	switch {
	case o.Named == "":
		text += ": what is on it would be lost"
	default:
		text += fmt.Sprintf(": what was confirmed as lost is %s: look again", o.Named)
	}
	return text + fmt.Sprintf("; confirm it in the console, or give the same rackseed %s once more, with --erase %s", o.Order, shellWord(o.Disk.Contents))
}

// shellWord quotes a text so that a shell takes it as it is (POSIX section
// 2.2.2).
func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// Flags are the command line's flags for a hint that names one disk.
func Flags(h machine.DiskHint) string {
	var words []string
	for _, f := range []struct{ name, value string }{
		{"serial", h.Serial}, {"wwn", h.WWN}, {"model", h.Model}, {"transport", h.Transport}, {"path", h.Path},
	} {
		if f.value != "" {
			words = append(words, "--disk-"+f.name+" "+shellWord(f.value))
		}
	}
	return strings.Join(words, " ")
}

// confirmed is what may be lost on a disk: what is on it, if that was confirmed
// word for word or is granted already; "" for an empty disk.
func confirmed(id machine.ID, order string, d machine.Disk, granted, named string) (string, error) {
	switch {
	case named == "" && (d.Contents == machine.Empty || granted == d.Contents):
		return granted, nil
	case named == d.Contents && d.Contents == machine.Empty:
		return "", nil
	case named == d.Contents:
		return named, nil
	}
	return "", &Occupied{id, d, named, order}
}

// target is the disk to install on.
type target struct {
	disk machine.Disk
	hint machine.DiskHint // names the disk and no other
	by   string           // whose hint named it, in words; "": nobody's, it is the only one
	// brokenOff says that what is on it is what an install of this machine left
	// that was cut off.
	brokenOff bool
}

// chooseDisk finds the disk by the first hint of: the wish, the entry in the
// site file's list, the profile, and the install that a restart cut off.
func chooseDisk(v View, m machine.Machine, wish *machine.DiskHint, listed machine.ListedMachine, profile machine.Profile) (target, error) {
	if m.Inventory == nil {
		return target{}, fmt.Errorf("its installer has not reported its disks: netboot it")
	}
	var none machine.DiskHint
	hint, by := none, ""
	switch {
	case wish != nil:
		hint = *wish
	case listed.Disk != none:
		hint, by = listed.Disk, "the site file's list"
	case profile.Disk != none:
		hint, by = profile.Disk, fmt.Sprintf("profile %q", profile.Name)
	}
	cut, isCut := v.CutOff(m.ID)
	isCut = isCut && cut.Same
	if before := v.InstallIntent(m.ID); wish == nil && hint == none && isCut && before != nil {
		// Unless it is gone.
		if d, err := machine.ChooseDisk(m.Inventory.Disks, before.Disk); err == nil {
			hint, by = d.Exact(), "its install that was cut off"
		}
	}
	disk, err := machine.ChooseDisk(m.Inventory.Disks, hint)
	switch {
	case err != nil && by != "":
		return target{}, fmt.Errorf("%w (asked for by %s)", err, by)
	case err != nil:
		return target{}, err
	case disk.Contents == "":
		return target{}, fmt.Errorf("disk %s: its installer did not say what is on it: restart it", disk.Path)
	}
	if half, ok := v.HalfWritten(m.ID); ok && half == disk.Exact() {
		disk.Contents = machine.BrokenOff
		return target{disk, Exactly(m.Inventory.Disks, disk), by, true}, nil
	}
	left := isCut && cut.Writing && cut.Disk == disk.Exact() && leftOn(m, disk, cut, v.InstallIntent(m.ID))
	return target{disk, Exactly(m.Inventory.Disks, disk), by, left}, nil
}

// leftOn says whether what is on the disk that a cut-off install was to write is
// what that left, or what it found there if it did not come so far: empty, or what
// was confirmed. Anything else is somebody's.
func leftOn(m machine.Machine, d machine.Disk, cut state.CutOff, before *machine.Intent) bool {
	if !m.Inventory.Tells(d) {
		// Another disk may be at that path since the machine restarted, so that
		// only what is on it says that this is the one.
		return d.Contents == machine.BrokenOff
	}
	return machine.Left(d.Contents, cut.Name) || d.Contents == machine.Empty ||
		before != nil && before.Erase != "" && d.Contents == before.Erase
}

// Exactly is the hint that names one of disks and no other: with its path where
// several report the same serial number, as cheap disks and several paths to
// one disk do. It is for the installer that reported them, which is still
// running: paths do not change before it restarts.
func Exactly(disks []machine.Disk, d machine.Disk) machine.DiskHint {
	hint := d.Exact()
	for _, other := range disks {
		if other.Path != d.Path && hint.Matches(other) {
			hint.Path = d.Path
		}
	}
	return hint
}

// Retry completes a wish to the command that lets m's failed install begin
// again: on the same disk, or on the one that the wish names. Its error says
// why it cannot; it is an *Occupied as Decide's.
func Retry(v View, m machine.Machine, wish Wish) (state.IntentRetry, error) {
	no := func(format string, args ...any) (state.IntentRetry, error) {
		return state.IntentRetry{}, fmt.Errorf("machine %s: "+format, append([]any{m.ID}, args...)...)
	}
	intent := v.InstallIntent(m.ID)
	if why := machine.NoRetry(machine.Orders{Install: intent}); why != "" {
		return no("%s", why)
	}
	switch {
	case wish.Name != "" || wish.Profile != "" || wish.Address.IsValid():
		return no("a retry keeps name, profile and address: to change them revoke install intent %s, and approve it anew", intent.ID)
	case wish.Disk == nil && wish.Erase == "":
		return state.IntentRetry{Intent: intent.ID}, nil
	}
	hint := intent.Disk
	if wish.Disk != nil {
		hint = *wish.Disk
	}
	t, err := chooseDisk(v, m, &hint, machine.ListedMachine{}, machine.Profile{})
	if err != nil {
		return no("%w", err)
	}
	if t.hint == intent.Disk && wish.Erase == "" {
		// What may be lost there was said at approval, and what the failed
		// attempt left may be lost too.
		return state.IntentRetry{Intent: intent.ID}, nil
	}
	erase, err := confirmed(m.ID, "retry", t.disk, "", wish.Erase)
	if err != nil {
		return state.IntentRetry{}, err
	}
	return state.IntentRetry{Intent: intent.ID, Disk: &t.hint, Erase: erase}, nil
}
