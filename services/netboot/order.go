package netboot

import (
	"errors"
	"fmt"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// Orders is what of the state an order is decided from; state.View has it.
type Orders interface {
	Site() (machine.Site, bool)
	Machine(machine.ID) (machine.Machine, bool)
	Profile(machine.ID) (machine.Profile, bool)
	InstallIntent(machine.ID) *machine.Intent
	RescueIntent(machine.ID) *machine.Intent
	Bootstrap() *machine.Intent
	EndedBootstrap() *machine.Intent
	Joining(now time.Time) machine.ID
}

// installerOrder decides what an installer does now. m is the machine whose
// newest session asks; files lists an image's files. An OrderLeave is only a
// proposal: it holds once state.SessionLeave is committed.
func installerOrder(v Orders, m machine.Machine, now time.Time, files func(manifest string) ([]wire.File, error)) wire.Order {
	wait := func(reason string) wire.Order { return wire.Order{Kind: wire.OrderWait, Reason: reason} }
	site, _ := v.Site()
	if r := v.RescueIntent(m.ID); r != nil && r.Session == m.Session.ID {
		return wire.Order{Kind: wire.OrderRescue, Intent: r.ID, Reason: "an operator asked for a rescue shell", SSHKeys: site.SSHKeys}
	}
	intent := v.InstallIntent(m.ID)
	if intent == nil || intent.Session != m.Session.ID {
		until := m.Session.Opened.Add(site.Discovery.WaitTime())
		if !now.Before(until) || !m.Session.Left.IsZero() {
			return wire.Order{Kind: wire.OrderLeave, Reason: "nobody approved it within " + site.Discovery.WaitTime().String() + ": it goes back to its own disk"}
		}
		order := wait("waiting for approval in the console")
		order.Until = until
		return order
	}
	switch intent.Status {
	case machine.IntentRevoked:
		return wire.Order{Kind: wire.OrderRevoked, Intent: intent.ID, Reason: "the install was revoked: " + intent.Reason}
	case machine.IntentFailed:
		return wait("the install failed: " + intent.Reason + "; retry it in the console")
	case machine.IntentDone:
		return wait("the install is done: reboot")
	}
	profile, ok := v.Profile(m.ID)
	if !ok {
		return wait("the profile of its approval is missing; revoke the install and approve again")
	}
	image, err := files(intent.Image)
	if err != nil {
		return wait(fmt.Sprintf("node image %s is not available: %v", intent.Image, err))
	}
	arguments := append([]string(nil), profile.KernelArguments...)
	if site.Emulated {
		arguments = append(arguments, machine.EmulatedArguments...)
	}
	return wire.Order{
		Kind: wire.OrderInstall, Intent: intent.ID, Epoch: intent.Epoch, Disk: intent.Disk, Erase: intent.Erase,
		Image: &wire.NodeImage{Digest: intent.Image, Files: image}, KernelArguments: arguments,
	}
}

// mayFetchIgnition says why the machine's newest session may not have its
// Ignition now, or nil. It may from the claim until the install ends, as often
// as it needs: an answer can be lost.
func mayFetchIgnition(v Orders, m machine.Machine) (*machine.Intent, error) {
	intent := v.InstallIntent(m.ID)
	switch {
	case intent == nil || m.Session == nil || intent.Session != m.Session.ID:
		return nil, errors.New("no install is approved for this installer session")
	case intent.Status != machine.IntentClaimed:
		return nil, fmt.Errorf("install intent %s is %s: the Ignition is there from the claim until the install ends", intent.ID, intent.Status)
	}
	return intent, nil
}

// NodeOrder decides what a node that is not in the cluster does now. A NodeInit
// is only a proposal: it holds once state.BootstrapClaim is committed, a NodeJoin
// once state.JoinClaim is.
func NodeOrder(v Orders, m machine.Machine, now time.Time) wire.NodeOrder {
	wait := func(reason string) wire.NodeOrder { return wire.NodeOrder{Kind: wire.NodeWait, Reason: reason} }
	name := func(id machine.ID) string {
		other, _ := v.Machine(id) // it may be forgotten
		return nameOf(machine.Machine{ID: id, Name: other.Name})
	}
	b := v.Bootstrap()
	switch {
	case b == nil:
		return wait(machine.NoStart(v.EndedBootstrap(), name))
	case b.Machine == m.ID && b.Status == machine.IntentDone:
		return wait("this machine started the cluster already; kubeadm init never runs twice")
	case b.Machine == m.ID && b.Live():
		return wire.NodeOrder{Kind: wire.NodeInit, Intent: b.ID}
	}
	if b.Live() {
		return wait("waiting for " + name(b.Machine) + " to start the cluster")
	}
	// etcd's members change one by one.
	if p, ok := v.Profile(m.ID); ok && p.Role == machine.RoleControlPlane {
		if other := v.Joining(now); other != "" && other != m.ID {
			return wait("control planes join one at a time: waiting for " + name(other))
		}
	}
	return wire.NodeOrder{Kind: wire.NodeJoin}
}
