// Package setup is what a site needs before it has a site file: which links
// there are and what answers DHCP on them, proposals of addresses that are
// free, a site file made of a person's answers, and where it is kept. The
// appliance's form and the console's wizard are two faces of it.
package setup

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/address"
	"github.com/rackseed/rackseed/services/machine"
)

// Service is setup as the API offers it. The fields are set before.
type Service struct {
	Files Files
	// List lists this machine's links.
	List func() ([]Link, error)

	mu    sync.Mutex // held while links are looked at: one look serves all who ask
	found []Found
	at    time.Time
}

// foundTime is how long what was found on the links is given to others who ask.
const foundTime = 10 * time.Second

// Links lists this machine's links with what answers DHCP there. It takes
// ProbeTime, unless somebody asked just now.
func (s *Service) Links(ctx context.Context) ([]Found, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.found != nil && time.Since(s.at) < foundTime {
		return s.found, nil
	}
	links, err := s.List()
	if err != nil {
		return nil, err
	}
	found := Look(ctx, links)
	if err := ctx.Err(); err != nil { // not looked at to the end
		return nil, fmt.Errorf("looking at the links: %w", err)
	}
	s.found, s.at = found, time.Now()
	return found, nil
}

// Propose fills in what a draft has no answer for, so that nothing that was
// seen on its link is disturbed. The draft names the link; without an address
// that of the link noted by the form is taken, else one is proposed. Where a
// DHCP server answers, none is proposed.
func (s *Service) Propose(ctx context.Context, d Draft) (Draft, error) {
	found, err := s.Links(ctx)
	if err != nil {
		return Draft{}, err
	}
	link, ok := find(found, d)
	if !ok {
		return Draft{}, fmt.Errorf("there is no link %s%s in this machine; GET /api/setup/links lists them", d.MAC, d.Interface)
	}
	if noted, ok, err := s.Files.ReadLink(); err == nil && ok && d.Address == "" && noted.VLAN == d.VLAN && is(link.Link, noted) {
		d.Address = noted.Address.String()
		if d.Gateway == "" && noted.Gateway.IsValid() {
			d.Gateway = noted.Gateway.String()
		}
	}
	facts, name := Facts{Offers: link.Offers, Elsewhere: elsewhere(found, link.Name)}, link.Name
	facts.Quiet = link.Carrier && link.Fault == "" && len(link.Offers) == 0
	if d.VLAN != 0 {
		// Without the VLAN's interface, which the form makes, nothing is known.
		name = machine.SiteLink{VLAN: d.VLAN}.InterfaceName(link.Name)
		facts.Offers, err = Probe(ctx, name)
		facts.Quiet = link.Carrier && err == nil && len(facts.Offers) == 0
	}
	if link.Carrier {
		// Without an answer nothing is known to be taken; what is taken is found
		// when it is used.
		facts.Owners, _ = Owners(ctx, name, facts.Ask(d)...)
	}
	return facts.Fill(d), nil
}

// find finds the link that a draft names.
func find(found []Found, d Draft) (Found, bool) {
	for _, f := range found {
		if is(f.Link, machine.SiteLink{MAC: d.MAC, Interface: d.Interface}) {
			return f, true
		}
	}
	return Found{}, false
}

func is(l Link, named machine.SiteLink) bool {
	return named.MAC != "" && named.MAC == l.MAC || named.Interface != "" && named.Interface == l.Name
}

// elsewhere are the networks that other links than one were seen to be in.
func elsewhere(found []Found, not string) []netip.Prefix {
	var list []netip.Prefix
	for _, f := range found {
		for _, o := range f.Offers {
			if f.Name != not && o.Network.IsValid() {
				list = append(list, o.Network)
			}
		}
	}
	return list
}

// Owners asks on a network interface who has addresses, by hardware address; it
// takes about a second. Those that nobody answered for are not in the result.
func Owners(ctx context.Context, name string, ask ...netip.Addr) (map[netip.Addr]string, error) {
	found, err := address.Owners(ctx, name, ask...)
	text := map[netip.Addr]string{}
	for a, mac := range found {
		text[a] = mac.String()
	}
	return text, err
}
