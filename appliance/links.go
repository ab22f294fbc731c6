package appliance

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/rackseed/rackseed/images/pid1/link"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

// assignment is what one link gets.
type assignment struct {
	name    string
	address netip.Prefix
	gateway netip.Addr // zero: none
}

// chooseLinks finds the links that the site file names among those that are
// there. missing tells, for people, which are not there (yet). A link that is
// not named gets nothing.
func chooseLinks(s machine.Site, there []link.Link) (found []assignment, missing []string) {
	names := make([]string, 0, len(there))
	for _, l := range there {
		names = append(names, l.Name+" "+l.MAC.String())
	}
	have := "there are none"
	if len(names) > 0 {
		have = "there are " + strings.Join(names, ", ")
	}
	for _, want := range s.Links {
		a := assignment{address: want.Address, gateway: want.Gateway}
		for _, l := range there {
			if want.Interface != "" && l.Name == want.Interface || want.MAC != "" && strings.EqualFold(l.MAC.String(), string(want.MAC)) {
				a.name = l.Name
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

func linkWord(l machine.SiteLink) string {
	if l.Interface != "" {
		return l.Interface
	}
	return string(l.MAC)
}

// apply gives a link its address.
func (a assignment) apply() error {
	if err := link.Up(a.name); err != nil {
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

func (a assignment) String() string { return a.name + " " + a.address.String() }

// readSite reads the site file for its links. With a fault in it, the last good
// one that was kept at lastGood names the links, so that the console, which
// shows the fault, can be reached.
func readSite(path, lastGood string) (s machine.Site, fault error) {
	src, err := readBounded(path)
	if err == nil {
		if s, err = site.Parse("site.yaml", src); err == nil {
			return s, keepSite(lastGood, src)
		}
	}
	old, oldErr := readBounded(lastGood)
	if oldErr != nil {
		return machine.Site{}, err
	}
	if s, oldErr = site.Parse("site.yaml", old); oldErr != nil {
		return machine.Site{}, err
	}
	return s, fmt.Errorf("%w; links are set up as the last good site file says", err)
}

// keepSite keeps the last good site file, as it is or as it was before.
func keepSite(path string, src []byte) error {
	if old, err := readBounded(path); err == nil && string(old) == string(src) {
		return nil
	}
	if err := durable.WriteFile(path, src, 0o600); err != nil {
		return fmt.Errorf("keeping the site file: %w", err)
	}
	return nil
}

// readBounded reads a file that a person may have put on the stick.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, site.MaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > site.MaxBytes {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, site.MaxBytes)
	}
	return b, nil
}

// loopback brings up lo, which nothing else does in an initramfs.
func loopback() error {
	if _, err := net.InterfaceByName("lo"); err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return link.Up("lo")
}
