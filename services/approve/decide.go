// Package approve decides how a machine is approved: its name, profile,
// address, disk and image, and what may be lost on that disk. Operators and the
// site file's list come through the same decision.
package approve

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"

	"github.com/rackseed/rackseed/services/keyring"
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
	HalfWritten(machine.ID) (machine.DiskHint, bool)
	ListUsed(machine.ListedMachine) (machine.ID, bool)
	SealSecret(name string, value []byte) (keyring.Sealed, error)
}

// Wish is what whoever approves asks for. What is zero is chosen.
type Wish struct {
	Name    string
	Profile string
	Address netip.Addr
	Disk    *machine.DiskHint // empty: the only one that can be installed on
	// Erase is what is on the disk and may be lost, word for word as its
	// Contents. It is never chosen.
	Erase string
	// Session is the installer session that somebody looked at; "": any. What is
	// approved is what was seen, and no installer that came since.
	Session string
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

// Plan is an approval as it would be.
type Plan struct {
	// Command approves the machine, once what Confirm says is confirmed.
	Command state.MachineApprove
	Profile Choice
	Disk    machine.Disk
	// Confirm is what is on the disk and would be lost, in the words of its
	// Contents; "": nothing that anybody must confirm.
	Confirm string
	// Starts says that the machine would start the cluster.
	Starts bool
}

// Decide completes a wish to the command that approves m. Its error says why m
// cannot be approved, and what to do about it; it is an *Occupied if what is on
// the disk was not confirmed as what may be lost.
func Decide(v View, m machine.Machine, wish Wish, fresh Fresh) (state.MachineApprove, error) {
	p, err := Prepare(v, m, wish, fresh)
	if err != nil {
		return state.MachineApprove{}, err
	}
	return p.Confirmed(wish.Erase)
}

// Confirmed is the plan's command, where erase is what was confirmed as what may
// be lost; else an *Occupied.
func (p Plan) Confirmed(erase string) (command state.MachineApprove, err error) {
	command = p.Command
	command.Erase, err = confirmed(command.Machine, "approve", p.Disk, command.Erase, erase)
	if err != nil {
		return state.MachineApprove{}, err
	}
	return command, nil
}

// Prepare completes a wish to a plan, without looking at what the wish confirms.
//
// What the wish leaves out comes from the site file's list, then from what the
// machine had before (so that a reinstalled node keeps its name and address),
// then from the rules: node-N, the first profile whose selector matches or the
// one that the cluster needs next, the lowest free address. The disk is one of
// the inventory's, found by the hint of the wish, else of the list, else of the
// profile, so that the installer finds nothing that is not decided.
func Prepare(v View, m machine.Machine, wish Wish, fresh Fresh) (Plan, error) {
	no := func(format string, args ...any) (Plan, error) {
		return Plan{}, fmt.Errorf("machine %s: "+format, append([]any{m.ID}, args...)...)
	}
	site, ok := v.Site()
	if !ok {
		return no("there is no valid site file yet: mend it first")
	}
	if why := machine.NoApprove(m, machine.Orders{Install: v.InstallIntent(m.ID)}); why != "" {
		return no("%s", why)
	}
	if wish.Session != "" && wish.Session != m.Session.ID {
		return no("its installer restarted since it was looked at (session %.40s then, %s now): look again, and approve that", wish.Session, m.Session.ID)
	}
	image, ok := v.Image(ImageRef)
	if !ok {
		return no("no node image is published yet: wait until the boot service has read its images")
	}
	listed, _ := site.Listed(m)

	b := v.Bootstrap()
	// The one that may start the cluster stays that one when its install was
	// cut off: nobody else may, until what it began is abandoned.
	starts := b.Live() && b.Machine == m.ID
	profile, err := ProfileFor(v, m, wish.Profile)
	if err != nil {
		return no("%w", err)
	}
	control := profile.Role == machine.RoleControlPlane
	if starts && !control {
		return no("it is the one that starts the cluster, which a %s cannot (profile %q: %s): choose a profile of role %s, or revoke bootstrap intent %s first, which is possible while it is open (it is %s)",
			profile.Role, profile.Name, profile.Why, machine.RoleControlPlane, b.ID, b.Status)
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
	target, err := chooseDisk(v, m, wish.Disk, listed, profile.Profile)
	if err != nil {
		return no("%w", err)
	}
	if len(fresh.NodeSeed) != ed25519.SeedSize {
		return no("the node key's seed has %d bytes, %d are expected", len(fresh.NodeSeed), ed25519.SeedSize)
	}
	seed, err := v.SealSecret(state.NodeSecret(m.ID), fresh.NodeSeed)
	if err != nil {
		return no("%w", err)
	}
	p := Plan{
		Command: state.MachineApprove{
			Machine: m.ID, Session: m.Session.ID, Intent: fresh.Intent, Name: name, Profile: profile.Profile, Address: address,
			NodeKey: ed25519.NewKeyFromSeed(fresh.NodeSeed).Public().(ed25519.PublicKey),
			Image:   image.Digest, Disk: target.hint, NodeSeed: seed, Bootstrap: fresh.Bootstrap,
		},
		Profile: profile, Disk: target.disk, Starts: control && (b == nil || starts),
	}
	switch {
	case target.disk.Contents == machine.Empty:
	case target.brokenOff:
		p.Command.Erase = target.disk.Contents
	default:
		p.Confirm = target.disk.Contents
	}
	return p, nil
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
