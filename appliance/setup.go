package appliance

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/rackseed/rackseed/appliance/desk"
	"github.com/rackseed/rackseed/appliance/form"
	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

// carrierTime is how long links that were just brought up have for a carrier.
const carrierTime = 5 * time.Second

// showSite shows which site file is in force.
func (a *appliance) showSite(now setup.InForce) {
	for _, p := range now.Problems {
		a.log.Warn("site file", "problem", p)
	}
	a.mu.Lock()
	a.site = now
	a.mu.Unlock()
	a.change(func(v *screen.View) {
		v.MemoryOnly, v.SiteMissing = now.Site.MemoryOnly, now.Source == setup.Nowhere && now.GivenMissing
		v.SiteFile = siteText(now, a.holder)
	})
}

// siteText says which site file is in force, or how to come by one. holder is
// the terminal on which the setup form is filled in.
func siteText(now setup.InForce, holder string) string {
	text := ""
	switch {
	case now.Source == setup.Given:
		return "site.yaml on the stick is in force."
	case now.Source == setup.Kept && now.GivenMissing:
		text = "the one kept in the data partition is in force: made by setup, or the stick's last one. A site.yaml on the stick would replace it."
	case now.Source == setup.Kept:
		text = "site.yaml on the stick has faults, said below; the one kept in the data partition stays in force. Correct it on the stick's partition RACKSEED and start again."
	case now.GivenMissing:
		text = "THERE IS NONE, so no machine is served."
	default:
		text = "site.yaml on the stick has faults, said below, so no machine is served. Correct it on the stick's partition RACKSEED and start again."
	}
	switch {
	case holder != "":
		return fmt.Sprintf("%s The setup form is being filled in on %s; type %s and press Enter to take it over.", text, holder, desk.Open)
	case now.Source == setup.Nowhere:
		return fmt.Sprintf("%s To set the site up type %s and press Enter, here or on any serial port.", text, desk.Open)
	}
	return fmt.Sprintf("%s To change it type %s and press Enter.", text, desk.Open)
}

// world is what the setup form finds out and does.
type world struct{ *appliance }

var _ desk.World = world{}

// Begin says how the form begins. What is typed before the first look at the
// stick finds no site file, as it is.
func (w world) Begin() (form.Options, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.site.Source == setup.Given {
		return form.Options{}, setup.ErrGiven.Error() + "."
	}
	if w.site.Source == "" {
		return form.Options{}, "The stick is still being looked for: try again in a few seconds."
	}
	return form.Options{Volatile: w.view.Lost, Before: w.site.Site}, ""
}

// Links looks at all links. They are brought up for it.
func (w world) Links(ctx context.Context) ([]setup.Found, error) {
	there, err := link.List()
	if err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, carrierTime)
	defer cancel()
	var all sync.WaitGroup
	for _, l := range there {
		if err := link.Up(l.Name); err != nil {
			return nil, err
		}
		all.Go(func() { _ = link.WaitCarrier(limit, l.Name) }) // what has none is listed so
	}
	all.Wait()
	links, err := SetupLinks()
	if err != nil {
		return nil, err
	}
	return setup.Look(ctx, links), nil
}

// SetupLinks lists this machine's links for setup.
func SetupLinks() ([]setup.Link, error) {
	there, err := link.List()
	if err != nil {
		return nil, err
	}
	links := make([]setup.Link, len(there))
	for i, l := range there {
		links[i] = setup.Link{Name: l.Name, MAC: machine.MAC(l.MAC.String()), Driver: l.Driver, Mbit: l.Mbit, Carrier: l.Carrier}
	}
	return links, nil
}

// Network looks what answers DHCP in a VLAN. Its interface is made for it.
func (w world) Network(ctx context.Context, l setup.Link, vlan int) ([]setup.Offer, error) {
	name := machine.SiteLink{VLAN: vlan}.InterfaceName(l.Name)
	w.mu.Lock()
	w.made[name] = true
	w.mu.Unlock()
	if err := link.AddVLAN(l.Name, name, vlan); err != nil {
		return nil, err
	}
	limit, cancel := context.WithTimeout(ctx, carrierTime)
	defer cancel()
	if err := link.WaitCarrier(limit, name); err != nil {
		return nil, err
	}
	return setup.Probe(ctx, name)
}

func (w world) Owners(ctx context.Context, l setup.Link, vlan int, addresses []netip.Addr) (map[netip.Addr]string, error) {
	return setup.Owners(ctx, machine.SiteLink{VLAN: vlan}.InterfaceName(l.Name), addresses...)
}

func (w world) KeepLink(l machine.SiteLink) error {
	defer w.lookNow()
	return w.files.KeepLink(l)
}

func (w world) KeepSite(text []byte) error {
	defer w.lookNow()
	_, err := w.files.Keep(text)
	return err
}

// Holder shows who fills the form in. When it is left, what was made for it
// goes.
func (w world) Holder(name string) {
	w.change(func(v *screen.View) {
		w.holder = name
		v.SiteFile = siteText(w.site, name)
	})
	if name == "" {
		w.lookNow()
	}
}

func (a *appliance) lookNow() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}
