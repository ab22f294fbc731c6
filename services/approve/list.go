package approve

import (
	"fmt"
	"slices"

	"github.com/rackseed/rackseed/services/machine"
)

// Verdict is what the site file's list says of a machine now.
type Verdict struct {
	Approve bool
	Reason  string // why not
	// Person says that the list would have approved it, if it were safe: only
	// a person does, and should be told.
	Person bool
}

// ByList says whether the site file's list approves m now. An entry does once:
// after an install that was completed as its, or that an operator stopped, only
// an operator approves, also when the machine was forgotten meanwhile.
//
// It erases nothing. It approves onto the disk that the entry or the profile
// names if that is empty, and where they name none if every disk of the machine
// is. An install that a restart of the very same machine cut off was never
// completed, so the list's word still stands, on the disk that is half written
// and on no other.
func ByList(v View, m machine.Machine) Verdict {
	no := func(format string, args ...any) Verdict { return Verdict{Reason: fmt.Sprintf(format, args...)} }
	person := func(format string, args ...any) Verdict {
		return Verdict{Reason: fmt.Sprintf(format, args...) + ": a person must approve it", Person: true}
	}
	site, ok := v.Site()
	if !ok {
		return no("there is no valid site file")
	}
	if m.Session == nil || m.Inventory == nil || m.Phase != machine.PhaseWaiting {
		return no("its installer does not wait for approval")
	}
	listed, ok := site.Listed(m)
	if !ok {
		for _, l := range site.Machines {
			if l.Approve && l.MAC != "" && slices.Contains(m.MACs, l.MAC) {
				return person("the entry with its hardware address %s is for the machine with UUID %s, and its own is %s", l.MAC, l.UUID, m.UUID)
			}
		}
		return no("it is not listed in the site file")
	}
	if !listed.Approve {
		return no("the site file lists it without approve")
	}
	writing := false
	if intent := v.InstallIntent(m.ID); intent != nil {
		cut, is := v.CutOff(m.ID)
		switch {
		case intent.Live():
			return no("install intent %s is %s", intent.ID, intent.Status)
		case intent.Status == machine.IntentDone:
			return no("it was installed once by intent %s", intent.ID)
		case !is:
			return no("install intent %s was revoked: %s", intent.ID, intent.Reason)
		case !cut.Same:
			return person("its install was cut off, and what is there now reports another UUID, serial number or hardware addresses")
		}
		writing = cut.Writing
	}
	profile, err := ProfileFor(v, m, "")
	if err != nil {
		return person("%v", err)
	}
	t, err := chooseDisk(v, m, nil, listed, profile.Profile)
	if err != nil {
		return person("%v", err)
	}
	if writing && !t.brokenOff {
		cut, _ := v.CutOff(m.ID)
		if cut.Disk == t.disk.Exact() {
			return person("its install was cut off while it wrote the disk with %s, and %s holds %s now", cut.Disk, t.disk.Path, t.disk.Contents)
		}
		return person("its install was cut off while it wrote the disk with %s, and the one to install on is %s now", cut.Disk, t.disk.Path)
	}
	if t.disk.Contents != machine.Empty && !t.brokenOff {
		return person("disk %s is not empty (%s)", t.disk.Path, t.disk.Contents)
	}
	if t.by == "" {
		if d := m.Inventory.Occupied(machine.DiskHint{}); d != nil {
			return person("disk %s is not empty (%s), and neither the list nor the profile says which disk is meant", d.Path, d.Contents)
		}
	}
	if by, used := v.ListUsed(listed); used {
		return person("its entry was used by machine %s, which was installed", by)
	}
	return Verdict{Approve: true}
}
