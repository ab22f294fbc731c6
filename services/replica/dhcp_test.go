package replica

import (
	"errors"
	"testing"
)

func TestDHCPHealth(t *testing.T) {
	gone := errors.New("links[0] of the site file: there is no network interface eth9")
	for name, c := range map[string]struct {
		links    int
		missing  error
		hindered []string
		ok       bool
		text     string
	}{
		"served":                 {2, nil, nil, true, "served on 2 links"},
		"no link with dhcp":      {0, nil, nil, true, "the site file has no link with dhcp: nobody is served"},
		"a link is missing":      {1, gone, nil, false, gone.Error()},
		"another server answers": {2, nil, []string{"eth0: the DHCP server 192.0.2.1 answers DHCP too"}, false, "eth0: the DHCP server 192.0.2.1 answers DHCP too"},
		"all at once":            {2, gone, []string{"eth0: another", "eth1: another"}, false, gone.Error() + "; eth0: another; eth1: another"},
	} {
		if ok, text := dhcpHealth(c.links, c.missing, c.hindered); ok != c.ok || text != c.text {
			t.Errorf("%s: %v, %q", name, ok, text)
		}
	}
}
