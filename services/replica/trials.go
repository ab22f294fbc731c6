package replica

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/dhcp"
	"github.com/rackseed/rackseed/services/dhcp/foreign"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peerapi"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	// tryLimit bounds one trial.
	tryLimit = 5 * time.Second
	// madeLimit bounds how long machines' Ignitions are made: of a large site those
	// that fit into it.
	madeLimit = 2 * time.Second
)

// The names of the trials; handoff.Trials has them all.
const (
	trialDHCP     = "dhcp"
	trialScript   = "boot script"
	trialIgnition = "ignition"
	trialConsole  = "console"
)

// tried is what one replica found.
type tried struct {
	name   string // of the replica, for people
	checks []handoff.Check
	err    error // it did not try
}

// together are the checks of all replicas that tried: one is OK where each of them says
// so. Who could not be asked says nothing, as long as somebody could.
func together(all []tried, now time.Time) []handoff.Check {
	var checks []handoff.Check
	for _, name := range handoff.Trials {
		c := handoff.Check{Name: name, At: now}
		var good, bad, away []string
		for _, x := range all {
			found := slices.IndexFunc(x.checks, func(c handoff.Check) bool { return c.Name == name })
			switch {
			case x.err != nil:
				away = append(away, fmt.Sprintf("%s did not try: %v", x.name, x.err))
			case found < 0:
				bad = append(bad, fmt.Sprintf("%s knows no such trial: it is of another release", x.name))
			case x.checks[found].OK:
				good = append(good, "from "+x.name+": "+x.checks[found].Text)
			default:
				bad = append(bad, "from "+x.name+": "+x.checks[found].Text)
			}
		}
		switch c.OK = len(good) > 0 && len(bad) == 0; {
		case c.OK:
			c.Text = strings.Join(good, "; ")
		case len(bad) > 0:
			c.Text = strings.Join(bad, "; ")
		default:
			c.Text = strings.Join(away, "; ")
		}
		checks = append(checks, c)
	}
	return checks
}

// Try has the other replicas try the service over the wire, as machines and people
// reach it: what this one sends to the service address stays in its own kernel. Where
// there is no other one, it tries by itself, and says so.
func (h hands) Try(ctx context.Context) []handoff.Check {
	view := h.store.Load().View()
	t, err := h.trial(view)
	if err != nil {
		return together([]tried{{h.nameOf(view, h.own.ID), nil, err}}, h.now())
	}
	plan, _ := view.Handoff()
	others := slices.DeleteFunc((peers{h.replica}).Peers(), func(id string) bool { return plan.Lost && id == plan.From })
	all := make([]tried, len(others))
	var asking sync.WaitGroup
	for i, id := range others {
		asking.Go(func() {
			limited, cancel := context.WithTimeout(ctx, h.tryLimit()+tryLimit) // with the way there
			defer cancel()
			checks, err := h.client().Try(limited, id, t)
			all[i] = tried{h.nameOf(view, id), checks, err}
		})
	}
	var made string
	var making error
	asking.Go(func() { made, making = h.makeIgnitions(ctx, view) })
	if len(others) == 0 {
		all = append(all, tried{"this replica itself, as there is no other", h.tryFromHere(ctx, t, func(context.Context) (string, error) {
			return h.healthOf("dhcp")
		}), nil})
	}
	asking.Wait()
	checks := together(all, h.now())
	for i, c := range checks {
		switch {
		case c.Name == trialDHCP && !c.OK: // this one may know why it keeps silent
			if _, err := h.healthOf("dhcp"); err != nil {
				checks[i].Text += "; here: " + err.Error()
			}
		case c.Name == trialIgnition && making != nil:
			checks[i].OK, checks[i].Text = false, making.Error()
		case c.Name == trialIgnition:
			checks[i].Text = made + "; " + c.Text
		}
	}
	return checks
}

// trial is what others are to try of what this replica serves.
func (r *replica) trial(view state.View) (peerapi.Trial, error) {
	site, ok := view.Site()
	if !ok {
		return peerapi.Trial{}, errNoSite
	}
	t := peerapi.Trial{Service: site.ServiceAddress}
	var err error
	if _, t.Print, err = consoleCertificate(view); err != nil {
		return t, err
	}
	links, err := r.linksHere(view)
	for _, l := range links {
		t.Networks = append(t.Networks, l.Prefix)
	}
	return t, err
}

// linksHere are the links of this host that DHCP is for, whether this replica serves
// them or not.
func (r *replica) linksHere(view state.View) ([]dhcp.Link, error) {
	site, ok := view.Site()
	if !ok {
		return nil, errNoSite
	}
	site, err := r.siteHere(site)
	if err != nil {
		return nil, err
	}
	links, _, err := r.dhcpLinks(site)
	return links, err
}

// unserved says in which of the site's networks with DHCP this host has no address: from
// here nobody is served there. "": there is none.
func unserved(site, here machine.Site) string {
	var list []string
	for i, l := range site.Links {
		if l.DHCP != nil && !slices.ContainsFunc(here.Links, func(x machine.SiteLink) bool { return x.Address.Masked() == l.Address.Masked() }) {
			list = append(list, fmt.Sprintf("links[%d] of the site file has dhcp in %s, where this node has no address, so that machines there would never be served from it: give it one (by the Ignition of its profile), or take that dhcp out", i, l.Address.Masked()))
		}
	}
	return strings.Join(list, "; ")
}

// nameOf is a replica's name, for people.
func (r *replica) nameOf(view state.View, id string) string {
	if x, ok := view.Replica(id); ok && x.Name != "" {
		return x.Name
	}
	return id
}

func (r *replica) tryLimit() time.Duration { return tryLimit * time.Duration(max(r.Slower, 1)) }

// tryOther puts the service that another replica gives to its trials.
func (r *replica) tryOther(ctx context.Context, t peerapi.Trial) ([]handoff.Check, error) {
	store := r.store.Load()
	if store == nil {
		return nil, errStarting
	}
	if leads, _ := store.Leading(); leads {
		return nil, &state.Refusal{Text: "it leads itself"}
	}
	links, err := r.linksHere(store.View())
	if err != nil {
		return nil, err
	}
	links = slices.DeleteFunc(links, func(l dhcp.Link) bool { return !slices.Contains(t.Networks, l.Prefix) })
	if len(links) == 0 && len(t.Networks) > 0 {
		return nil, &state.Refusal{Text: fmt.Sprintf("it is in none of the networks %v", t.Networks)}
	}
	return r.tryFromHere(ctx, t, func(ctx context.Context) (string, error) { return askDHCP(ctx, links, t.Service) }), nil
}

// tryFromHere puts the service to its trials, all at once.
func (r *replica) tryFromHere(ctx context.Context, t peerapi.Trial, askDHCP func(context.Context) (string, error)) []handoff.Check {
	at := t.Service.String()
	trials := map[string]func(context.Context) (string, error){
		trialDHCP: askDHCP,
		trialScript: func(ctx context.Context) (string, error) {
			return get(ctx, anew, "http://"+at+"/boot.ipxe", http.StatusOK, nil)
		},
		// A key that is no machine's gets none, which is looked up for it.
		trialIgnition: func(ctx context.Context) (string, error) {
			key, _, err := wire.NewKeys()
			if err != nil {
				return "", err
			}
			return get(ctx, anew, "http://"+at+wire.PathIgnition, http.StatusForbidden, func(r *http.Request) { wire.Sign(r, key, nil) })
		},
		trialConsole: func(ctx context.Context) (string, error) {
			return get(ctx, pinned(t.Print), "https://"+at+"/api/openapi.json", http.StatusUnauthorized, nil) // whoever asks must log in
		},
	}
	checks := make([]handoff.Check, len(handoff.Trials))
	ctx, cancel := context.WithTimeout(ctx, r.tryLimit())
	defer cancel()
	var trying sync.WaitGroup
	for i, name := range handoff.Trials {
		trying.Go(func() {
			text, err := trials[name](ctx)
			if err != nil {
				text = err.Error()
			}
			checks[i] = handoff.Check{Name: name, OK: err == nil, Text: text, At: r.now()}
		})
	}
	trying.Wait()
	return checks
}

// askDHCP asks on links, as a new client does.
func askDHCP(ctx context.Context, links []dhcp.Link, service netip.Addr) (string, error) {
	if len(links) == 0 {
		return "the site file has no link with dhcp: nobody is served", nil
	}
	var texts []string
	for _, l := range links {
		self := l.Self()
		self.Service = service
		wire, err := foreign.Listen(l.Interface)
		if err != nil {
			return "", err
		}
		s, err := foreign.Ask(ctx, self, wire)
		if err != nil {
			return "", err
		}
		texts = append(texts, fmt.Sprintf("%s answers a DISCOVER on %s, from hardware address %s", s.Server, l.Interface, s.Hardware))
	}
	return strings.Join(texts, "; "), nil
}

func (r *replica) healthOf(name string) (string, error) {
	for _, x := range r.tasks.list() {
		switch {
		case x.Name != name:
		case x.OK:
			return x.Text, nil
		default:
			return "", errors.New(x.Text)
		}
	}
	return "", fmt.Errorf("%s is not served", name)
}

// makeIgnitions makes the Ignition of the machines of the cluster, of as many as time
// allows: the secrets and the images that it takes are here.
func (r *replica) makeIgnitions(ctx context.Context, view state.View) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, madeLimit*time.Duration(max(r.Slower, 1)))
	defer cancel()
	made, all := 0, 0
	for _, m := range view.Machines() {
		if m.Phase != machine.PhaseReady {
			continue
		}
		all++
		if ctx.Err() != nil {
			continue
		}
		in, err := ignition.FromView(view, m, "")
		if err == nil {
			_, err = ignition.Assemble(in, r.Plugins.Contributors...)
		}
		if err != nil {
			return "", fmt.Errorf("of %s: %w", m.Name, err)
		}
		made++
	}
	if made == 0 && all > 0 {
		return "", fmt.Errorf("none of %d was made in time: %w", all, ctx.Err())
	}
	return fmt.Sprintf("made for %d of %d machines", made, all), nil
}

// anew is a client that connects for each request: what it is told is of now.
var anew = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// get asks for a page, which must be answered with a status. sign signs the request;
// nil: it is not signed.
func get(ctx context.Context, client *http.Client, url string, want int, sign func(*http.Request)) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if sign != nil {
		sign(r)
	}
	a, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	if a.StatusCode != want {
		return "", fmt.Errorf("%s: status %s", url, a.Status)
	}
	n, err := io.Copy(io.Discard, a.Body)
	return fmt.Sprintf("%s: %d bytes", url, n), err
}

// pinned is a client that trusts one certificate.
func pinned(print string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // by its fingerprint instead
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := fingerprint(s.PeerCertificates[0].Raw); got != print {
				return fmt.Errorf("the certificate's fingerprint is %s, not %s: another program answers there", got, print)
			}
			return nil
		},
	}}}
}
