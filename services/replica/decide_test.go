package replica

import (
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

func TestConsoleURLs(t *testing.T) {
	site := machine.Site{
		ServiceAddress: netip.MustParseAddr("192.0.2.1"),
		Links:          []machine.SiteLink{{Address: netip.MustParsePrefix("192.0.2.2/24")}, {Address: netip.MustParsePrefix("198.51.100.2/24")}},
	}
	for _, c := range []struct {
		name      string
		listening net.Addr
		site      machine.Site
		want      []string
	}{
		{"not yet", nil, site, []string{}},
		{"everywhere", &net.TCPAddr{IP: net.IPv6zero, Port: 443}, site,
			[]string{"https://192.0.2.1", "https://192.0.2.2", "https://198.51.100.2"}},
		{"another port", &net.TCPAddr{Port: 8443}, machine.Site{Links: site.Links[:1]}, []string{"https://192.0.2.2:8443"}},
		{"without a site", &net.TCPAddr{Port: 443}, machine.Site{}, []string{}},
		{"loopback", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443}, site, []string{"https://127.0.0.1:8443"}},
	} {
		if got := consoleURLs(c.listening, c.site); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestServiceLink(t *testing.T) {
	hw, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		t.Fatal(err)
	}
	present := []net.Interface{{Name: "eth0"}, {Name: "eth1", HardwareAddr: hw}}
	site := func(l ...machine.SiteLink) machine.Site {
		return machine.Site{ServiceAddress: netip.MustParseAddr("192.0.2.1"), Links: l}
	}
	near, far := netip.MustParsePrefix("192.0.2.2/25"), netip.MustParsePrefix("198.51.100.2/24")
	for _, c := range []struct {
		name string
		site machine.Site
		link string
		err  string
	}{
		{"by name", site(machine.SiteLink{Interface: "eth0", Address: near}), "eth0", ""},
		{"by MAC", site(machine.SiteLink{Interface: "eth0", Address: far}, machine.SiteLink{MAC: "52:54:00:00:00:01", Address: near}), "eth1", ""},
		{"absent", site(machine.SiteLink{Interface: "eth9", Address: near}), "", "eth9, which is not there"},
		{"in none", site(machine.SiteLink{Interface: "eth0", Address: far}), "", "in no link's network"},
	} {
		link, prefix, err := serviceLink(c.site, present)
		if link != c.link || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v", c.name, link, err)
		}
		if err == nil && prefix != netip.MustParsePrefix("192.0.2.1/25") {
			t.Errorf("%s: prefix %s", c.name, prefix)
		}
	}
}
