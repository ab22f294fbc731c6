// Package form is the dialogue that makes a site file on a terminal: questions,
// answers, and what has to be found out on the network in between. It is pure:
// it says what it wants and is told; lines come in, and pages go out. Nothing
// in it needs more of a terminal than lines.
package form

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/appliance/screen"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
)

// Words that are an answer to every question.
const (
	Back = "back"
	Quit = "quit"
)

// Want is what the form wants done before it goes on: one of the types below.
// nil: an answer.
type Want any

type (
	// Links wants to know which links there are, and what answers DHCP there:
	// LearnLinks.
	Links struct{}
	// Network wants to know what answers DHCP in a VLAN of a link, by the name
	// of its interface: LearnNetwork.
	Network struct {
		Link setup.Link
		VLAN int
	}
	// Owners wants to know who has addresses: LearnOwners.
	Owners struct {
		Link      setup.Link
		VLAN      int
		Addresses []netip.Addr
	}
	// KeepLink wants the link kept, to go on in the console: LearnKept.
	KeepLink struct{ Link machine.SiteLink }
	// KeepSite wants the site file kept, and so applied: LearnKept.
	KeepSite struct{ Text []byte }
	// Leave wants the form left. Text says how it ended.
	Leave struct{ Text []string }
)

// Options are what the form is told at its start.
type Options struct {
	// Volatile says why nothing is kept; empty: it is.
	Volatile string
	// Before is the site that is in force, whose answers are proposed first.
	Before machine.Site
}

// Form is one dialogue.
type Form struct {
	Options
	at      int // index of the question
	draft   setup.Draft
	before  map[string]string // answers of an earlier round or site, by the question's key
	problem []string          // with the last answer
	note    []string          // about the last answer, which was taken
	pending *pending          // an answer that waits for what has to be found out
	want    Want              // wanted by an answer, once

	lost   []string      // what the site in force says that the form does not ask for
	found  []setup.Found // nil: not looked at yet
	link   setup.Found   // the chosen one
	looked bool          // offers are those of the chosen link and VLAN
	facts  setup.Facts
	asked  map[netip.Addr]bool // whose owner is known, or that there is none
	deaf   string              // why nobody could be asked by ARP
}

// pending is an answer with an address, whose owner is asked for.
type pending struct {
	answer  string
	address netip.Addr
}

// New begins a form.
func New(o Options) *Form {
	f := &Form{Options: o, before: map[string]string{}, lost: setup.Lost(o.Before)}
	f.remember(setup.DraftOf(o.Before))
	f.skip()
	return f
}

// Page is what to print: lines, and a prompt that the answer is typed behind.
type Page struct {
	Lines  []string
	Prompt string
}

// Want is what has to be done now; nil: Answer is to be called.
func (f *Form) Want() Want {
	if f.want != nil {
		return f.want
	}
	if f.found == nil && f.at >= atLink {
		return Links{}
	}
	if f.at >= atAddress && !f.looked {
		return Network{f.link.Link, f.draft.VLAN}
	}
	var all, ask []netip.Addr
	if q := f.question(); q.ask != nil {
		all = q.ask(f)
	}
	if f.pending != nil {
		all = append(all, f.pending.address)
	}
	for _, a := range all {
		if f.unknown(a) && !slices.Contains(ask, a) {
			ask = append(ask, a)
		}
	}
	if len(ask) > 0 {
		return Owners{f.link.Link, f.draft.VLAN, ask}
	}
	return nil
}

// unknown says whether an address is still to be asked for.
func (f *Form) unknown(a netip.Addr) bool {
	return a.Is4() && !f.asked[a] && f.deaf == "" && f.link.Carrier
}

// Busy says what is being done meanwhile, for the person who waits.
func Busy(w Want) string {
	switch w := w.(type) {
	case Links:
		return "Looking at the links and what answers DHCP there, for some 10 seconds ..."
	case Network:
		return fmt.Sprintf("Looking what answers DHCP in VLAN %d of %s, for some seconds ...", w.VLAN, w.Link.Name)
	case Owners:
		return "Looking which addresses are taken ..."
	case KeepLink, KeepSite:
		return "Writing ..."
	}
	return ""
}

// LearnLinks tells which links there are. err: they could not be listed.
func (f *Form) LearnLinks(found []setup.Found, err error) {
	f.found = found
	if found == nil {
		f.found = []setup.Found{}
	}
	if err != nil {
		f.problem = []string{err.Error()}
	}
}

// LearnNetwork tells what answers DHCP in the wanted VLAN.
func (f *Form) LearnNetwork(offers []setup.Offer, err error) {
	f.looked, f.facts.Offers, f.facts.Quiet = true, offers, err == nil && len(offers) == 0
	if err != nil {
		f.link.Fault = err.Error()
	}
}

// LearnOwners tells who has the wanted addresses.
func (f *Form) LearnOwners(asked []netip.Addr, owners map[netip.Addr]string, err error) {
	if err != nil {
		f.deaf = err.Error()
	}
	for _, a := range asked {
		f.asked[a] = true
		if owners[a] != "" {
			f.facts.Owners[a] = owners[a]
		}
	}
	if f.pending != nil && !f.unknown(f.pending.address) {
		answer := f.pending.answer
		f.pending = nil
		f.judge(answer)
	}
}

// LearnKept tells whether what was wanted is kept.
func (f *Form) LearnKept(err error) {
	done := f.want
	f.want = nil
	if err != nil {
		f.problem = strings.Split(err.Error(), "\n")
		return
	}
	switch w := done.(type) {
	case KeepLink:
		f.want = Leave{[]string{
			"The link gets its address. Go on in the web console:", "  https://" + w.Link.Address.Addr().String(),
			"This screen shows the fingerprint of its certificate, and the setup code.",
		}}
	case KeepSite:
		f.want = Leave{[]string{"The site file is kept, and is being applied."}}
	}
}

// Answer takes a line that was typed. Empty: what is proposed.
func (f *Form) Answer(line string) {
	line = strings.TrimSpace(line)
	f.problem, f.note = nil, nil
	switch strings.ToLower(line) {
	case Quit:
		f.want = Leave{[]string{"The form was left; nothing was changed."}}
		return
	case Back:
		f.back()
		return
	}
	q := f.question()
	if line == "" {
		line = q.propose(f)
	}
	if q.address != nil {
		if a := q.address(f, line); f.unknown(a) {
			f.pending = &pending{line, a}
			return
		}
	}
	f.judge(line)
}

// judge checks an answer and goes on, or says what is wrong with it.
func (f *Form) judge(answer string) {
	q := f.question()
	was := f.draft
	if err := q.take(f, answer); err != nil {
		f.draft = was
		if !errors.Is(err, errAgain) {
			f.problem = strings.Split(err.Error(), "\n")
		}
		return
	}
	if f.want != nil {
		return
	}
	f.before[q.key] = answer
	f.at++
	f.skip()
}

// back goes to the question before; at the first one there is none.
func (f *Form) back() {
	for i := f.at - 1; i >= 0; i-- {
		if f.arises(i) {
			f.at = i
			return
		}
	}
}

// skip goes over questions that do not arise; the last one always does.
func (f *Form) skip() {
	for !f.arises(f.at) {
		f.at++
	}
}

func (f *Form) arises(i int) bool { return questions[i].when == nil || questions[i].when(f) }

func (f *Form) question() question { return questions[f.at] }

// Width is how wide pages are, in columns.
const Width = 79

// Page is the question with what has to be known for it.
func (f *Form) Page() Page {
	q := f.question()
	n, of := 0, 0
	counted := *f
	if f.at <= atDHCP { // not answered yet: most say yes, and a count that grows is a surprise
		counted.draft.DHCP = true
	}
	for i := range questions {
		if counted.arises(i) {
			of++
			if i <= f.at {
				n++
			}
		}
	}
	p := Page{Lines: []string{"", fmt.Sprintf("--- Setup %d/%d: %s", n, of, q.title)}}
	p.add("   ", f.note...)
	p.add("", q.text(f)...)
	if f.deaf != "" && q.ask != nil {
		p.add("!! ", "Whether an address is taken is not known: "+f.deaf)
	}
	p.add("** ", f.problem...)
	p.Lines = append(p.Lines, "(Enter takes what is in [ ]. Always possible: back, quit.)")
	p.Prompt = q.prompt
	if proposed := q.propose(f); proposed != "" {
		p.Prompt += " [" + proposed + "]"
	}
	p.Prompt += ": "
	return p
}

// add adds paragraphs, broken between words; what begins with a space stays as
// it is.
func (p *Page) add(mark string, paragraphs ...string) {
	for _, text := range paragraphs {
		text = strings.ReplaceAll(text, "…", "...") // what a terminal has beyond ASCII is not known
		if text == "" || text[0] == ' ' {
			p.Lines = append(p.Lines, mark+text)
			continue
		}
		for _, line := range screen.Wrap(text, Width-len(mark)) {
			p.Lines = append(p.Lines, mark+line)
		}
	}
}
