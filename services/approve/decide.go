// Package approve decides how a machine is approved: its name, profile,
// address, disk and image. Operators and the site file's list come through the
// same decision.
package approve

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// ImageRef names the node image among the published ones.
const ImageRef = "node"

// View is what of the state an approval is decided from; state.View has it.
type View interface {
	Site() (machine.Site, bool)
	Machines() []machine.Machine
	InstallIntent(machine.ID) *machine.Intent
	Bootstrap() *machine.Intent
	LeaseByMAC(machine.MAC) (machine.Lease, bool)
	Lease(netip.Addr) (machine.Lease, bool)
	Image(ref string) (machine.Image, bool)
	CutOff(machine.ID) (state.CutOff, bool)
	ListUsed(machine.ListedMachine) (machine.ID, bool)
}

// Wish is what whoever approves asks for. What is zero is chosen.
type Wish struct {
	Name    string
	Profile string
	Address netip.Addr
	Disk    *machine.DiskHint
}

// Fresh is what an approval needs and no rule can give: randomness.
type Fresh struct {
	Intent, Bootstrap string // IDs of the two intents
	NodeSeed          []byte // ed25519 seed, 32 bytes
}

// NewFresh takes it from the system.
func NewFresh() Fresh {
	b := make([]byte, 16+32)
	rand.Read(b) // never fails, by its contract
	return Fresh{"i-" + hex.EncodeToString(b[:8]), "b-" + hex.EncodeToString(b[8:16]), b[16:]}
}

// Decide completes a wish to the command that approves m. Its error says why
// m cannot be approved, and what to do about it.
//
// What the wish leaves out comes from the site file's list, then from what the
// machine had before (so that a reinstalled node keeps its name and address),
// then from the rules: node-N, the profile that the cluster needs next, the
// lowest free address.
func Decide(v View, m machine.Machine, wish Wish, fresh Fresh) (state.MachineApprove, error) {
	no := func(format string, args ...any) (state.MachineApprove, error) {
		return state.MachineApprove{}, fmt.Errorf("machine %s: "+format, append([]any{m.ID}, args...)...)
	}
	site, ok := v.Site()
	if !ok {
		return no("there is no valid site file yet: mend it first")
	}
	if m.Session == nil {
		return no("its installer has not reported yet: netboot it")
	}
	if intent := v.InstallIntent(m.ID); intent.Live() {
		return no("install intent %s is %s: it is approved already; revoke that first", intent.ID, intent.Status)
	}
	if intent := v.InstallIntent(m.ID); intent != nil && intent.Status == machine.IntentDone {
		return no("it is installed (intent %s), and approving it again would write over its disk: to install it anew, forget it first, then netboot it", intent.ID)
	}
	image, ok := v.Image(ImageRef)
	if !ok {
		return no("no node image is published yet: wait until the boot service has read its images")
	}
	listed, _ := site.Listed(m)

	b := v.Bootstrap()
	// The one that may start the cluster stays that one when its install was
	// cut off: nobody else ever may.
	starts := b.Live() && b.Machine == m.ID
	profile, err := chooseProfile(site, b == nil || starts, first(wish.Profile, listed.Profile), m.Profile)
	if err != nil {
		return no("%w", err)
	}
	if starts && profile.Role != machine.RoleControlPlane {
		return no("it is the one that starts the cluster, which a %s cannot (profile %q): choose a profile of role %s, or revoke bootstrap intent %s first, which is possible while it is open (it is %s)",
			profile.Role, profile.Name, machine.RoleControlPlane, b.ID, b.Status)
	}
	t := takenBy(site, v.Machines(), m.ID)
	name, err := t.chooseName(first(wish.Name, listed.Name), m.Name)
	if err != nil {
		return no("%w", err)
	}
	leased := func(a netip.Addr) bool { // to somebody else; also if it has run out, to be sure
		l, ok := v.Lease(a)
		return ok && !slices.Contains(m.MACs, l.MAC)
	}
	address, err := t.chooseAddress(site, leased, first(wish.Address, listed.Address), leaseOf(v, m), m.Address, reservedFor(site, m))
	if err != nil {
		return no("%w", err)
	}
	disk := listed.Disk
	if wish.Disk != nil {
		disk = *wish.Disk
	}
	return state.MachineApprove{
		Machine: m.ID, Session: m.Session.ID, Intent: fresh.Intent, Name: name, Profile: profile,
		Address: address, Image: image.Digest, Disk: disk, NodeSeed: fresh.NodeSeed, Bootstrap: fresh.Bootstrap,
	}, nil
}

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
// an operator approves, also when the machine was forgotten meanwhile. It
// approves onto empty disks alone. An install that a restart of the very same
// machine cut off was never completed, so the list's word still stands, on the
// disk that is half written.
func ByList(v View, m machine.Machine) Verdict {
	no := func(format string, args ...any) Verdict { return Verdict{Reason: fmt.Sprintf(format, args...)} }
	person := func(format string, args ...any) Verdict {
		return Verdict{Reason: fmt.Sprintf(format, args...) + ": a person must approve it", Person: true}
	}
	site, ok := v.Site()
	if !ok {
		return no("there is no valid site file")
	}
	listed, ok := site.Listed(m)
	switch {
	case !ok:
		return no("it is not listed in the site file")
	case !listed.Approve:
		return no("the site file lists it without approve")
	case m.Session == nil || m.Inventory == nil || m.Phase != machine.PhaseWaiting:
		return no("its installer does not wait for approval")
	}
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
		if cut.Writing {
			return unused(v, listed, person)
		}
	}
	if d := m.Inventory.Occupied(listed.Disk); d != nil {
		return person("disk %s is not empty (%s)", d.Path, d.Contents)
	}
	return unused(v, listed, person)
}

// unused approves by an entry that has led to no install yet.
func unused(v View, listed machine.ListedMachine, person func(string, ...any) Verdict) Verdict {
	if by, used := v.ListUsed(listed); used {
		return person("its entry was used by machine %s, which was installed", by)
	}
	return Verdict{Approve: true}
}

// builtin profiles are there where the site file has none.
var builtin = []machine.Profile{
	{Name: string(machine.RoleControlPlane), Role: machine.RoleControlPlane},
	{Name: string(machine.RoleWorker), Role: machine.RoleWorker},
}

// chooseProfile finds the profile named; for an empty name the one that the
// machine had before, if there still is one; else the one that the cluster
// needs next: a control plane if control, else a worker. The one named like
// the role is preferred to others of that role.
func chooseProfile(site machine.Site, control bool, name, before string) (machine.Profile, error) {
	profiles := site.Profiles
	if len(profiles) == 0 {
		profiles = builtin
	}
	if name != "" {
		for _, p := range profiles {
			if p.Name == name {
				return p, nil
			}
		}
		var names []string
		for _, p := range profiles {
			names = append(names, p.Name)
		}
		return machine.Profile{}, fmt.Errorf("profile %q is not in the site file, which has %s", name, strings.Join(names, ", "))
	}
	for _, p := range profiles {
		if before != "" && p.Name == before {
			return p, nil
		}
	}
	role := machine.RoleWorker
	if control {
		role = machine.RoleControlPlane
	}
	var found *machine.Profile
	for i, p := range profiles {
		if p.Role == role && (found == nil || p.Name == string(role)) {
			found = &profiles[i]
		}
	}
	if found == nil {
		return machine.Profile{}, fmt.Errorf("the site file has no profile of role %s: name a profile", role)
	}
	return *found, nil
}

func (t taken) chooseName(wish, before string) (string, error) {
	switch {
	case wish != "" && !machine.IsHostName(wish):
		return "", fmt.Errorf("name %q: lower-case letters, digits and hyphens are expected, 63 at most", wish)
	case wish != "" && t.names[wish] != "":
		return "", fmt.Errorf("name %q is %s", wish, t.names[wish])
	case wish != "":
		return wish, nil
	case before != "" && t.names[before] == "":
		return before, nil
	}
	for n := 1; ; n++ {
		if name := fmt.Sprintf("node-%d", n); t.names[name] == "" {
			return name, nil
		}
	}
}

func first[T comparable](of ...T) T {
	var zero T
	for _, v := range of {
		if v != zero {
			return v
		}
	}
	return zero
}
