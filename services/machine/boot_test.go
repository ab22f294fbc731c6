package machine

import (
	"strings"
	"testing"
	"time"
)

func TestNextBoot(t *testing.T) {
	disks := func(d ...Disk) *Machine { return &Machine{Inventory: &Inventory{Disks: d}} }
	empty := Disk{Path: "/dev/sda", Transport: "sata", Contents: "empty"}
	windows := Disk{Path: "/dev/sdb", Transport: "sata", Contents: "MBR, 1 partition: NTFS"}
	stick := Disk{Path: "/dev/sdc", Transport: "usb", Contents: "FAT"}
	card := Disk{Path: "/dev/sdd", Transport: "sata", Removable: true, Contents: "FAT"}
	unreadable := Disk{Path: "/dev/sde", Transport: "sata", Contents: "unreadable: I/O error"}
	intent := func(s IntentStatus) *Intent { return &Intent{ID: "i-1", Status: s} }
	written := func(s IntentStatus) *Intent { return &Intent{ID: "i-1", Status: s, Written: true} }
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	closed, open, listed := Circumstances{Now: now}, Circumstances{Now: now, Window: true}, Circumstances{Now: now, Listed: true}
	rescue := func(s IntentStatus) Circumstances {
		return Circumstances{Now: now, Rescue: &Intent{ID: "r-1", Kind: IntentRescue, Status: s}}
	}
	invited := func(until time.Time) *Machine {
		m := disks(windows)
		m.Invited = until
		return m
	}
	left := func(m *Machine) *Machine {
		m.Session = &Session{Left: now.Add(-time.Hour)}
		return m
	}
	broken := Disk{Path: "/dev/sda", Transport: "sata", Contents: BrokenOff}
	leftAndInvited := left(disks(stick))
	leftAndInvited.Invited = now.Add(1)
	refused := func(m *Machine, at time.Time) *Machine {
		m.Refused = &Refused{At: at, Why: "its inventory is too large"}
		return m
	}
	opened := Circumstances{Now: now, Window: true, Opened: now.Add(-time.Minute)}
	for name, c := range map[string]struct {
		machine       *Machine
		intent        *Intent
		circumstances Circumstances
		kind          BootKind
		reason        string
	}{
		"refused while the window is open":  {refused(&Machine{}, now), nil, opened, BootLocal, "refused: its inventory is too large; mend that"},
		"refused before it was opened":      {refused(&Machine{}, now.Add(-time.Hour)), nil, opened, BootDiscovery, "not looked at yet"},
		"refused, the window always open":   {refused(&Machine{}, now.Add(-time.Hour)), nil, open, BootLocal, "refused"},
		"refused, listed":                   {refused(&Machine{}, now), nil, listed, BootLocal, "refused"},
		"refused, invited":                  {refused(invited(now.Add(1)), now), nil, opened, BootDiscovery, "asked to have it looked at"},
		"refused, approved":                 {refused(&Machine{}, now), intent(IntentOpen), opened, BootInstall, "i-1 is open"},
		"never seen, window closed":         {nil, nil, closed, BootLocal, "the discovery window is closed"},
		"never seen, window open":           {nil, nil, open, BootDiscovery, "never seen"},
		"never seen, listed":                {nil, nil, listed, BootDiscovery, "never seen"},
		"only seen, window closed":          {&Machine{Phase: PhaseSeen}, nil, closed, BootLocal, "the discovery window is closed"},
		"only seen, window open":            {&Machine{Phase: PhaseSeen}, nil, open, BootDiscovery, "not looked at yet"},
		"only seen, listed":                 {&Machine{Phase: PhaseSeen}, nil, listed, BootDiscovery, "not looked at yet"},
		"disk empty, window closed":         {disks(empty), nil, closed, BootLocal, "the discovery window is closed"},
		"disk empty, window open":           {disks(empty), nil, open, BootDiscovery, "nothing is on its disks"},
		"disk empty, listed":                {disks(empty), nil, listed, BootDiscovery, "nothing is on its disks"},
		"no disk, window open":              {disks(), nil, open, BootDiscovery, "nothing is on its disks"},
		"disk full, window open":            {disks(empty, windows), nil, open, BootLocal, "not empty"},
		"disk full, listed":                 {disks(windows), nil, listed, BootLocal, "not empty"},
		"disk full, invited":                {invited(now.Add(1)), nil, closed, BootDiscovery, "an operator asked to have it looked at"},
		"disk full, invited till now":       {invited(now), nil, open, BootLocal, "not empty"},
		"invited and installed":             {invited(now.Add(1)), intent(IntentDone), open, BootLocal, "installed by"},
		"disk unreadable":                   {disks(unreadable), nil, open, BootLocal, "not empty"},
		"media that somebody put in":        {disks(empty, stick, card), nil, open, BootDiscovery, "nothing is on its disks"},
		"approved":                          {disks(windows), intent(IntentOpen), closed, BootInstall, "i-1 is open"},
		"installing":                        {disks(windows), intent(IntentClaimed), closed, BootInstall, "i-1 is claimed"},
		"install failed":                    {disks(windows), intent(IntentFailed), closed, BootInstall, "i-1 is failed"},
		"installed":                         {disks(empty), intent(IntentDone), open, BootLocal, "installed by intent i-1"},
		"installed, never inventoried":      {&Machine{}, intent(IntentDone), open, BootLocal, "installed by intent i-1"},
		"broken off in the middle":          {disks(windows), written(IntentRevoked), closed, BootDiscovery, "broken off"},
		"revoked before anything":           {disks(windows), intent(IntentRevoked), open, BootLocal, "not empty"},
		"revoked before anything, empty":    {disks(empty), intent(IntentRevoked), closed, BootLocal, "window is closed"},
		"installed, rescue asked for":       {disks(windows), intent(IntentDone), rescue(IntentOpen), BootRescue, "rescue"},
		"installed, rescue over":            {disks(windows), intent(IntentDone), rescue(IntentDone), BootLocal, "installed by"},
		"approved, rescue asked for":        {disks(windows), intent(IntentOpen), rescue(IntentOpen), BootRescue, "rescue"},
		"sent back, nothing to boot":        {left(disks(empty)), nil, open, BootDiscovery, "nothing is on its disks"},
		"sent back, no disk seen":           {left(disks()), nil, open, BootLocal, "nobody approved it in time"},
		"sent back, its system on a stick":  {left(disks(empty, stick)), nil, open, BootLocal, "nobody approved it in time"},
		"sent back, listed":                 {left(disks(stick)), nil, listed, BootLocal, "nobody approved it in time"},
		"sent back, and invited":            {leftAndInvited, nil, closed, BootDiscovery, "an operator asked"},
		"sent back, approved by then":       {left(disks(stick)), intent(IntentOpen), closed, BootInstall, "i-1 is open"},
		"sent back after broken off":        {left(disks(broken)), written(IntentRevoked), closed, BootDiscovery, "broken off"},
		"sent back, and mended by hand":     {left(disks(windows)), written(IntentRevoked), open, BootLocal, "not empty"},
		"unknown cannot be asked to rescue": {nil, nil, rescue(IntentOpen), BootLocal, "window is closed"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := NextBoot(c.machine, c.intent, c.circumstances); got.Kind != c.kind || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("boots %s: %s; want %s: %s", got.Kind, got.Reason, c.kind, c.reason)
			}
		})
	}
}

func TestTells(t *testing.T) {
	i := Inventory{Disks: []Disk{
		{Path: "/dev/sda", Serial: "A"}, {Path: "/dev/sdb", Serial: "0123456789"}, {Path: "/dev/sdc", Serial: "0123456789"},
		{Path: "/dev/sdd"}, {Path: "/dev/sde", WWN: "naa.5"}, {Path: "/dev/sdf", Serial: "0123456789", WWN: "naa.6"},
	}}
	want := []bool{true, false, false, false, true, true}
	for n, d := range i.Disks {
		if got := i.Tells(d); got != want[n] {
			t.Errorf("%s: %v", d.Path, got)
		}
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

// Who asks what to boot has restarted: nothing of it waits, or serves a shell.
func TestPhaseTold(t *testing.T) {
	done := &Intent{ID: "i-1", Status: IntentDone}
	for name, c := range map[string]struct {
		phase   Phase
		install *Intent
		told    BootKind
		want    Phase
		reason  string
	}{
		"seen, to its disk":             {PhaseSeen, nil, BootLocal, PhaseLocal, "its own disk: because"},
		"seen, to be looked at":         {PhaseSeen, nil, BootDiscovery, PhaseSeen, ""},
		"waiting, to its disk":          {PhaseWaiting, nil, BootLocal, PhaseLocal, "its own disk: because"},
		"waiting, to be looked at":      {PhaseWaiting, nil, BootDiscovery, PhaseWaiting, "before"},
		"rescue, to its disk":           {PhaseRescue, nil, BootLocal, PhaseLocal, "its own disk: because"},
		"rescue of a node, to its disk": {PhaseRescue, done, BootLocal, PhaseInstalled, "again"},
		"rescue, to be looked at":       {PhaseRescue, nil, BootDiscovery, PhaseSeen, ""},
		"local, to its disk":            {PhaseLocal, nil, BootLocal, PhaseLocal, "because"},
		"local, to be looked at":        {PhaseLocal, nil, BootDiscovery, PhaseSeen, ""},
		"local, to a shell":             {PhaseLocal, nil, BootRescue, PhaseSeen, ""},
		"approved":                      {PhaseApproved, nil, BootInstall, PhaseApproved, "before"},
		"ready":                         {PhaseReady, done, BootLocal, PhaseReady, "before"},
		"failed as a node":              {PhaseFailed, done, BootLocal, PhaseFailed, "before"},
	} {
		m := Machine{Phase: c.phase, Reason: "before"}
		if phase, reason := m.PhaseTold(c.install, BootDecision{c.told, "because"}); phase != c.want || !strings.Contains(reason, c.reason) || c.reason == "" && reason != "before" && reason != "" {
			t.Errorf("%s: %s, %q; want %s, %q", name, phase, reason, c.want, c.reason)
		}
	}
}

func TestPhaseHeard(t *testing.T) {
	rescue := &Intent{Session: "s-1", Status: IntentDone}
	open := &Intent{Status: IntentOpen}
	for name, c := range map[string]struct {
		phase           Phase
		left            bool
		install, rescue *Intent
		want            Phase // "": as before
	}{
		"waiting":                         {PhaseWaiting, false, nil, nil, ""},
		"spoken for":                      {PhaseLocal, false, nil, nil, PhaseWaiting},
		"spoken for in a shell":           {PhaseLocal, false, nil, rescue, PhaseRescue},
		"a node, spoken for in a shell":   {PhaseInstalled, false, &Intent{Status: IntentDone}, rescue, PhaseRescue},
		"installed, a shell long ago":     {PhaseInstalled, false, nil, &Intent{Session: "s-0"}, ""},
		"in a shell":                      {PhaseRescue, false, nil, rescue, ""},
		"on its way to its disk":          {PhaseLocal, true, nil, nil, ""},
		"approved after it was told":      {PhaseApproved, false, open, nil, ""},
		"spoken for, with a live order":   {PhaseSeen, false, open, nil, ""},
		"spoken for, to be looked at":     {PhaseSeen, false, nil, nil, PhaseWaiting},
		"its node was up since the shell": {PhaseReady, false, nil, rescue, ""},
	} {
		m := Machine{Phase: c.phase, Reason: "before", Session: &Session{ID: "s-1"}}
		if c.left {
			m.Session.Left = time.Unix(1, 0)
		}
		phase, reason, back := m.PhaseHeard(c.install, c.rescue)
		if back != (c.want != "") || back && (phase != c.want || reason == "before") || !back && (phase != c.phase || reason != "before") {
			t.Errorf("%s: %s, %q, %v; want %q", name, phase, reason, back, c.want)
		}
	}
	if _, _, back := (&Machine{Phase: PhaseSeen}).PhaseHeard(nil, nil); back {
		t.Error("it has no session, and was heard of")
	}
}

func TestWaitEnds(t *testing.T) {
	opened := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	revoked := opened.Add(time.Hour)
	for name, c := range map[string]struct {
		phase   Phase
		session *Session
		install *Intent
		ends    bool // a minute after it was opened, or its install was revoked
	}{
		"waits":                          {PhaseWaiting, &Session{ID: "s-1", Opened: opened}, nil, true},
		"no session":                     {PhaseWaiting, nil, nil, false},
		"left":                           {PhaseWaiting, &Session{ID: "s-1", Opened: opened, Left: opened}, nil, false},
		"went to its disk":               {PhaseLocal, &Session{ID: "s-1", Opened: opened}, nil, false},
		"approved":                       {PhaseWaiting, &Session{ID: "s-1", Opened: opened}, &Intent{Session: "s-1", Status: IntentOpen}, false},
		"revoked before a write":         {PhaseWaiting, &Session{ID: "s-1", Opened: opened}, &Intent{Session: "s-1", Status: IntentRevoked, Changed: revoked}, true},
		"revoked by a wrong clock":       {PhaseWaiting, &Session{ID: "s-1", Opened: opened}, &Intent{Session: "s-1", Status: IntentRevoked, Changed: opened.Add(-time.Hour)}, true},
		"revoked, its disk is not whole": {PhaseWaiting, &Session{ID: "s-1", Opened: opened}, &Intent{Session: "s-1", Status: IntentRevoked, Written: true}, false},
		"cut off in an older session":    {PhaseWaiting, &Session{ID: "s-1", Opened: opened}, &Intent{Session: "s-0", Status: IntentRevoked, Changed: revoked, Written: true}, true},
	} {
		m := Machine{Phase: c.phase, Session: c.session}
		want := opened.Add(time.Minute)
		if name == "revoked before a write" {
			want = revoked.Add(time.Minute)
		}
		if ends := m.WaitEnds(c.install, time.Minute); ends.IsZero() == c.ends || c.ends && !ends.Equal(want) {
			t.Errorf("%s: %v", name, ends)
		}
	}
}
