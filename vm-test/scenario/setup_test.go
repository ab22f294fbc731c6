//go:build vm

package scenario

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/rack"
)

// A stick without a site file, in a machine that has a serial port alone: the
// site is set up by what is typed there, on the network that somebody else's
// DHCP server is on, and the console answers at the chosen address.
func TestSetupByForm(t *testing.T) {
	p, err := built()
	if err != nil {
		t.Fatal(err)
	}
	var links []qemu.NIC
	var socket string
	r, _ := room(t, rack.Config{
		WriteISO: func(ctx context.Context, path string, _ []byte, emulated bool) error {
			return p.WriteISO(ctx, path, []byte("# Nobody wrote anything here.\n"), emulated)
		},
		Setup: func(_ int, m *qemu.Machine) {
			m.Typed = true
			links, socket = m.NICs, m.SerialSocket()
		},
	})
	start := time.Now()
	if err := r.PowerOnAppliance(t.Context()); err != nil {
		t.Fatal(err)
	}
	serial := connect(t, socket)
	serial.expect("THERE IS NONE, so no machine is served.", "setup\r")
	t.Logf("asked for a site %.0f s after power-on", time.Since(start).Seconds())

	// A VLAN of the machines' own link: its interface is made to look there.
	serial.expect(links[0].MAC, "")
	serial.expect("nobody", "")
	serial.expect(links[1].MAC, "")
	serial.expect("DHCP server 10.0.2.2 (", "")
	serial.expect("offers 10.0.2.15/24", "")
	serial.expect("Which link", links[0].MAC+"\r")
	serial.expect("VLAN ID", "20\r")
	serial.expect(".20, as 10.77.0.2/24. Nobody answers DHCP", "")
	serial.expect("Address with its prefix length [10.77.0.2/24]", "back\r")
	serial.expect("VLAN ID", "back\r")

	serial.expect("Which link", links[1].MAC+"\r")
	serial.expect("VLAN ID", "0\r")
	serial.expect("ANOTHER DHCP SERVER ANSWERS ON THIS NETWORK", "")
	serial.expect("Address with its prefix length", "10.0.2.300/24\r")
	serial.expect("expected an IPv4 address", "")
	serial.expect("Address with its prefix length", "10.0.2.15/24\r")
	serial.expect("Gateway, - for none [-]", "\r")
	serial.expect("(web) [here]", "\r")
	serial.expect("Service address [10.0.2.16]", "\r")
	serial.expect("NO MACHINE IS SERVED", "")
	serial.expect("(yes or no) [no]", "\r")
	serial.expect("Name of the site", "typed\r")
	serial.expect("SSH public key", "\r")
	serial.expect("address: 10.0.2.15/24", "")
	serial.expect("Apply this site file (yes)", "yes\r")
	serial.expect("The site file is kept", "")
	serial.expect("https://10.0.2.15", "")
	serial.expect("the one kept in the data partition is in force", "")

	screen, err := r.WaitScreen(within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	console := func(token string) *client.Client {
		c, err := client.New(r.ConsoleURL(), screen.Fingerprint, token)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var login api.Login
	eventually(t, time.Minute, "the console answers at the chosen address", func() error {
		return console("").Call(t.Context(), http.MethodPost, "/api/setup", nil,
			api.SetupRequest{Code: screen.SetupCode, Name: "ann", Password: "correct horse"}, &login)
	})
	t.Logf("the console answered %.0f s after power-on", time.Since(start).Seconds())
	var applied api.AppliedSite
	eventually(t, time.Minute, "the typed site is applied", func() error {
		if err := console(login.Token).Call(t.Context(), http.MethodGet, "/api/site", nil, nil, &applied); err != nil {
			return err
		}
		if applied.Site.Name != "typed" || len(applied.Site.Links) != 1 || applied.Site.Links[0].DHCP != nil {
			return errors.New("it is another one")
		}
		return nil
	})
}
