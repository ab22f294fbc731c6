// Package screen is what a person in front of the appliance sees: on the
// display and on serial ports, in plain text.
package screen

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Status is what the replica says of itself at GET /status on its local
// socket (services/replica); only what is shown is read.
type Status struct {
	Site         string   `json:"site"`
	ConsoleURLs  []string `json:"consoleURLs"`
	Fingerprint  string   `json:"fingerprint"` // of the console's certificate: SHA-256, hex
	SetupCode    string   `json:"setupCode"`   // empty once it was used
	SiteProblems []string `json:"siteProblems"`
	Warnings     []Note   `json:"warnings"`
	Health       []Health `json:"health"`
	// Sealed says that nodes of the cluster carry the boot service, and LetGo that
	// they need this machine no more.
	Sealed bool `json:"sealed"`
	LetGo  bool `json:"letGo"`
}

// Note is what people should know.
type Note struct {
	Text string `json:"text"`
}

// Health is how one part of the replica is.
type Health struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"`
}

// View is all that the screen shows. It is compared to tell whether something
// changed, by what Head makes of it.
type View struct {
	Status *Status // nil while the boot service does not answer
	// Service says how the program is, when it does not answer or was started
	// anew.
	Service string
	// SiteFile says which site file is in force, or how to come by one.
	SiteFile string
	// SiteMissing says that there is none, which SiteFile tells.
	SiteMissing bool

	Links []string // "eth0 10.77.0.2/24"
	Own   []string // this machine's addresses, as "10.77.0.2"
	Data  string   // where data is kept
	Lost  string   // why data is not kept; empty if it is
	// MemoryOnly is the site file's: machines are served although data is not
	// kept.
	MemoryOnly bool
	Faults     []string // what else went wrong
}

// Head is the screen without the log, in lines of at most width columns.
func Head(v View, width int) []string {
	p := page{width: max(width, 40)}
	title := "Rackseed"
	if v.Status != nil && v.Status.Site != "" {
		title += ", site " + v.Status.Site
	}
	p.lines = append(p.lines, title, strings.Repeat("-", p.width))
	if s := v.Status; s != nil && s.Sealed {
		if s.LetGo {
			p.banner("SAFE TO UNPLUG.", "The boot service runs on nodes of the cluster now, at the same address. Pull the stick and restart this machine: it netboots from the cluster, and can be approved as a node. The stick serves nothing any more, also when it is booted again. What it knew is sealed; to use it for something else, erase all of it: writing an image over it keeps what is behind that.",
				"Only if all the nodes with a replica are lost for ever: type recover and press Enter.")
		} else {
			p.banner("LEAVE IT PLUGGED IN while a handoff runs: the nodes of the cluster take over; it takes some seconds more. If it stays so, or this stick was booted later by mistake, switch those nodes on and look at their cables: they serve without it.",
				"Only if all the nodes with a replica are lost for ever: type recover and press Enter.")
		}
		for _, f := range v.Faults {
			p.item("Fault", f)
		}
		return append(p.lines, strings.Repeat("-", p.width))
	}
	switch {
	case v.Lost != "" && v.MemoryOnly:
		p.banner("NOTHING IS KEPT: "+v.Lost+".", "When this machine is switched off, the boot service forgets all machines, and the cluster's keys are lost. DO NOT INSTALL MACHINES THAT MATTER.")
	case v.Lost != "":
		p.banner("NOTHING IS KEPT: "+v.Lost+".", "So NO MACHINE IS SERVED: no DHCP, no netboot. To serve from memory all the same, for a test, set memoryOnly: true in site.yaml, or say so in the setup form.")
	}
	p.open(v)
	if v.SiteFile != "" {
		p.item("Site file", v.SiteFile)
	}
	p.problems(v)
	if v.Lost == "" && v.Data != "" {
		p.item("Data", v.Data)
	}
	if len(v.Links) > 0 {
		p.item("Links", strings.Join(v.Links, ", "))
	}
	p.item("Stick", "Leave it plugged in: without it the boot service and the Kubernetes API stop.")
	for _, f := range v.Faults {
		p.item("Fault", f)
	}
	p.health(v)
	return append(p.lines, strings.Repeat("-", p.width))
}

// open says how to get to the console.
func (p *page) open(v View) {
	s := v.Status
	if s == nil {
		text := v.Service
		if text == "" {
			text = "the boot service is starting"
		}
		p.item("Wait", text)
		return
	}
	urls := s.ConsoleURLs
	if len(urls) == 0 { // no site file says them
		for _, a := range v.Own {
			urls = append(urls, "https://"+a)
		}
	}
	if len(urls) == 0 {
		urls = []string{"it cannot be reached yet: no link has an address"}
	}
	p.list("Console", urls)
	if s.Fingerprint != "" {
		p.item("Check", "the certificate that the browser shows must have this SHA-256:")
		for _, part := range fingerprint(s.Fingerprint) {
			p.item("", part)
		}
	}
	if s.SetupCode != "" {
		p.item("Setup", "code "+s.SetupCode+" (for the first person to log in, once)")
	}
}

// problems says what is wrong with the site file.
func (p *page) problems(v View) {
	if v.Status != nil && !v.SiteMissing {
		p.list("Problem", v.Status.SiteProblems)
	}
}

// health says what is not well, or that all is.
func (p *page) health(v View) {
	if v.Status == nil {
		return
	}
	if v.Service != "" {
		p.item("Service", v.Service)
	}
	for _, w := range v.Status.Warnings {
		p.item("Note", w.Text)
	}
	well := []string{}
	var texts []string
	unwell := map[string][]string{} // by text: one cause stops several parts
	for _, h := range v.Status.Health {
		if h.OK {
			well = append(well, h.Name)
			continue
		}
		if unwell[h.Text] == nil {
			texts = append(texts, h.Text)
		}
		unwell[h.Text] = append(unwell[h.Text], h.Name)
	}
	for _, text := range texts {
		p.item("NOT WELL", strings.Join(unwell[text], ", ")+": "+text)
	}
	if len(well) > 0 {
		p.item("Well", strings.Join(well, ", "))
	}
}

// Page is Head with as much of the log below it as fits into height lines.
func Page(v View, log []string, width, height int) []string {
	lines := Head(v, width)
	if room := height - 1 - len(lines); room > 0 {
		for _, l := range log[max(0, len(log)-room):] {
			lines = append(lines, cut(l, width))
		}
	}
	return lines[:min(len(lines), max(height-1, 1))]
}

// page collects lines.
type page struct {
	width int
	lines []string
}

const indent = 10

// list adds lines under one key.
func (p *page) list(key string, lines []string) {
	for i, l := range lines {
		if i > 0 {
			key = ""
		}
		p.item(key, l)
	}
}

// mark begins the lines of a banner.
const mark = "!!"

// banner adds what nobody may overlook: a frame on paper, red on a display.
func (p *page) banner(texts ...string) {
	edge := strings.Repeat("!", p.width)
	p.lines = append(p.lines, edge)
	for _, text := range texts {
		for _, line := range Wrap(text, p.width-2*(len(mark)+1)) {
			line += strings.Repeat(" ", p.width-2*(len(mark)+1)-utf8.RuneCountInString(line))
			p.lines = append(p.lines, mark+" "+line+" "+mark)
		}
	}
	p.lines = append(p.lines, edge)
}

// item adds text under a key, broken between words.
func (p *page) item(key, text string) {
	room := p.width - indent
	for i, line := range Wrap(text, room) {
		if i > 0 {
			key = ""
		}
		p.lines = append(p.lines, fmt.Sprintf("%-*s%s", indent, key, line))
	}
}

// Wrap breaks text between words into lines of at most width columns; longer
// words are broken inside.
func Wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			r := []rune(word)
			lines, word = append(lines, string(r[:width])), string(r[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}

func cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:width])
	}
	return s
}

// fingerprint splits a SHA-256 into two lines of 16 octets, as people compare
// them.
func fingerprint(s string) []string {
	hex := strings.ToUpper(strings.NewReplacer(":", "", " ", "").Replace(s))
	if len(hex) != 64 {
		return []string{s}
	}
	var lines []string
	for ; hex != ""; hex = hex[32:] {
		pairs := []string{}
		for i := 0; i < 32; i += 2 {
			pairs = append(pairs, hex[i:i+2])
		}
		lines = append(lines, strings.Join(pairs, ":"))
	}
	return lines
}
