package approve

import (
	"errors"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// The disk that an approval is for, and what it says may be lost there.
func TestDisk(t *testing.T) {
	hint := func(serial string) *machine.DiskHint { return &machine.DiskHint{Serial: serial} }
	const precious = `GPT, 1 partition: ext4 "precious"`
	cut := func(v *view, m *machine.Machine, c state.CutOff) {
		windows(m)
		m.Inventory.Disks[0].Contents = machine.BrokenOff
		v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentRevoked, Disk: machine.DiskHint{Serial: "A"}}
		v.cut = &c
	}
	found := func(contents string) func(*view, *machine.Machine, *Wish) {
		return func(v *view, m *machine.Machine, w *Wish) {
			cut(v, m, state.CutOff{Writing: true, Same: true, Disk: *hint("A"), Name: "node-1"})
			m.Inventory.Disks[0].Contents = contents
			v.intents["m-1"].Erase = ntfs
		}
	}
	for name, c := range map[string]struct {
		change func(*view, *machine.Machine, *Wish)
		want   string // serial number and what may be lost; or parts of the error separated by |
	}{
		"the only one": {func(v *view, m *machine.Machine, w *Wish) {}, "A"},
		"several": {func(v *view, m *machine.Machine, w *Wish) { windows(m) },
			"error|machine m-1: 2 disks|/dev/sda, serial A, 447.1 GiB, empty; /dev/sdb, serial B, 447.1 GiB, " + ntfs},
		"none": {func(v *view, m *machine.Machine, w *Wish) { m.Inventory.Disks[0].SectorSize = 4096 },
			"error|no disk to install on|/dev/sda, serial A, 447.1 GiB, empty (not usable: its sectors have 4096 bytes"},
		"not there": {func(v *view, m *machine.Machine, w *Wish) { w.Disk = hint("X") }, "error|no disk has serial number X; there are: /dev/sda, serial A"},
		"the list's, not there": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Disk: *hint("X")}}
		}, "error|no disk has serial number X|(asked for by the site file's list)"},
		"the profile's, not there": {func(v *view, m *machine.Machine, w *Wish) { v.site.Profiles[1].Disk.Serial = "X" },
			`error|no disk has serial number X|(asked for by profile "control-plane")`},
		"wish before list before profile": {func(v *view, m *machine.Machine, w *Wish) {
			windows(m)
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdc", "C", machine.Empty))
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Disk: *hint("C")}}
			v.site.Profiles[1].Disk.Serial = "B"
			w.Disk = hint("A")
		}, "A"},
		"list before profile": {func(v *view, m *machine.Machine, w *Wish) {
			windows(m)
			v.site.Machines = []machine.ListedMachine{{MAC: mac1, Disk: *hint("A")}}
			v.site.Profiles[1].Disk.Serial = "B"
		}, "A"},
		"profile": {func(v *view, m *machine.Machine, w *Wish) {
			windows(m)
			v.site.Profiles[1].Disk = machine.DiskHint{MaxSize: 500e9, Model: "fast*"}
			m.Inventory.Disks[0].Model = "Fast 480"
		}, "A"},
		"the wish takes the hints back": {func(v *view, m *machine.Machine, w *Wish) {
			v.site.Profiles[1].Disk.Serial = "X"
			w.Disk = &machine.DiskHint{}
		}, "A"},
		"one serial number for two": {func(v *view, m *machine.Machine, w *Wish) {
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdb", "A", machine.Empty))
			w.Disk = &machine.DiskHint{Path: "/dev/sdb"}
		}, "A /dev/sdb"},
		"nothing said of it": {func(v *view, m *machine.Machine, w *Wish) { m.Inventory.Disks[0].Contents = "" }, "error|did not say what is on it"},

		"full, nothing confirmed": {func(v *view, m *machine.Machine, w *Wish) {
			windows(m)
			w.Disk = hint("B")
		}, "error|machine m-1: disk /dev/sdb, serial B, 447.1 GiB, " + ntfs + ": what is on it would be lost|the same rackseed approve once more, with --erase 'MBR, 1 partition: NTFS (Windows)'"},
		"full, confirmed": {func(v *view, m *machine.Machine, w *Wish) {
			windows(m)
			w.Disk, w.Erase = hint("B"), ntfs
		}, "B erases " + ntfs},
		"full, something else confirmed": {func(v *view, m *machine.Machine, w *Wish) {
			windows(m)
			w.Disk, w.Erase = hint("B"), "ext4"
		}, "error|what was confirmed as lost is ext4: look again"},
		"empty, something confirmed": {func(v *view, m *machine.Machine, w *Wish) { w.Erase = ntfs }, "error|what was confirmed as lost is " + ntfs},
		"empty, and said so":         {func(v *view, m *machine.Machine, w *Wish) { w.Erase = machine.Empty }, "A"},
		"a word for a shell": {func(v *view, m *machine.Machine, w *Wish) { m.Inventory.Disks[0].Contents = `ext4 "Ann's"` },
			`error|--erase 'ext4 "Ann'\''s"'`},

		"revoked in the middle": {func(v *view, m *machine.Machine, w *Wish) {
			v.half = *hint("A")
		}, "A erases " + machine.BrokenOff},
		"revoked in the middle, the other one wished": {func(v *view, m *machine.Machine, w *Wish) {
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdb", "B", machine.Empty))
			v.half, w.Disk = *hint("A"), hint("B")
		}, "B"},
		"cut off": {func(v *view, m *machine.Machine, w *Wish) {
			cut(v, m, state.CutOff{Writing: true, Same: true, Disk: *hint("A")})
		}, "A erases " + machine.BrokenOff},
		"cut off before its first write":                  {found(machine.Empty), "A"},
		"cut off before its first write onto a full disk": {found(ntfs), "A erases " + ntfs},
		"cut off at its very end":                         {found("Rackseed node node-1"), "A erases Rackseed node node-1"},
		"cut off, and another node's since":               {found("Rackseed node node-2"), "error|/dev/sda, serial A|Rackseed node node-2: what is on it would be lost"},
		"cut off, and somebody wrote to the disk since":   {found(precious), "error|/dev/sda, serial A|" + precious + ": what is on it would be lost"},
		"cut off, and the paths may be others since": {func(v *view, m *machine.Machine, w *Wish) {
			m.Inventory.Disks = []machine.Disk{drive("/dev/sda", "", ntfs), drive("/dev/sdb", "", machine.BrokenOff)}
			v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentRevoked, Disk: machine.DiskHint{Path: "/dev/sda"}}
			v.cut = &state.CutOff{Writing: true, Same: true, Disk: machine.DiskHint{Path: "/dev/sda"}}
		}, "error|/dev/sda|would be lost"},
		"cut off, and two with one serial number": {func(v *view, m *machine.Machine, w *Wish) {
			m.Inventory.Disks = []machine.Disk{drive("/dev/sda", "A", ntfs), drive("/dev/sdb", "A", machine.BrokenOff)}
			v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentRevoked, Disk: machine.DiskHint{Serial: "A", Path: "/dev/sda"}}
			v.cut = &state.CutOff{Writing: true, Same: true, Disk: *hint("A")}
		}, "error|2 disks have serial number A, and one must be chosen"},
		"cut off, known by what is on it": {func(v *view, m *machine.Machine, w *Wish) {
			m.Inventory.Disks = []machine.Disk{drive("/dev/sda", "", machine.BrokenOff)}
			v.cut = &state.CutOff{Writing: true, Same: true, Disk: machine.DiskHint{Path: "/dev/sda"}}
		}, "/dev/sda erases " + machine.BrokenOff},
		"cut off, the other one wished": {func(v *view, m *machine.Machine, w *Wish) {
			cut(v, m, state.CutOff{Writing: true, Same: true, Disk: *hint("A")})
			w.Disk = hint("B")
		}, "error|/dev/sdb, serial B|would be lost"},
		"cut off, but the disk of that name is another": {func(v *view, m *machine.Machine, w *Wish) {
			cut(v, m, state.CutOff{Writing: true, Same: true, Disk: machine.DiskHint{Serial: "A", WWN: "5000c500a1b2c3d4"}})
		}, "error|/dev/sda, serial A|would be lost"},
		"cut off before it wrote": {func(v *view, m *machine.Machine, w *Wish) {
			cut(v, m, state.CutOff{Same: true})
		}, "error|/dev/sda, serial A|would be lost"},
		"cut off, other hardware": {func(v *view, m *machine.Machine, w *Wish) {
			cut(v, m, state.CutOff{Writing: true, Disk: *hint("A")})
		}, "error|2 disks could be installed on"},
	} {
		t.Run(name, func(t *testing.T) {
			v, m := lab()
			var w Wish
			c.change(&v, &m, &w)
			v.machines[0] = m
			command, err := Decide(v, m, w, fresh)
			check(t, command.Disk, command.Erase, err, c.want)
		})
	}
}

// check compares a disk and what may be lost, or an error, with the words of
// the tables.
func check(t *testing.T, hint machine.DiskHint, erase string, err error, want string) {
	t.Helper()
	if parts := strings.Split(want, "|"); parts[0] == "error" {
		for _, part := range parts[1:] {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%v, want an error with %q", err, part)
			}
		}
		var occupied *Occupied
		if errors.As(err, &occupied) != strings.Contains(err.Error(), "--erase") {
			t.Errorf("error %v is an *Occupied: %v", err, occupied)
		}
		return
	}
	got := strings.TrimSpace(hint.Serial + " " + hint.Path)
	if erase != "" {
		got += " erases " + erase
	}
	if err != nil || got != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}

func TestPrepare(t *testing.T) {
	v, m := lab()
	m.Inventory.Disks[0].Contents = ntfs
	v.machines[0] = m
	p, err := Prepare(v, m, Wish{Erase: "is not looked at"}, fresh)
	if err != nil {
		t.Fatal(err)
	}
	if p.Confirm != ntfs || p.Command.Erase != "" || p.Disk.Serial != "A" || !p.Starts || p.Profile.By != ByRole {
		t.Errorf("%+v", p)
	}
	v.bootstrap = &machine.Intent{Machine: "m-2", Status: machine.IntentClaimed}
	if p, err = Prepare(v, m, Wish{Profile: "control-plane"}, fresh); err != nil || p.Starts {
		t.Errorf("beside the one that starts the cluster: %v, %+v", err, p)
	}
}

func TestRetry(t *testing.T) {
	failed := func(v *view) {
		v.intents["m-1"] = &machine.Intent{ID: "i-0", Status: machine.IntentFailed, Disk: machine.DiskHint{Serial: "A"}}
	}
	for name, c := range map[string]struct {
		change func(*view, *machine.Machine, *Wish)
		want   string // as in TestDisk; "same": without a disk
	}{
		"as it was": {func(v *view, m *machine.Machine, w *Wish) { failed(v) }, "same"},
		"as it was, on a disk that is not empty": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			m.Inventory.Disks[0].Contents = ntfs
		}, "same"},
		"the same disk, named": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			w.Disk = &machine.DiskHint{Path: "/dev/sda"}
		}, "same"},
		"another disk": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			m.Inventory.Disks = append(m.Inventory.Disks, drive("/dev/sdb", "B", machine.Empty))
			w.Disk = &machine.DiskHint{Path: "/dev/sdb"}
		}, "B"},
		"another disk that is full": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			windows(m)
			w.Disk = &machine.DiskHint{Serial: "B"}
		}, "error|machine m-1: disk /dev/sdb, serial B|the same rackseed retry once more, with --erase '" + ntfs + "'"},
		"another disk, confirmed": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			windows(m)
			w.Disk, w.Erase = &machine.DiskHint{Serial: "B"}, ntfs
		}, "B erases " + ntfs},
		"the same disk, confirmed now": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			m.Inventory.Disks[0].Contents = ntfs
			w.Erase = ntfs
		}, "A erases " + ntfs},
		"a disk that is not there": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			w.Disk = &machine.DiskHint{Serial: "X"}
		}, "error|no disk has serial number X"},
		"never ordered": {func(v *view, m *machine.Machine, w *Wish) {}, "error|no install was ever ordered: approve it"},
		"open": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			v.intents["m-1"].Status = machine.IntentOpen
		}, "error|install intent i-0 is open"},
		"another name": {func(v *view, m *machine.Machine, w *Wish) {
			failed(v)
			w.Name = "web"
		}, "error|keeps name, profile and address|revoke install intent i-0"},
	} {
		t.Run(name, func(t *testing.T) {
			v, m := lab()
			var w Wish
			c.change(&v, &m, &w)
			got, err := Retry(v, m, w)
			if err == nil && got.Intent != "i-0" {
				t.Errorf("it retries intent %q", got.Intent)
			}
			if got.Disk == nil && err == nil {
				if c.want != "same" || got.Erase != "" {
					t.Errorf("no other disk, erasing %q; want %q", got.Erase, c.want)
				}
				return
			}
			hint := machine.DiskHint{}
			if got.Disk != nil {
				hint = *got.Disk
			}
			check(t, hint, got.Erase, err, c.want)
		})
	}
}
