package form

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

// question is one question of the form. A question without when always arises.
type question struct {
	key    string // for the answer of an earlier round; "": it is asked anew
	title  string
	prompt string
	when   func(*Form) bool
	text   func(*Form) []string
	// propose is what Enter means; "": there is nothing to propose.
	propose func(*Form) string
	// ask lists the addresses whose owners are to be known for propose.
	ask func(*Form) []netip.Addr
	// address is the one in an answer whose owner is to be known for take.
	address func(f *Form, answer string) netip.Addr
	// take puts an answer into the form, or says what is wrong with it.
	take func(f *Form, answer string) error
}

// none is the answer that there is none.
const none = "-"

// Where the links have to be known, where the network, and where it is asked
// whether to serve DHCP.
const (
	atLink    = 1
	atAddress = 3
	atDHCP    = 7
)

// questions in their order; set in init, because their functions look at them.
var questions []question

func init() {
	questions = []question{
		anew, whichLink, vlan, ownAddress, gateway, where,
		service, serveDHCP, poolFrom, poolTo, dns, name, sshKey, memoryOnly, confirm,
	}
}

func parseAddr(s string) netip.Addr {
	a, _ := netip.ParseAddr(strings.TrimSpace(s)) // the zero Addr: the rules tell what is wrong
	return a
}

// neighbour is an address in an answer, if it is one of the link's network.
func neighbour(f *Form, answer string) netip.Addr {
	if a := parseAddr(answer); f.own().Contains(a) {
		return a
	}
	return netip.Addr{}
}

func (f *Form) own() netip.Prefix {
	p, _ := netip.ParsePrefix(f.draft.Address) // it was checked when it was taken
	return p
}

// orBefore is the answer of an earlier round while it still can be given, else
// what is proposed now.
func (f *Form) orBefore(proposed string) string {
	q := f.question()
	answer, ok := f.before[q.key]
	if !ok {
		return proposed
	}
	after := *f // take changes the draft alone, for questions that are asked this way
	if q.take(&after, answer) != nil {
		return proposed
	}
	if answer == "" {
		return none
	}
	return answer
}

// remember notes the answers that a draft has, as an earlier round's.
func (f *Form) remember(d setup.Draft) {
	yes := func(b bool) string {
		if b {
			return "yes"
		}
		return "no"
	}
	if d.Address == "" {
		return
	}
	f.before = map[string]string{
		"link": string(d.MAC) + d.Interface, "vlan": strconv.Itoa(d.VLAN), "address": d.Address, "gateway": d.Gateway,
		"service": d.Service, "dhcp": yes(d.DHCP), "name": d.Name, "ssh": d.SSHKey, "memory": yes(d.MemoryOnly),
	}
	if d.DHCP {
		f.before["from"], f.before["to"], f.before["dns"] = d.From, d.To, strings.Join(d.DNS, " ")
	}
}

// free refuses an address that another host has.
func (f *Form) free(a netip.Addr) error {
	if owner := f.facts.Owners[a]; owner != "" {
		return fmt.Errorf("%s is taken: %s answers for it. Choose another address, or give that host another one", a, owner)
	}
	return nil
}

var anew = question{
	title: "a site file is in force", prompt: "Make a new site file without them (yes)",
	when: func(f *Form) bool { return len(f.lost) > 0 },
	text: func(f *Form) []string {
		return []string{
			fmt.Sprintf("The site file in force, of site %q, says more than this form asks for: %s.", f.Before.Name, strings.Join(f.lost, ", ")),
			"To change it and keep that, use the web console, or an editor: the file site.yaml on the stick's partition RACKSEED is preferred.",
		}
	},
	propose: func(*Form) string { return "" },
	take: func(_ *Form, answer string) error {
		if answer != "yes" {
			return errors.New("type yes to go on without them, or quit")
		}
		return nil
	},
}

var whichLink = question{
	key: "link", title: "the link to the machines", prompt: "Which link, by its number or name; look: look again",
	text: func(f *Form) []string {
		if len(f.found) == 0 {
			return []string{"There is no network link in this machine, or no driver for it. Type look to look again."}
		}
		lines := []string{"The machines' network is on one of this machine's links. A switch with spanning tree shows nothing for the first 50 s: look again then."}
		for i, l := range f.found {
			lines = append(lines, fmt.Sprintf("  %d  %s", i+1, describe(l.Link)))
			for j, answers := range l.Answers() {
				key := "DHCP there:"
				if j > 0 {
					key = ""
				}
				for k, part := range screen.Wrap(answers, Width-18) {
					if k > 0 {
						key = ""
					}
					lines = append(lines, fmt.Sprintf("     %-12s%s", key, part))
				}
			}
		}
		return lines
	},
	propose: func(f *Form) string {
		best, points := "", 0
		for i, l := range f.found {
			p := 1
			switch {
			case string(l.MAC) == f.before["link"] || l.Name == f.before["link"]:
				p = 4
			case l.Carrier && l.Fault == "" && len(l.Offers) == 0:
				p = 3
			case l.Carrier:
				p = 2
			}
			if p > points {
				best, points = strconv.Itoa(i+1), p
			}
		}
		return best
	},
	take: func(f *Form, answer string) error {
		if strings.EqualFold(answer, "look") {
			f.found = nil
			return errAgain
		}
		for i, l := range f.found {
			if answer == strconv.Itoa(i+1) || answer == l.Name || strings.EqualFold(answer, string(l.MAC)) {
				f.choose(l)
				return nil
			}
		}
		return fmt.Errorf("%q is none of the links: type its number, 1 to %d", answer, len(f.found))
	},
}

// errAgain asks the same question again, with nothing wrong.
var errAgain = errors.New("again")

// describe is one line about a link.
func describe(l setup.Link) string {
	words := []string{l.Name, string(l.MAC)}
	if l.Driver != "" {
		words = append(words, l.Driver)
	}
	state := "no carrier"
	if l.Carrier {
		state = "carrier"
		if l.Mbit > 0 {
			state += fmt.Sprintf(", %d Mbit/s", l.Mbit)
		}
	}
	return strings.Join(append(words, state), "  ")
}

// choose makes a link the chosen one; what was known of another is forgotten.
func (f *Form) choose(l setup.Found) {
	f.link = l
	f.draft.MAC, f.draft.Interface = l.MAC, ""
	if l.MAC == "" {
		f.draft.Interface = l.Name
	}
	f.network(f.draft.VLAN)
}

// network forgets what was known of another network of the link.
func (f *Form) network(vlan int) {
	f.draft.VLAN = vlan
	f.asked, f.deaf = map[netip.Addr]bool{}, ""
	f.facts = setup.Facts{Owners: map[netip.Addr]string{}}
	for _, l := range f.found {
		if l.Name == f.link.Name {
			f.link = l
			continue
		}
		for _, o := range l.Offers {
			if o.Network.IsValid() {
				f.facts.Elsewhere = append(f.facts.Elsewhere, o.Network)
			}
		}
	}
	f.looked = vlan == 0 || !f.link.Carrier
	if vlan == 0 {
		f.facts.Offers = f.link.Offers
		f.facts.Quiet = f.link.Carrier && f.link.Fault == "" && len(f.link.Offers) == 0
	}
}

var vlan = question{
	key: "vlan", title: "VLAN", prompt: "VLAN ID, 0 for the untagged network",
	text: func(*Form) []string {
		return []string{"The untagged network is the usual one. In a tagged VLAN, the machines' switch ports must carry it as their native one: firmware netboots untagged."}
	},
	propose: func(f *Form) string {
		if before := f.before["vlan"]; before != "" {
			return before
		}
		return "0"
	},
	take: func(f *Form, answer string) error {
		id, err := strconv.Atoi(answer)
		if err != nil {
			return fmt.Errorf("%q: expected a VLAN ID of 1 to 4094, or 0 for the untagged network", answer)
		}
		f.draft.VLAN = id
		if err := f.draft.Problem("links[0].vlan"); err != nil {
			return err
		}
		f.network(id)
		return nil
	},
}

// warning says loudly that a DHCP server answers; nothing where none does.
func (f *Form) warning() []string {
	if len(f.facts.Offers) == 0 {
		return nil
	}
	lines := []string{" !! ANOTHER DHCP SERVER ANSWERS ON THIS NETWORK:"}
	for _, o := range f.facts.Offers {
		for _, part := range screen.Wrap(o.String(), Width-6) {
			lines = append(lines, " !!   "+part)
		}
	}
	return lines
}

var ownAddress = question{
	key: "address", title: "this machine's address", prompt: "Address with its prefix length",
	text: func(f *Form) []string {
		lines := f.warning()
		if len(lines) > 0 {
			return append(lines, "This machine's own address has to be one that nobody else has and that server never gives: ask who runs that network. What is proposed does not answer just now; that proves little.")
		}
		text := "This machine's own address on " + f.linkName() + ", as 10.77.0.2/24. "
		if f.facts.Quiet {
			return []string{text + "Nobody answers DHCP there."}
		}
		return []string{text + f.notAsked()}
	},
	ask: func(f *Form) []netip.Addr {
		var list []netip.Addr
		for _, p := range f.facts.OwnAddresses() {
			list = append(list, p.Addr())
		}
		return list
	},
	propose: func(f *Form) string {
		proposed := ""
		if list := f.facts.OwnAddresses(); len(list) > 0 {
			proposed = list[0].String()
		}
		return f.orBefore(proposed)
	},
	address: func(_ *Form, answer string) netip.Addr {
		p, _ := netip.ParsePrefix(answer) // the rules tell what is wrong
		return p.Addr()
	},
	take: func(f *Form, answer string) error {
		f.draft.Address = answer
		if err := f.draft.Problem("links[0].address"); err != nil {
			return err
		}
		return f.free(f.own().Addr())
	},
}

// notAsked says why it is not known what is on the network.
func (f *Form) notAsked() string {
	if !f.link.Carrier {
		return "It has no carrier: what answers DHCP there, and which addresses are taken, is not known."
	}
	return "What answers DHCP there is not known: " + f.link.Fault + "."
}

func (f *Form) linkName() string {
	return machine.SiteLink{VLAN: f.draft.VLAN}.InterfaceName(f.link.Name)
}

var gateway = question{
	key: "gateway", title: "gateway", prompt: "Gateway, - for none",
	text: func(*Form) []string {
		return []string{"The router that this machine reaches other networks by, and its DHCP clients. Not needed where everything is in one network."}
	},
	propose: func(f *Form) string {
		proposed := none
		if g := f.facts.Gateway(f.own()); g.IsValid() {
			proposed = g.String()
		}
		return f.orBefore(proposed)
	},
	address: neighbour,
	take: func(f *Form, answer string) error {
		if f.draft.Gateway = ""; answer == none || answer == "" {
			return nil
		}
		f.draft.Gateway = answer
		if err := f.draft.Problem("links[0].gateway"); err != nil {
			return err
		}
		if a := parseAddr(answer); f.asked[a] && f.facts.Owners[a] == "" {
			f.note = []string{fmt.Sprintf("Note: nobody answers for the gateway %s just now.", a)}
		}
		return nil
	},
}

var where = question{
	title: "here or in the web console", prompt: "Go on here, or in the web console (web)",
	text: func(f *Form) []string {
		return []string{fmt.Sprintf("The rest can be answered here, or in the web console, at https://%s once this link has its address.", f.own().Addr())}
	},
	propose: func(*Form) string { return "here" },
	take: func(f *Form, answer string) error {
		switch strings.ToLower(answer) {
		case "here":
			return nil
		case "web":
			gateway := parseAddr(f.draft.Gateway)
			f.want = KeepLink{machine.SiteLink{MAC: f.draft.MAC, Interface: f.draft.Interface, VLAN: f.draft.VLAN, Address: f.own(), Gateway: gateway}}
			return nil
		}
		return fmt.Errorf("%q: expected here or web", answer)
	},
}

var service = question{
	key: "service", title: "service address", prompt: "Service address",
	text: func(f *Form) []string {
		return []string{fmt.Sprintf("One more address of %s, for the boot service and the Kubernetes API. It moves into the cluster with the boot service and stays the same, so it must stay free of others.", f.own().Masked())}
	},
	ask: func(f *Form) []netip.Addr { return f.facts.ServiceAddresses(f.own(), parseAddr(f.draft.Gateway)) },
	propose: func(f *Form) string {
		proposed := ""
		if list := f.facts.ServiceAddresses(f.own(), parseAddr(f.draft.Gateway)); len(list) > 0 {
			proposed = list[0].String()
		}
		return f.orBefore(proposed)
	},
	address: neighbour,
	take: func(f *Form, answer string) error {
		f.draft.Service = answer
		if err := f.draft.Problem("serviceAddress"); err != nil {
			return err
		}
		return f.free(parseAddr(answer))
	},
}

var serveDHCP = question{
	key: "dhcp", title: "DHCP", prompt: "Be the DHCP server of this network (yes or no)",
	text: func(f *Form) []string {
		const need = "Machines netboot only where the boot service is the DHCP server."
		lines := f.warning()
		if f.facts.Quiet {
			return []string{"Nobody answers DHCP on this network. " + need + " It stops serving new machines where another DHCP server shows later."}
		}
		if len(lines) == 0 {
			return []string{f.notAsked(), need}
		}
		return append(lines,
			" !! TWO DHCP SERVERS ON ONE NETWORK DISTURB EACH OTHER AND EVERYBODY THERE.",
			"So it is proposed not to be one: then NO MACHINE IS SERVED on this link. Either switch that server off for this network and set the site up anew, or use a network of the machines' own.")
	},
	propose: func(f *Form) string {
		if !f.facts.Quiet {
			return "no" // whatever was answered before
		}
		return f.orBefore("yes")
	},
	take: func(f *Form, answer string) error {
		yes, err := yesNo(answer)
		if err != nil {
			return err
		}
		if f.draft.DHCP = yes; !yes {
			f.draft.From, f.draft.To, f.draft.DNS = "", "", nil
			f.note = []string{"Note: no machine is served on this link until the site file has dhcp for it."}
		}
		return nil
	},
}

func yesNo(answer string) (bool, error) {
	switch strings.ToLower(answer) {
	case "yes", "y":
		return true, nil
	case "no", "n":
		return false, nil
	}
	return false, fmt.Errorf("%q: expected yes or no", answer)
}

func servesDHCP(f *Form) bool { return f.draft.DHCP }

// pool is the proposed pool.
func (f *Form) pool() (from, to netip.Addr) {
	return f.facts.Pool(f.own(), f.own().Addr(), parseAddr(f.draft.Gateway), parseAddr(f.draft.Service))
}

var poolFrom = question{
	key: "from", title: "DHCP pool, first address", prompt: "First address of the pool",
	when: servesDHCP,
	text: func(f *Form) []string {
		lines := []string{"Machines get their addresses from a pool. Nothing else in the network may have one of these."}
		var taken []string
		for _, a := range setup.PoolRegion(f.own()) {
			if owner := f.facts.Owners[a]; owner != "" {
				taken = append(taken, fmt.Sprintf("%s (%s)", a, owner))
			}
		}
		if len(taken) > 0 {
			lines = append(lines, "Taken there: "+strings.Join(taken[:min(len(taken), 8)], ", ")+".")
		}
		return lines
	},
	ask: func(f *Form) []netip.Addr { return setup.PoolRegion(f.own()) },
	propose: func(f *Form) string {
		proposed := ""
		if from, _ := f.pool(); from.IsValid() {
			proposed = from.String()
		}
		return f.orBefore(proposed)
	},
	take: func(f *Form, answer string) error {
		f.draft.From, f.draft.To = answer, ""
		return f.draft.Problem("links[0].dhcp.from")
	},
}

var poolTo = question{
	key: "to", title: "DHCP pool, last address", prompt: "Last address of the pool",
	when: servesDHCP,
	text: func(f *Form) []string { return []string{"The pool begins with " + f.draft.From + "."} },
	propose: func(f *Form) string {
		from, to := f.pool()
		if parseAddr(f.draft.From) != from {
			to = netip.Addr{}
		}
		proposed := ""
		if to.IsValid() {
			proposed = to.String()
		}
		return f.orBefore(proposed)
	},
	take: func(f *Form, answer string) error {
		f.draft.To = answer
		if err := f.draft.Problem("links[0].dhcp", "links[0].dhcp.to", "links[0].dhcp.router", "links[0].gateway", "serviceAddress"); err != nil {
			return err
		}
		for a, owner := range f.facts.Owners {
			if !a.Less(parseAddr(f.draft.From)) && !parseAddr(answer).Less(a) {
				f.note = append(f.note, fmt.Sprintf("Note: %s in the pool is taken: %s answers for it.", a, owner))
			}
		}
		slices.Sort(f.note)
		f.note = f.note[:min(len(f.note), 8)]
		return nil
	},
}

var dns = question{
	key: "dns", title: "name servers", prompt: "Name servers, by spaces; - for none",
	when: servesDHCP,
	text: func(*Form) []string { return []string{"Name servers for DHCP clients."} },
	propose: func(f *Form) string {
		proposed := none
		var list []string
		for _, a := range f.facts.DNS() {
			list = append(list, a.String())
		}
		if len(list) > 0 {
			proposed = strings.Join(list, " ")
		}
		return f.orBefore(proposed)
	},
	take: func(f *Form, answer string) error {
		if f.draft.DNS = nil; answer == none {
			return nil
		}
		f.draft.DNS = strings.FieldsFunc(answer, func(r rune) bool { return r == ' ' || r == ',' })
		return f.draft.Problem("links[0].dhcp.dns")
	},
}

var name = question{
	key: "name", title: "the site's name", prompt: "Name of the site",
	text:    func(*Form) []string { return []string{"Shown in the console, and the cluster's name."} },
	propose: func(f *Form) string { return f.orBefore(setup.DefaultName) },
	take: func(f *Form, answer string) error {
		f.draft.Name = answer
		return f.draft.Problem("name")
	},
}

var sshKey = question{
	key: "ssh", title: "SSH key", prompt: "SSH public key, - for none",
	text: func(*Form) []string {
		return []string{"A public key that may log in to nodes as root, one line as in a .pub file. It is long to type: it can be added later, in the console."}
	},
	propose: func(f *Form) string { return f.orBefore(none) },
	take: func(f *Form, answer string) error {
		if f.draft.SSHKey = ""; answer == none {
			return nil
		}
		f.draft.SSHKey = answer
		return f.draft.Problem("sshKeys")
	},
}

var memoryOnly = question{
	key: "memory", title: "nothing is kept", prompt: "Serve machines from memory all the same (yes or no)",
	when: func(f *Form) bool { return f.Volatile != "" },
	text: func(f *Form) []string {
		return []string{
			"NOTHING IS KEPT: " + f.Volatile + ".",
			"When this machine is switched off, this site file, all machines and the cluster's keys are forgotten. Without yes no machine is served. Yes is for tests.",
		}
	},
	propose: func(f *Form) string { return f.orBefore("no") },
	take: func(f *Form, answer string) error {
		yes, err := yesNo(answer)
		f.draft.MemoryOnly = yes
		return err
	},
}

var confirm = question{
	title: "the site file", prompt: "Apply this site file (yes)",
	text: func(f *Form) []string {
		lines := []string{"This is the whole site file. Only yes applies it.", ""}
		for line := range strings.Lines(string(f.draft.YAML())) {
			lines = append(lines, "  "+strings.TrimRight(line, "\n"))
		}
		lines = append(lines, "")
		// A fault is told when it is to be applied.
		if _, warnings, err := setup.Examine("site.yaml", f.draft.YAML()); err == nil && len(warnings) > 0 {
			for _, w := range warnings {
				lines = append(lines, "Warning: "+w.Text)
			}
			lines = append(lines, "")
		}
		return lines
	},
	propose: func(*Form) string { return "" },
	take: func(f *Form, answer string) error {
		if answer != "yes" {
			return errors.New("type yes to apply it, back to change something, quit to leave without it")
		}
		text := f.draft.YAML()
		if _, err := setup.Check("site.yaml", text); err != nil {
			return err
		}
		f.want = KeepSite{text}
		return nil
	},
}
