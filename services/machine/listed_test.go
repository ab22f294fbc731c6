package machine

import (
	"fmt"
	"strings"
	"testing"
)

func TestSwapUUID(t *testing.T) {
	for in, want := range map[string]string{
		"4c4c4544-0042-3510-8052-b4c04f4d3132": "44454c4c-4200-1035-8052-b4c04f4d3132",
		"4C4C4544-0042-3510-8052-B4C04F4D3132": "44454c4c-4200-1035-8052-b4c04f4d3132",
		"":                                     "",
		"4c4c4544":                             "",
		"4c4c4544-0042-3510-8052-b4c04f4d313x": "",
	} {
		got := SwapUUID(in)
		if got != want || want != "" && SwapUUID(got) != strings.ToLower(in) {
			t.Errorf("%q: %q, want %q and back", in, got, want)
		}
	}
}

// An entry is found by its UUID in either byte order, and by the best that it has.
func TestListedFirst(t *testing.T) {
	const (
		uuid, swapped = "4c4c4544-0042-3510-8052-b4c04f4d3132", "44454c4c-4200-1035-8052-b4c04f4d3132"
		other         = "11111111-2222-3333-4444-555555555555"
		mac, mac2     = MAC("52:54:00:00:00:01"), MAC("52:54:00:00:00:02")
	)
	m := Machine{UUID: uuid, MACs: []MAC{mac}}
	for name, c := range map[string]struct {
		list    []ListedMachine
		machine Machine
		want    string // name of the entry
	}{
		"UUID in upper case":       {[]ListedMachine{{UUID: strings.ToUpper(uuid), Name: "a"}}, m, "a"},
		"UUID swapped":             {[]ListedMachine{{UUID: swapped, Name: "a"}}, m, "a"},
		"UUID swapped, upper case": {[]ListedMachine{{UUID: strings.ToUpper(swapped), Name: "a"}}, m, "a"},
		"the very UUID first":      {[]ListedMachine{{UUID: swapped, Name: "a"}, {UUID: uuid, Name: "b"}}, m, "b"},
		"swapped before MAC":       {[]ListedMachine{{MAC: mac, Name: "a"}, {UUID: swapped, Name: "b"}}, m, "b"},
		"UUID before MAC":          {[]ListedMachine{{MAC: mac, Name: "a"}, {UUID: uuid, Name: "b"}}, m, "b"},
		"MAC, UUID not known yet":  {[]ListedMachine{{MAC: mac, UUID: other, Name: "a"}}, Machine{MACs: []MAC{mac}}, "a"},
		"nothing known":            {[]ListedMachine{{MAC: mac, Name: "a"}, {UUID: uuid, Name: "b"}}, Machine{}, ""},
	} {
		s := Site{Machines: c.list}
		got, found := s.Listed(c.machine)
		if got.Name != c.want || found != (c.want != "") {
			t.Errorf("%s: %+v, %v; want %q", name, got, found, c.want)
		}
	}
	for _, l := range []ListedMachine{{UUID: uuid}, {UUID: strings.ToUpper(swapped)}, {UUID: other}, {MAC: mac}} {
		if want := l.UUID != other && l.UUID != ""; l.HasUUID(strings.ToUpper(uuid)) != want || l.HasUUID("") {
			t.Errorf("%+v has UUID %s: want %v", l, uuid, want)
		}
	}
}

// TestExpected: who was seen, by UUID in either byte order or by hardware address,
// is expected no more.
func TestExpected(t *testing.T) {
	const uuid, swapped, other = "4c4c4544-0042-3510-8052-b4c04f4d3132", "44454c4c-4200-1035-8052-b4c04f4d3132", "11111111-2222-3333-4444-555555555555"
	mac := func(n int) MAC { return MAC(fmt.Sprintf("52:54:00:00:00:%02x", n)) }
	s := Site{Machines: []ListedMachine{
		{Name: "by-uuid", UUID: uuid}, {Name: "by-swapped-uuid", UUID: strings.ToUpper(swapped)}, {Name: "by-mac", MAC: mac(1)},
		{Name: "another-board", MAC: mac(1), UUID: other}, {Name: "away", MAC: mac(2)},
	}}
	names := func(seen ...Machine) (names string) {
		for _, l := range s.Expected(seen) {
			names += l.Name + " "
		}
		return names
	}
	for _, c := range []struct {
		seen []Machine
		want string
	}{
		{nil, "by-uuid by-swapped-uuid by-mac another-board away "},
		{[]Machine{{UUID: uuid, MACs: []MAC{mac(1)}}}, "another-board away "},
		{[]Machine{{MACs: []MAC{mac(2)}}, {}}, "by-uuid by-swapped-uuid by-mac another-board "},
		{[]Machine{{MACs: []MAC{mac(1)}}, {UUID: "no UUID", MACs: []MAC{mac(1)}}}, "by-uuid by-swapped-uuid away "},
		{[]Machine{{UUID: strings.ToUpper(other), MACs: []MAC{""}}}, "by-uuid by-swapped-uuid by-mac away "},
	} {
		if got := names(c.seen...); got != c.want {
			t.Errorf("%+v were seen: %q is expected, want %q", c.seen, got, c.want)
		}
	}
}

// TestExpectedOfMany: a list is compared with all machines in each pass of each
// stream, so that one cannot be compared with each of the others. What that would
// allocate tells.
func TestExpectedOfMany(t *testing.T) {
	const n = 300
	var s Site
	var seen []Machine
	for i := range n {
		s.Machines = append(s.Machines, ListedMachine{UUID: fmt.Sprintf("11111111-2222-3333-4444-%012x", i)})
		seen = append(seen, Machine{UUID: fmt.Sprintf("aaaaaaaa-bbbb-cccc-dddd-%012x", i)})
	}
	if got := testing.AllocsPerRun(1, func() { s.Expected(seen) }); got > 50*n {
		t.Errorf("%.0f allocations for %d machines and %d entries", got, n, n)
	}
}
