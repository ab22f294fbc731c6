package site

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/rackseed/rackseed/services/machine"
)

var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// hostNames is what is expected of names of machines and profiles.
const hostNames = "lower-case letters, digits and hyphens, at most 63"

// ownArguments are those of a node's kernel command line that Rackseed sets.
var ownArguments = []string{"root=", "rackseed.", "systemd.gpt_auto="}

func checkProfiles(d *decoder, s *machine.Site) {
	names := newUnique[string](d, "profile")
	for i, p := range s.Profiles {
		path := fmt.Sprintf("profiles[%d]", i)
		names.add(path+".name", p.Name)
		if !machine.IsHostName(p.Name) {
			d.problem(path+".name", strconv.Quote(p.Name), hostNames)
		}
		checkGlob(d, path+".selector.manufacturer", p.Selector.Manufacturer)
		checkGlob(d, path+".selector.product", p.Selector.Product)
		checkGlob(d, path+".selector.serial", p.Selector.Serial)
		checkGlob(d, path+".selector.assetTag", p.Selector.AssetTag)
		checkDisk(d, path+".disk", p.Disk)
		checkLabels(d, path+".labels", p.Labels)
		checkTaints(d, path+".taints", p.Taints)
		for j, a := range p.KernelArguments {
			checkArgument(d, fmt.Sprintf("%s.kernelArguments[%d]", path, j), a)
		}
	}
}

// checkGlob checks what is compared by path.Match.
func checkGlob(d *decoder, at, pattern string) {
	if _, err := path.Match(pattern, ""); err != nil {
		d.problem(at, strconv.Quote(pattern), `a text in which * stands for any letters, ? for one, [ab] for one of these; \[ is a bracket itself`)
	}
}

// checkDisk finds hints that no disk can ever have.
func checkDisk(d *decoder, at string, h machine.DiskHint) {
	checkGlob(d, at+".model", h.Model)
	if p := h.Path; p != "" && (!strings.HasPrefix(p, "/dev/") || strings.HasPrefix(p, "/dev/disk/")) {
		d.problem(at+".path", strconv.Quote(p), "the device's own name, as /dev/sda, or better a serial number or WWN, which do not change")
	}
	switch strings.ToLower(h.Transport) {
	case "", "nvme", "sata", "sas", "virtio", "fc", "iscsi":
	case "usb", "mmc":
		d.problem(at+".transport", strconv.Quote(h.Transport)+" cannot be installed on", "nvme, sata, sas, virtio, fc or iscsi")
	default:
		d.problem(at+".transport", strconv.Quote(h.Transport), "nvme, sata, sas, virtio, fc or iscsi")
	}
	switch {
	case h.MaxSize > 0 && h.MinSize > h.MaxSize:
		d.problem(at+".maxSize", fmt.Sprintf("%s, less than minSize, %s", h.MaxSize, h.MinSize), "at least as much")
	case h.MaxSize > 0 && h.MaxSize < machine.MinDiskBytes:
		d.problem(at+".maxSize", h.MaxSize.String(), fmt.Sprintf("at least %s, which a node needs", machine.Size(machine.MinDiskBytes)))
	}
}

// checkLabels holds labels of nodes to the rules of Kubernetes, which takes a
// node with a wrong one not at all.
func checkLabels(d *decoder, at string, labels map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		path := join(at, name)
		switch {
		case len(content.IsLabelKey(name)) > 0:
			d.problem(path, "no name of a label", "letters, digits, -, _ and ., at most 63, behind a domain of your own, as example.org/rack")
		case len(content.IsLabelValue(labels[name])) > 0:
			d.problem(path, strconv.Quote(labels[name]), "letters, digits, -, _ and ., at most 63, the first and last one a letter or digit")
		case machine.IsKubeletLabel(name):
			d.problem(path, "every node's kubelet sets this label itself", "a domain of your own, as example.org/"+name[strings.Index(name, "/")+1:])
		}
	}
}

func checkTaints(d *decoder, at string, taints []string) {
	seen := newUnique[string](d, "key and effect")
	for i, t := range taints {
		path := fmt.Sprintf("%s[%d]", at, i)
		head, effect, found := strings.Cut(t, ":")
		name, value, _ := strings.Cut(head, "=")
		if !found || !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect) ||
			len(content.IsLabelKey(name)) > 0 || len(content.IsLabelValue(value)) > 0 {
			d.problem(path, strconv.Quote(t), "key=value:effect, the effect NoSchedule, PreferNoSchedule or NoExecute")
			continue
		}
		seen.add(path, name+":"+effect)
	}
}

// checkArgument refuses what the installer cannot write into GRUB's
// configuration, and what Rackseed sets itself.
func checkArgument(d *decoder, at, a string) {
	for _, own := range ownArguments {
		if strings.HasPrefix(a, own) {
			d.problem(at, strconv.Quote(a)+" is Rackseed's own", "another argument")
		}
	}
	if a == "" || strings.ContainsFunc(a, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'`\\$;&|<>{}*?[]#", r) }) {
		d.problem(at, strconv.Quote(a), "one argument, without spaces, quotes and \\ $ ; & | < > { } * ? [ ] #")
	}
}

func checkMachines(d *decoder, s *machine.Site, nets []network) {
	macs, uuids := newUnique[machine.MAC](d, "hardware address"), newUnique[string](d, "UUID")
	names, addresses := newUnique[string](d, "name"), newUnique[netip.Addr](d, "address")
	profiles := profileNames(s)
	var elsewhere []int           // those with an address that no link serves
	nowhere := map[string][]int{} // those with a profile that is not there
	for i := range s.Machines {
		m, path := &s.Machines[i], fmt.Sprintf("machines[%d]", i)
		m.UUID = strings.ToLower(m.UUID)
		if m.MAC == "" && m.UUID == "" && !d.bad[path+".mac"] && !d.bad[path+".uuid"] {
			d.problem(path, "neither mac nor uuid", "one of them, to know the machine by")
		}
		checkMAC(d, path+".mac", m.MAC)
		if again(d, path, found(macs, ".mac", m.MAC), found(uuids, ".uuid", m.UUID), found(names, ".name", m.Name), found(addresses, ".address", m.Address)) {
			continue
		}
		checkUUID(d, path+".uuid", m.UUID, uuids)
		if m.Name != "" && !machine.IsHostName(m.Name) {
			d.problem(path+".name", strconv.Quote(m.Name), "a host name: "+hostNames)
		}
		if p := m.Profile; p != "" && !slices.Contains(profiles, p) {
			nowhere[p] = append(nowhere[p], i)
		}
		checkDisk(d, path+".disk", m.Disk)
		macs.add(path+".mac", m.MAC)
		names.add(path+".name", m.Name)
		addresses.add(path+".address", m.Address)
		if m.Address.IsValid() && !checkStatic(d, path+".address", s, m, nets) {
			elsewhere = append(elsewhere, i)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(nowhere)) {
		if !d.broken("profiles") {
			d.problem(fmt.Sprintf("machines[%d].profile", nowhere[p][0]), "no profile "+strconv.Quote(p)+andMore(nowhere[p], ", which %d more machines have"),
				"one of "+strings.Join(profiles, ", "))
		}
	}
	if len(elsewhere) > 0 && !d.broken("links") {
		first := elsewhere[0]
		d.problem(fmt.Sprintf("machines[%d].address", first), s.Machines[first].Address.String()+" is in the network of no link with dhcp"+andMore(elsewhere, ", nor are those of %d more machines"),
			"an address in one of them, so that the machine finds the boot service")
	}
}

// same is a key of an entry whose value another entry has, too.
type same struct{ key, entry string }

// found says which entry has the value of a key, if one has.
func found[K comparable](u unique[K], key string, k K) same {
	path, _ := u.at(k)
	return same{key, strings.TrimSuffix(path, key)}
}

// again tells an entry that has several values of one before it: it was copied,
// which is one mistake.
func again(d *decoder, path string, values ...same) bool {
	keys := map[string][]string{}
	for _, v := range values {
		if v.entry != "" {
			keys[v.entry] = append(keys[v.entry], v.key[1:])
		}
	}
	for _, entry := range slices.Sorted(maps.Keys(keys)) {
		if k := keys[entry]; len(k) > 1 {
			d.problem(path, strings.Join(k[:len(k)-1], ", ")+" and "+k[len(k)-1]+" are those of "+entry, "each machine once")
			return true
		}
	}
	return false
}

// andMore counts the machines after the first, in words that hold the number.
func andMore(machines []int, words string) string {
	if len(machines) == 1 {
		return ""
	}
	return fmt.Sprintf(words, len(machines)-1)
}

// profileNames are those of the file, or of complete's.
func profileNames(s *machine.Site) (names []string) {
	if len(s.Profiles) == 0 {
		return []string{string(machine.RoleControlPlane), string(machine.RoleWorker)}
	}
	for _, p := range s.Profiles {
		names = append(names, p.Name)
	}
	return names
}

// checkMAC refuses addresses that no network card can have: groups' (the lowest
// bit of the first octet, IEEE 802), of which that of all ones is everybody's, and
// zero.
func checkMAC(d *decoder, at string, mac machine.MAC) {
	const expected = "the hardware address of one network card"
	octets, err := net.ParseMAC(string(mac))
	switch {
	case err != nil: // none, or told already
	case mac == "ff:ff:ff:ff:ff:ff":
		d.problem(at, string(mac)+" is the broadcast address", expected)
	case octets[0]&1 != 0:
		d.problem(at, string(mac)+" is a multicast address", expected)
	case mac == "00:00:00:00:00:00":
		d.problem(at, string(mac)+" is nobody's", expected)
	}
}

// checkUUID refuses what no one machine can be known by, and the same UUID in
// either byte order twice: the list finds both.
func checkUUID(d *decoder, at, uuid string, seen unique[string]) {
	switch {
	case uuid == "":
	case !uuidForm.MatchString(uuid):
		d.problem(at, strconv.Quote(uuid), "a UUID, as 4c4c4544-0042-3510-8052-b4c04f4d3132")
	case machine.ParseUUID(uuid) == "" || machine.ParseUUID(machine.SwapUUID(uuid)) == "":
		d.problem(at, uuid+" is in the firmware of many boards, whose makers did not bother", "mac instead, to know the machine by")
	case seen.seen[uuid] == "" && seen.seen[machine.SwapUUID(uuid)] != "":
		d.problem(at, uuid+" is that of "+seen.seen[machine.SwapUUID(uuid)]+" in the other byte order", "each machine once")
	default:
		seen.add(at, uuid)
	}
}

// checkStatic checks a machine's static address against the links. It returns
// false if no link serves it.
func checkStatic(d *decoder, path string, s *machine.Site, m *machine.ListedMachine, nets []network) bool {
	a := m.Address
	if a == s.ServiceAddress {
		d.problem(path, a.String()+" is the service address", "an address of the machine's own")
		return true
	}
	for _, n := range nets {
		if !n.serves(a) {
			continue
		}
		l := n.link
		if a == l.Address.Addr() || a == l.Gateway || a == l.DHCP.Router {
			d.problem(path, fmt.Sprintf("%s is taken by the appliance or the router of %s", a, n.path), "a free address")
		}
		for j, r := range l.DHCP.Reservations {
			if r.Address == a && r.MAC != m.MAC {
				d.problem(path, fmt.Sprintf("%s is reserved for %s by %s.dhcp.reservations[%d]", a, r.MAC, n.path, j), "a free address")
			}
		}
		return true
	}
	return false
}
