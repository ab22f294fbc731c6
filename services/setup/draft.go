package setup

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

// Draft is a site file in the making: what a person answered or would be
// proposed, as text, so that a slip is told by the same rules as one in a
// written file. Empty: not answered, and left out of the file.
type Draft struct {
	MAC       machine.MAC `json:"mac,omitempty" doc:"The link, by its hardware address."`
	Interface string      `json:"interface,omitempty" doc:"The link, by its name, where it has no hardware address of its own."`
	VLAN      int         `json:"vlan,omitempty" doc:"VLAN ID of a tagged network, 1 to 4094; absent: untagged." minimum:"0" maximum:"4094"`
	Address   string      `json:"address,omitempty" doc:"The appliance's own address with its prefix length."`
	Gateway   string      `json:"gateway,omitempty" doc:"Default gateway."`
	Service   string      `json:"service,omitempty" doc:"The service address."`
	// DHCP says that the boot service shall be the DHCP server of the link.
	DHCP       bool     `json:"dhcp" doc:"Be the DHCP server of the link."`
	From       string   `json:"from,omitempty" doc:"First address of the DHCP pool."`
	To         string   `json:"to,omitempty" doc:"Last address of the DHCP pool."`
	DNS        []string `json:"dns,omitempty" doc:"Name servers for DHCP clients."`
	Name       string   `json:"name,omitempty" doc:"The site's name."`
	SSHKey     string   `json:"sshKey,omitempty" doc:"A public key that may log in to nodes."`
	MemoryOnly bool     `json:"memoryOnly,omitempty" doc:"Serve machines although nothing is kept."`
}

// YAML is the site file.
func (d Draft) YAML() []byte {
	var b strings.Builder
	b.WriteString("# Made by setup. docs/site.example.yaml explains each line.\n")
	item := func(indent, key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s%s: %s\n", indent, key, scalar(value))
		}
	}
	item("", "version", "1")
	item("", "name", d.Name)
	item("", "serviceAddress", d.Service)
	if d.MemoryOnly {
		b.WriteString("memoryOnly: true\n")
	}
	b.WriteString("links:\n")
	if d.MAC != "" {
		item("  ", "- mac", string(d.MAC))
	} else {
		item("  ", "- interface", d.Interface)
	}
	if d.VLAN != 0 {
		item("    ", "vlan", fmt.Sprint(d.VLAN))
	}
	item("    ", "address", d.Address)
	item("    ", "gateway", d.Gateway)
	if d.DHCP {
		b.WriteString("    dhcp:\n")
		item("      ", "from", d.From)
		item("      ", "to", d.To)
		item("      ", "router", d.Gateway)
		for i, s := range d.DNS {
			if i == 0 {
				b.WriteString("      dns:\n")
			}
			fmt.Fprintf(&b, "        - %s\n", scalar(s))
		}
	}
	if d.SSHKey != "" {
		fmt.Fprintf(&b, "sshKeys:\n  - %s\n", scalar(d.SSHKey))
	}
	return []byte(b.String())
}

// plainForm is text that YAML reads as it stands: it has nothing that could
// end it. Words that mean something else are in reserved.
var plainForm = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9 ._/+=@:-]*[A-Za-z0-9._/+=@-])?$`)

var reserved = []string{"true", "false", "yes", "no", "on", "off", "null", "y", "n"}

func scalar(s string) string {
	if plainForm.MatchString(s) && !strings.Contains(s, ": ") && !slices.Contains(reserved, strings.ToLower(s)) {
		return s
	}
	var b strings.Builder
	e := json.NewEncoder(&b) // YAML 1.2 reads JSON's strings
	e.SetEscapeHTML(false)
	if err := e.Encode(s); err != nil { // a string always can be
		return `""`
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// Problem says what the rules of the site file find wrong at some of its
// paths, as serviceAddress or links[0].dhcp.dns, and at the elements of lists
// there; nil if nothing. What is not answered yet elsewhere does not matter.
func (d Draft) Problem(paths ...string) error {
	_, err := Check("site.yaml", d.YAML())
	var list *site.Error
	if !errors.As(err, &list) {
		return err
	}
	for _, p := range list.Problems {
		if slices.ContainsFunc(paths, func(path string) bool {
			rest, below := strings.CutPrefix(p.Path, path)
			return below && (rest == "" || rest[0] == '[')
		}) {
			text := p.Text
			if p.Expected != "" {
				text += ": expected " + p.Expected
			}
			return errors.New(text)
		}
	}
	return nil
}

// DraftOf is the draft that would have made a site, as far as a draft can: of
// its first link, and of what is asked for.
func DraftOf(s machine.Site) Draft {
	d := Draft{Name: s.Name, MemoryOnly: s.MemoryOnly}
	text := func(a netip.Addr) string {
		if !a.IsValid() {
			return ""
		}
		return a.String()
	}
	d.Service = text(s.ServiceAddress)
	if len(s.SSHKeys) > 0 {
		d.SSHKey = s.SSHKeys[0]
	}
	if len(s.Links) == 0 {
		return d
	}
	l := s.Links[0]
	d.MAC, d.Interface, d.VLAN, d.Address, d.Gateway = l.MAC, l.Interface, l.VLAN, l.Address.String(), text(l.Gateway)
	if l.DHCP != nil {
		d.DHCP, d.From, d.To = true, text(l.DHCP.From), text(l.DHCP.To)
		for _, a := range l.DHCP.DNS {
			d.DNS = append(d.DNS, a.String())
		}
	}
	return d
}

// Lost names the parts of a site, by their keys in the site file, that DraftOf
// does not keep whole: what a new file made of it would lack.
func Lost(s machine.Site) []string {
	if s.Version == 0 { // none
		return nil
	}
	made, err := Check("site.yaml", DraftOf(s).YAML())
	if err != nil { // it cannot be made at all
		made = machine.Site{}
	}
	var keys []string
	was, is := reflect.ValueOf(s), reflect.ValueOf(made)
	for i := range was.NumField() {
		if !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			key, _, _ := strings.Cut(was.Type().Field(i).Tag.Get("json"), ",")
			keys = append(keys, key)
		}
	}
	return keys
}
