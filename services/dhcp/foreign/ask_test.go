package foreign

import (
	"context"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestAsk(t *testing.T) {
	ours := func(cluster, site string) dhcpv4.Modifier {
		return func(p *dhcpv4.DHCPv4) { Self{Cluster: cluster, Site: site}.Answer(p) }
	}
	at := func(ip ...byte) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(ip[0], ip[1], ip[2], ip[3])))
	}
	s := service.As4()
	for name, test := range map[string]struct {
		lost    int // questions without an answer
		answers []dhcpv4.Modifier
		want    string // of the error; "": answered
	}{
		"answered":                    {0, []dhcpv4.Modifier{at(s[:]...), ours(self.Cluster, self.Site)}, ""},
		"at the third time":           {2, []dhcpv4.Modifier{at(s[:]...), ours(self.Cluster, self.Site)}, ""},
		"nobody":                      {1000, nil, "answers no DISCOVER, 5 times asked"},
		"another server":              {0, []dhcpv4.Modifier{at(192, 168, 1, 1)}, "the DHCP server 192.168.1.1"},
		"another cluster, same place": {0, []dhcpv4.Modifier{at(s[:]...), ours("c-other", "rack9")}, `another Rackseed appliance, of site "rack9"`},
		"this cluster, elsewhere":     {0, []dhcpv4.Modifier{at(192, 168, 1, 1), ours(self.Cluster, self.Site)}, "answers no DISCOVER"},
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWire()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second-time.Millisecond)
			defer cancel()
			done := make(chan struct{})
			go func() { // the server
				defer close(done)
				for n := 0; ; n++ {
					select {
					case p := <-w.out:
						request := asked(t, p)
						if n < test.lost || request == nil {
							continue
						}
						select {
						case w.in <- said(t, dhcpv4.MessageTypeOffer, request.ClientHWAddr, append([]dhcpv4.Modifier{dhcpv4.WithYourIP(nil)}, test.answers...)...):
						case <-w.closed:
						}
					case <-w.closed:
						return
					}
				}
			}()
			// What others are answered says nothing.
			go func() {
				select {
				case w.in <- said(t, dhcpv4.MessageTypeOffer, client, at(s[:]...)):
				case <-w.closed:
				}
			}()
			got, err := Ask(ctx, self, w)
			<-done
			if test.want == "" && (err != nil || got.Server != service) || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		})
	}
}
