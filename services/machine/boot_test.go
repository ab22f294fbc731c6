package machine

import (
	"strings"
	"testing"
)

func TestNextBoot(t *testing.T) {
	disks := func(d ...Disk) *Machine { return &Machine{Inventory: &Inventory{Disks: d}} }
	empty := Disk{Path: "/dev/sda", Transport: "sata", Contents: "empty"}
	windows := Disk{Path: "/dev/sdb", Transport: "sata", Contents: "MBR, 1 partition: NTFS"}
	stick := Disk{Path: "/dev/sdc", Transport: "usb", Contents: "FAT"}
	card := Disk{Path: "/dev/sdd", Transport: "sata", Removable: true, Contents: "FAT"}
	unreadable := Disk{Path: "/dev/sde", Transport: "sata", Contents: "unreadable: I/O error"}
	intent := func(s IntentStatus) *Intent { return &Intent{ID: "i-1", Status: s} }
	for name, c := range map[string]struct {
		machine *Machine
		intent  *Intent
		kind    BootKind
		reason  string
	}{
		"never seen":                     {nil, nil, BootDiscovery, "never seen"},
		"only seen":                      {&Machine{Phase: PhaseSeen}, nil, BootDiscovery, "not looked at yet"},
		"waiting, disk empty":            {disks(empty), nil, BootDiscovery, "nothing is on its disks"},
		"waiting, no disk":               {disks(), nil, BootDiscovery, "nothing is on its disks"},
		"waiting, full":                  {disks(empty, windows), nil, BootLocal, "approve it in the console, or forget it"},
		"waiting, unreadable":            {disks(unreadable), nil, BootLocal, "not empty"},
		"media that somebody put in":     {disks(empty, stick, card), nil, BootDiscovery, "nothing is on its disks"},
		"approved":                       {disks(windows), intent(IntentOpen), BootInstall, "i-1 is open"},
		"installing":                     {disks(windows), intent(IntentClaimed), BootInstall, "i-1 is claimed"},
		"install failed":                 {disks(windows), intent(IntentFailed), BootInstall, "i-1 is failed"},
		"installed":                      {disks(empty), intent(IntentDone), BootLocal, "installed by intent i-1"},
		"installed, never inventoried":   {&Machine{}, intent(IntentDone), BootLocal, "installed by intent i-1"},
		"broken off, so its disk is not": {disks(windows), intent(IntentRevoked), BootDiscovery, "broken off"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := NextBoot(c.machine, c.intent); got.Kind != c.kind || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("boots %s: %s; want %s: %s", got.Kind, got.Reason, c.kind, c.reason)
			}
		})
	}
}

func TestOccupied(t *testing.T) {
	i := Inventory{Disks: []Disk{
		{Path: "/dev/sda", Serial: "A", Contents: "empty"},
		{Path: "/dev/sdb", Serial: "B", WWN: "w", Contents: "NTFS"},
		{Path: "/dev/sdc", Serial: "C", Transport: "usb", Contents: "FAT"},
	}}
	for hint, want := range map[DiskHint]string{
		{}: "/dev/sdb", {Serial: "A"}: "", {Serial: "B"}: "/dev/sdb", {WWN: "w"}: "/dev/sdb",
		{Path: "/dev/sda"}: "", {Serial: "A", WWN: "w"}: "", {Serial: "C"}: "/dev/sdc",
	} {
		got := ""
		if d := i.Occupied(hint); d != nil {
			got = d.Path
		}
		if got != want {
			t.Errorf("hint %+v: %q, want %q", hint, got, want)
		}
	}
}

func TestParseUUID(t *testing.T) {
	for s, want := range map[string]string{
		"4C4C4544-0042-3010-8051-B7C04F4A4E33":   "4c4c4544-0042-3010-8051-b7c04f4a4e33",
		" 4c4c4544-0042-3010-8051-b7c04f4a4e33 ": "4c4c4544-0042-3010-8051-b7c04f4a4e33",
		"FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF":   "", "00000000-0000-0000-0000-000000000000": "",
		"fefefefe-fefe-fefe-fefe-fefefefefefe": "", "03000200-0400-0500-0006-000700080009": "",
		"00020003-0004-0005-0006-000700080009": "", "12345678-1234-5678-90AB-CDDEEFAABBCC": "",
		"01020304-0506-0708-090a-0b0c0d0e0f10": "", "": "", "Not Specified": "", "4c4c4544": "",
		"4c4c4544-0042-3010-8051-b7c04f4a4e33\n4": "",
	} {
		if got := ParseUUID(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestListed(t *testing.T) {
	site := Site{Machines: []ListedMachine{
		{MAC: "52:54:00:00:00:01", Name: "by-mac"},
		{UUID: "AAAAAAAA-0000-4000-8000-000000000001", Name: "by-uuid"},
		{MAC: "52:54:00:00:00:02", UUID: "aaaaaaaa-0000-4000-8000-000000000002", Name: "both"},
	}}
	for _, c := range []struct {
		machine   Machine
		want, key string
	}{
		{Machine{MACs: []MAC{"52:54:00:00:00:01"}}, "by-mac", "mac:52:54:00:00:00:01"},
		{Machine{MACs: []MAC{"52:54:00:00:00:01"}, UUID: "aaaaaaaa-0000-4000-8000-000000000001"}, "by-uuid", "uuid:aaaaaaaa-0000-4000-8000-000000000001"},
		{Machine{MACs: []MAC{"52:54:00:00:00:02"}}, "both", "uuid:aaaaaaaa-0000-4000-8000-000000000002"},
		{Machine{MACs: []MAC{"52:54:00:00:00:02"}, UUID: "aaaaaaaa-0000-4000-8000-000000000009"}, "", ""},
	} {
		l, ok := site.Listed(c.machine)
		if l.Name != c.want || ok != (c.want != "") || ok && l.Key() != c.key {
			t.Errorf("%+v: %q, key %q", c.machine, l.Name, l.Key())
		}
	}
}
