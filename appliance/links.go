package appliance

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

// assignment is what one link gets.
type assignment struct {
	card    string // the link
	name    string // the interface that carries the address: the link, or a VLAN's on it
	vlan    int    // 0: untagged
	address netip.Prefix
	gateway netip.Addr // zero: none
}

// chooseLinks finds the links that the site file names among those that are
// there. missing tells, for people, which are not there (yet). A link that is
// not named gets nothing.
func chooseLinks(wanted []machine.SiteLink, there []link.Link) (found []assignment, missing []string) {
	names := make([]string, 0, len(there))
	for _, l := range there {
		names = append(names, l.Name+" "+l.MAC.String())
	}
	have := "there are none"
	if len(names) > 0 {
		have = "there are " + strings.Join(names, ", ")
	}
	for _, want := range wanted {
		a := assignment{vlan: want.VLAN, address: want.Address, gateway: want.Gateway}
		for _, l := range there {
			if want.Interface != "" && l.Name == want.Interface || want.MAC != "" && strings.EqualFold(l.MAC.String(), string(want.MAC)) {
				a.card, a.name = l.Name, want.InterfaceName(l.Name)
			}
		}
		if a.name == "" {
			missing = append(missing, fmt.Sprintf("link %s of the site file is not in this machine; %s", linkWord(want), have))
			continue
		}
		found = append(found, a)
	}
	return found, missing
}

// superfluous are the assignments that are not wanted any more, of links that
// are still there.
func superfluous(have, want []assignment, there []link.Link) (undo []assignment) {
	for _, a := range have {
		if !slices.Contains(want, a) && slices.ContainsFunc(there, func(l link.Link) bool { return l.Name == a.card }) {
			undo = append(undo, a)
		}
	}
	return undo
}

func linkWord(l machine.SiteLink) string {
	if l.Interface != "" {
		return l.Interface
	}
	return string(l.MAC)
}

// apply gives a link its address.
func (a assignment) apply() error {
	err := link.Up(a.card)
	if err == nil && a.vlan != 0 {
		err = link.AddVLAN(a.card, a.name, a.vlan)
	}
	if err != nil {
		return err
	}
	if err := link.SetAddress(a.name, a.address, 0); err != nil {
		return err
	}
	if a.gateway.IsValid() {
		return link.SetDefaultRoute(a.name, a.gateway)
	}
	return nil
}

// undo takes from a link what apply gave it.
func (a assignment) undo() error {
	if a.vlan != 0 {
		return link.Remove(a.name)
	}
	return link.Clear(a.name)
}

func (a assignment) String() string { return a.name + " " + a.address.String() }

// loopback brings up lo, which nothing else does in an initramfs.
func loopback() error {
	if _, err := net.InterfaceByName("lo"); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return link.Up("lo")
}

// linkKeeper keeps the links as the site file in force says.
type linkKeeper struct {
	*appliance
	have []assignment
	up   map[string]bool // links that were brought up without an address
	told []string
}

// links keeps the links as the site file in force says, or while there is none
// as setup noted, until ctx ends. set is closed when nothing is missing for the
// first time, or there is nothing to set.
func (a *appliance) links(ctx context.Context, set chan<- struct{}) {
	k := &linkKeeper{appliance: a, up: map[string]bool{}}
	watch := setup.Watch{Files: a.files}
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for first := true; ; {
		now, changed := watch.Look()
		if changed {
			a.showSite(now)
		}
		if k.keep(now) && first {
			first = false
			close(set)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-a.kick:
		}
	}
}

// keep does what there is to do now, and says whether nothing is missing.
func (k *linkKeeper) keep(now setup.InForce) (complete bool) {
	wanted := now.Site.Links
	if now.Source == setup.Nowhere {
		l, ok, err := k.files.ReadLink()
		if err != nil {
			k.log.Warn(err.Error())
		}
		if ok {
			wanted = []machine.SiteLink{l}
		}
	}
	there, err := link.List()
	if err != nil {
		k.log.Warn("looking for links", "error", err)
		return false
	}
	if now.Source == setup.Nowhere {
		k.bringUp(there)
	}
	found, missing := chooseLinks(wanted, there)
	for _, a := range superfluous(k.have, found, there) {
		if err := a.undo(); err != nil {
			k.log.Warn("a link that is not wanted any more", "error", err)
		}
	}
	k.have = slices.DeleteFunc(k.have, func(a assignment) bool { return !slices.Contains(found, a) })
	for _, a := range found {
		if slices.Contains(k.have, a) {
			continue
		}
		if err := a.apply(); err != nil {
			missing = append(missing, fmt.Sprintf("link %s: %v", a.name, err))
			continue
		}
		k.have = append(k.have, a)
		k.log.Info("link is set up", "link", a.name, "address", a.address)
	}
	k.forgetMade(found)
	k.show(missing)
	return len(missing) == 0
}

// forgetMade removes the VLAN interfaces that the setup form looked around by,
// once it is left; those that are wanted are kept.
func (k *linkKeeper) forgetMade(found []assignment) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.holder != "" {
		return
	}
	for name := range k.made {
		if !slices.ContainsFunc(found, func(a assignment) bool { return a.name == name }) {
			if err := link.Remove(name); err != nil {
				k.log.Warn("an interface of setup stays", "error", err)
			}
		}
	}
	clear(k.made)
}

// bringUp brings links up, so that it can be seen which have a carrier. They
// get no address, and nothing is sent for us.
func (k *linkKeeper) bringUp(there []link.Link) {
	for _, l := range there {
		if k.up[l.Name] {
			continue
		}
		if err := link.Up(l.Name); err != nil {
			k.log.Warn("a link stays down", "error", err)
		}
		k.up[l.Name] = true
	}
}

func (k *linkKeeper) show(missing []string) {
	k.change(func(v *screen.View) {
		v.Links, v.Own = nil, nil
		for _, a := range k.have {
			v.Links, v.Own = append(v.Links, a.String()), append(v.Own, a.address.Addr().String())
		}
		v.Links = append(v.Links, missing...)
	})
	if !slices.Equal(missing, k.told) {
		for _, m := range missing {
			k.log.Warn(m)
		}
		k.told = missing
	}
}
