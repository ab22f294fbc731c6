package site

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/crypto/ssh"

	"github.com/rackseed/rackseed/services/machine"
)

// check finds what is wrong between the values, and brings those that have
// several notations (UUIDs, digests) into one. One mistake is one problem: what
// only follows from another is not told.
func check(d *decoder, s *machine.Site) {
	if s.Name == "" || len(s.Name) > 63 || strings.ContainsFunc(s.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		d.problem("name", strconv.Quote(s.Name), "a name of 1 to 63 letters")
	}
	for _, list := range []struct {
		path      string
		has, most int
	}{{"links", len(s.Links), maxLinks}, {"profiles", len(s.Profiles), maxProfiles}, {"machines", len(s.Machines), maxMachines}} {
		if list.has > list.most {
			d.problem(list.path, fmt.Sprintf("%d of them", list.has), fmt.Sprintf("at most %d", list.most))
			return
		}
	}
	nets := checkLinks(d, s)
	checkService(d, s, nets)
	checkTime(d, "discovery.wait", s.Discovery.Wait, minWait, maxWait)
	checkPeople(d, s)
	checkProfiles(d, s)
	checkMachines(d, s, nets)
	checkPools(d, s, nets)
	checkCluster(d, s, nets)
}

// unique finds values that are given twice.
type unique[K comparable] struct {
	d    *decoder
	what string
	seen map[K]string
}

func newUnique[K comparable](d *decoder, what string) unique[K] {
	return unique[K]{d, what, map[K]string{}}
}

// add notes that path has the value k; the zero value is none.
func (u unique[K]) add(path string, k K) {
	if first, twice := u.at(k); twice {
		u.d.problem(path, fmt.Sprintf("%v is already at %s", k, first), "each "+u.what+" once")
		return
	}
	u.seen[k] = path
}

// at is where k was before.
func (u unique[K]) at(k K) (path string, twice bool) {
	var none K
	if k == none {
		return "", false
	}
	path, twice = u.seen[k]
	return path, twice
}

func checkPeople(d *decoder, s *machine.Site) {
	for i, key := range s.SSHKeys {
		if _, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(key)); err != nil || len(rest) > 0 || len(options) > 0 {
			d.problem(fmt.Sprintf("sshKeys[%d]", i), "not a public key", "one line as in a .pub file, as ssh-ed25519 AAAA… name")
		}
	}
	names := newUnique[string](d, "operator")
	for i := range s.Operators {
		o, path := &s.Operators[i], fmt.Sprintf("operators[%d]", i)
		names.add(path+".name", o.Name)
		if o.Name == "" {
			d.problem(path+".name", "no name", "the operator's name")
		}
		o.TokenSHA256 = strings.ToLower(o.TokenSHA256)
		if raw, err := hex.DecodeString(o.TokenSHA256); err != nil || len(raw) != 32 {
			// The text is not repeated: a token may stand there by mistake.
			d.problem(path+".tokenSHA256", "not a SHA-256 in hex", "64 hex digits, as printf %s TOKEN | sha256sum prints")
		}
	}
}

func checkCluster(d *decoder, s *machine.Site, nets []network) {
	subnets := []struct {
		path, whose string
		prefix      netip.Prefix
	}{
		{"cluster.podSubnet", "the pods'", orElse(s.Cluster.PodSubnet, defaultPodSubnet)},
		{"cluster.serviceSubnet", "the services'", orElse(s.Cluster.ServiceSubnet, defaultServiceSubnet)},
	}
	for _, n := range subnets {
		if n.prefix != n.prefix.Masked() {
			d.problem(n.path, n.prefix.String(), "the network's own address, "+n.prefix.Masked().String())
		}
		if n.prefix.Bits() > 24 {
			d.problem(n.path, n.prefix.String(), "a network of /24 or larger")
		}
	}
	pods, services := subnets[0], subnets[1]
	if services.prefix.Overlaps(pods.prefix) {
		d.problem(services.path, fmt.Sprintf("%s overlaps the pods' %s", services.prefix, pods.prefix), "a network that nothing else uses")
	}
	for _, l := range nets {
		switch p := l.prefix; {
		case !p.IsValid():
		case p.Overlaps(pods.prefix) && p.Overlaps(services.prefix):
			d.problem(l.path+".address", fmt.Sprintf("%s overlaps the pods' %s and the services' %s", p, pods.prefix, services.prefix),
				"a smaller network here, or other ones in cluster.podSubnet and cluster.serviceSubnet")
		default:
			for _, n := range subnets {
				if p.Overlaps(n.prefix) {
					d.problem(n.path, fmt.Sprintf("%s overlaps %s, %s", n.prefix, l.path, p), "a network that nothing else uses")
				}
			}
		}
	}
	for i, name := range s.Cluster.ExtraSANs {
		if name == "" || strings.ContainsAny(name, " \t\r\n/") {
			d.problem(fmt.Sprintf("cluster.extraSANs[%d]", i), strconv.Quote(name), "a host name or an address")
		}
	}
}

func orElse(p, standard netip.Prefix) netip.Prefix {
	if p.IsValid() {
		return p
	}
	return standard
}
