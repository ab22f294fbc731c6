package setup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/machine"
)

// Link is a network link of this machine, with what a person needs to tell it
// from another.
type Link struct {
	Name    string      `json:"name" doc:"The kernel's name, as eth0."`
	MAC     machine.MAC `json:"mac" doc:"Hardware address."`
	Driver  string      `json:"driver,omitempty" doc:"Kernel module that drives it."`
	Mbit    int         `json:"mbit,omitempty" doc:"Speed in Mbit/s; absent while unknown."`
	Carrier bool        `json:"carrier" doc:"Whether a cable with something at its other end is plugged in."`
}

// Found is a link with what answers DHCP there.
type Found struct {
	Link
	Offers []Offer `json:"offers" doc:"What answers DHCP there; empty: nobody."`
	// Fault says why it could not be asked; empty also without carrier.
	Fault string `json:"fault,omitempty" doc:"Why it could not be asked what answers DHCP there."`
}

// Answers says for people what answers DHCP there, a line each.
func (f Found) Answers() []string {
	switch {
	case !f.Carrier:
		return []string{"not asked: no carrier"}
	case f.Fault != "":
		return []string{"not asked: " + f.Fault}
	case len(f.Offers) == 0:
		return []string{"nobody"}
	}
	list := make([]string, len(f.Offers))
	for i, o := range f.Offers {
		list[i] = o.String()
	}
	return list
}

const (
	// ProbeTime is how long answers are waited for. A server that pings an
	// address before it offers it takes 3 s.
	ProbeTime = 5 * time.Second
	// probeAgain is when it is asked again: a packet can be lost.
	probeAgain = 2 * time.Second
	maxFrame   = 2048
)

// Look asks on all links that have a carrier, at once, what answers DHCP
// there, for ProbeTime. No lease is taken.
func Look(ctx context.Context, links []Link) []Found {
	found := make([]Found, len(links))
	var all sync.WaitGroup
	for i, l := range links {
		found[i] = Found{Link: l, Offers: []Offer{}}
		if !l.Carrier {
			continue
		}
		all.Go(func() {
			offers, err := Probe(ctx, l.Name)
			if err != nil {
				found[i].Fault = err.Error()
			}
			found[i].Offers = append(found[i].Offers, offers...)
		})
	}
	all.Wait()
	return found
}

// Probe asks on a network interface what answers DHCP there, for ProbeTime or
// until ctx ends. It needs no address there, and takes no lease. A switch with
// spanning tree may pass nothing for the first 50 s after a link came up.
func Probe(ctx context.Context, name string) (offers []Offer, err error) {
	wire, err := foreign.Listen(name)
	if err != nil {
		return nil, err
	}
	frames, failed := make(chan []byte), make(chan error, 1)
	ctx, cancel := context.WithTimeout(ctx, ProbeTime)
	go func() {
		for {
			b := make([]byte, maxFrame)
			n, err := wire.Read(b)
			if err != nil {
				failed <- err
				return
			}
			select {
			case frames <- b[:n]:
			case <-ctx.Done():
			}
		}
	}()
	a := &asking{hw: wire.Hardware()}
	err = a.ask(ctx, wire, frames, failed)
	cancel()
	if err = errors.Join(err, wire.Close()); err != nil { // closing ends the reading
		return nil, fmt.Errorf("asking for DHCP on %s: %w", name, err)
	}
	slices.SortStableFunc(a.offers, func(x, y Offer) int { return x.Server.Compare(y.Server) })
	return a.offers, nil
}

// ask asks and takes answers until ctx ends.
func (a *asking) ask(ctx context.Context, wire foreign.Wire, frames <-chan []byte, failed <-chan error) error {
	again := time.NewTicker(probeAgain)
	defer again.Stop()
	for send := true; ; {
		if send {
			discovers, err := a.discovers()
			if err != nil {
				return err
			}
			for _, d := range discovers {
				if err := wire.Probe(d); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return err
		case b := <-frames:
			a.take(b)
			send = false
		case <-again.C:
			send = true
		}
	}
}
