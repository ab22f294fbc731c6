package api

import (
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/silence"
	"github.com/rackseed/rackseed/services/state"
)

func TestExplain(t *testing.T) {
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	in := func(p machine.Phase, heard time.Duration, reason string) machine.Machine {
		return machine.Machine{ID: "m-1", Phase: p, LastSeen: ago(heard), Reason: reason}
	}
	looked := func(m machine.Machine, opened time.Duration, disks ...machine.Disk) machine.Machine {
		m.Session = &machine.Session{ID: "s-1", Opened: ago(opened)}
		m.Inventory = &machine.Inventory{Disks: disks}
		return m
	}
	disk := func(contents string) machine.Disk {
		return machine.Disk{Path: "/dev/sda", Serial: "S1", Bytes: 64 << 30, SectorSize: 512, Contents: contents}
	}
	told := func(kind machine.BootKind, since time.Duration) state.Boot {
		return state.Boot{Kind: kind, Decided: ago(since)}
	}
	fetched := func(b state.Boot, since time.Duration) state.Boot { b.Fetched = ago(since); return b }
	left := looked(in(machine.PhaseLocal, time.Hour, ""), 2*time.Hour, disk(machine.Empty))
	left.Session.Left = ago(time.Hour)
	order := func(status machine.IntentStatus, changed time.Duration) machine.Orders {
		return machine.Orders{Install: &machine.Intent{ID: "i-1", Status: status, Changed: ago(changed), Written: status != machine.IntentOpen}}
	}
	for _, c := range []struct {
		name    string
		f       facts
		summary string // parts, in their order
		causes  string // a part of the first; "": there are none
		todo    string // a part of the first; "": there is none
	}{
		{"just asked", facts{machine: in(machine.PhaseSeen, 5*time.Second, "")}, "a moment ago", "", ""},
		{"asked, and then nothing", facts{machine: in(machine.PhaseSeen, 10*time.Minute, "")}, "never asked what to boot … 10 min ago", "did not reach it", "screen"},
		{"asked, and the boot service has a fault", facts{machine: in(machine.PhaseSeen, 10*time.Minute, ""),
			health: []Health{{Name: "console", Text: "x"}, {Name: "tftp", OK: true}, HealthOf("dhcp", false, "another DHCP server answers on eth0")}},
			"never asked what to boot", "dhcp has a fault: another DHCP server", "screen"},
		{"no kernel, and the boot service has a fault", facts{machine: in(machine.PhaseSeen, 4*time.Minute, ""), told: told(machine.BootInstall, 4*time.Minute),
			health: []Health{HealthOf("netboot", false, "port 80 is taken")}}, "never fetched its kernel", "netboot has a fault: port 80 is taken", "screen"},
		{"sent to its disk", facts{machine: in(machine.PhaseLocal, time.Minute, ""), told: told(machine.BootLocal, time.Minute),
			bootWhy: "Boots its own disk: the discovery window is closed"},
			"boots its own disk … the discovery window is closed", "", "Open the discovery window"},
		{"sent to its disk, the window opened since", facts{machine: in(machine.PhaseLocal, time.Minute, ""), told: told(machine.BootLocal, time.Minute),
			circumstances: machine.Circumstances{Window: true}}, "next time it netboots, it boots the installer", "", "Restart it"},
		{"known, its disk is full", facts{machine: looked(in(machine.PhaseLocal, time.Minute, ""), 2*time.Minute, disk("ext4")), told: told(machine.BootLocal, time.Minute),
			circumstances: machine.Circumstances{Window: true}}, "boot its own disk", "", "Ask to have it looked at"},
		{"on its way", facts{machine: in(machine.PhaseSeen, time.Minute, ""), told: told(machine.BootDiscovery, time.Minute)}, "told 1 min ago … on its way", "", ""},
		{"no kernel", facts{machine: in(machine.PhaseSeen, 4*time.Minute, ""), told: told(machine.BootDiscovery, 4*time.Minute)}, "never fetched its kernel", "switched off", "screen"},
		{"no kernel, and told so", facts{machine: in(machine.PhaseSeen, time.Minute, ""), told: state.Boot{Kind: machine.BootDiscovery, Decided: ago(time.Minute), Silent: true}},
			"never fetched its kernel", "switched off", "screen"},
		{"refused", facts{machine: machine.Machine{ID: "m-1", Phase: machine.PhaseSeen, LastSeen: ago(time.Hour), Refused: &machine.Refused{At: ago(time.Hour), Why: "its inventory is too large"}},
			told: told(machine.BootDiscovery, 2*time.Hour)}, "was refused 1 h 0 min ago: its inventory is too large.", "", "Mend that"},
		{"refused, and told to boot once more", facts{machine: machine.Machine{ID: "m-1", Phase: machine.PhaseSeen, Refused: &machine.Refused{At: ago(2 * time.Hour)}},
			told: told(machine.BootDiscovery, time.Hour)}, "never fetched its kernel", "switched off", "screen"},
		{"kernel, in time", facts{machine: in(machine.PhaseSeen, time.Minute, ""), told: fetched(told(machine.BootDiscovery, 4*time.Minute), 2*time.Minute)}, "on its way", "", ""},
		{"kernel, then silence", facts{machine: in(machine.PhaseSeen, time.Minute, ""), told: fetched(told(machine.BootDiscovery, 9*time.Minute), 8*time.Minute)},
			"fetched the installer's kernel 8 min ago", "driver", "screen"},
		{"waits", facts{machine: looked(in(machine.PhaseWaiting, time.Minute, ""), time.Minute, disk(machine.Empty)), told: told(machine.BootDiscovery, 2*time.Minute)},
			"waits for approval", "", "Approve it."},
		{"waits, its disk is full", facts{machine: looked(in(machine.PhaseWaiting, time.Minute, ""), time.Minute, disk("ext4"))}, "waits for approval", "", "name what is on its disk"},
		{"waits, with two disks", facts{machine: looked(in(machine.PhaseWaiting, time.Minute, ""), time.Minute, disk(machine.Empty), disk(machine.Empty))}, "waits for approval", "", "name the disk"},
		{"waits, without a disk", facts{machine: looked(in(machine.PhaseWaiting, time.Minute, ""), time.Minute)}, "waits for approval", "", "no disk that can be installed on"},
		{"waits again", facts{machine: looked(in(machine.PhaseWaiting, time.Minute, "install revoked, waiting for approval"), time.Minute, disk(machine.Empty)),
			orders: order(machine.IntentRevoked, time.Minute)}, "approval again: install revoked", "", "Approve it."},
		{"waited too long", facts{machine: left}, "Nobody approved it in time", "", "looked at"},
		{"restarted while it waited", facts{machine: looked(in(machine.PhaseWaiting, 5*time.Minute, ""), time.Hour, disk(machine.Empty)), told: told(machine.BootDiscovery, 5*time.Minute)},
			"never fetched its kernel", "switched off", "screen"},
		{"went to its disk while it waited", facts{machine: looked(in(machine.PhaseLocal, time.Minute, ""), time.Hour, disk("ext4")), told: told(machine.BootLocal, 5*time.Minute)},
			"restarted, and was told 5 min ago to boot its own disk: no reason", "", "looked at"},
		{"went to its disk before it was looked at", facts{machine: looked(in(machine.PhaseWaiting, time.Minute, ""), time.Minute, disk("ext4")), told: told(machine.BootLocal, 5*time.Minute)},
			"waits for approval", "", "name what is on its disk"},
		{"went to its disk, and was approved", facts{machine: looked(in(machine.PhaseApproved, time.Second, ""), time.Hour), orders: order(machine.IntentOpen, time.Second), told: told(machine.BootLocal, 5*time.Minute)},
			"told 5 min ago to boot its own disk", "", "Restart it"},
		{"rescue of a node, and restarted", facts{machine: looked(in(machine.PhaseInstalled, time.Minute, ""), time.Hour), orders: order(machine.IntentDone, 50*time.Hour), told: told(machine.BootLocal, time.Minute)},
			"has not reported yet", "", ""},
		{"rescue of a node, and gone", facts{machine: looked(in(machine.PhaseInstalled, time.Minute, ""), time.Hour), orders: order(machine.IntentDone, 50*time.Hour), told: told(machine.BootLocal, 20*time.Minute)},
			"told 20 min ago to boot its own disk, and … did not report since", "boot the disk", "screen"},
		{"approved", facts{machine: looked(in(machine.PhaseApproved, time.Second, ""), time.Minute), orders: order(machine.IntentOpen, time.Second)}, "not begun to write", "", ""},
		{"approved, and gone", facts{machine: looked(in(machine.PhaseApproved, 3*time.Minute, ""), time.Hour), orders: order(machine.IntentOpen, time.Minute)}, "last heard of 3 min ago", "switched off", "Restart it"},
		{"installing", facts{machine: looked(in(machine.PhaseInstalling, time.Second, "image: 40 %"), time.Minute), orders: order(machine.IntentClaimed, time.Minute)}, "being written: image: 40 %.", "", ""},
		{"installing, and gone", facts{machine: looked(in(machine.PhaseInstalling, 5*time.Minute, "image: 40 %"), time.Hour), orders: order(machine.IntentClaimed, time.Hour)},
			"image: 40 % … last heard of 5 min ago", "switched off", "screen"},
		{"restarted while it was written", facts{machine: looked(in(machine.PhaseInstalling, 5*time.Minute, ""), time.Hour), orders: order(machine.IntentClaimed, time.Hour), told: told(machine.BootInstall, 4*time.Minute)},
			"never fetched its kernel", "switched off", "screen"},
		{"installed", facts{machine: in(machine.PhaseInstalled, time.Minute, ""), orders: order(machine.IntentDone, time.Minute)}, "has not reported yet", "", ""},
		{"installed, and gone", facts{machine: in(machine.PhaseInstalled, time.Hour, ""), orders: order(machine.IntentDone, 3*time.Hour)}, "3 h 0 min ago … never reported", "boot the disk", "screen"},
		{"booted", facts{machine: in(machine.PhaseBooted, time.Minute, ""), waitingFor: "waiting for alpha to start the cluster"}, "waits: waiting for alpha", "", ""},
		{"booted, and may join", facts{machine: in(machine.PhaseBooted, time.Minute, "")}, "not in the cluster yet", "", ""},
		{"joining", facts{machine: in(machine.PhaseJoining, time.Minute, "kubeadm starts")}, "kubeadm starts.", "", "log"},
		{"ready", facts{machine: in(machine.PhaseReady, 50*24*time.Hour, "")}, "Ready", "", ""},
		{"failed", facts{machine: in(machine.PhaseFailed, time.Minute, "Image: no answer."), orders: order(machine.IntentFailed, time.Minute)}, "It failed: Image: no answer.", "", "log"},
		{"failed as a node", facts{machine: in(machine.PhaseFailed, time.Minute, ""), orders: order(machine.IntentDone, time.Minute)}, "no reason was reported.", "", "log"},
		{"rescue", facts{machine: in(machine.PhaseRescue, time.Minute, "")}, "rescue shell", "", "SSH"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.f.now = now
			w := explain(c.f)
			rest := w.Summary
			for part := range strings.SplitSeq(c.summary, " … ") {
				_, after, ok := strings.Cut(rest, part)
				if !ok {
					t.Errorf("summary %q lacks %q", w.Summary, part)
				}
				rest = after
			}
			for what, list := range map[string]struct {
				got  []string
				want string
			}{"causes": {w.Causes, c.causes}, "todo": {w.Todo, c.todo}} {
				first := ""
				if len(list.got) > 0 {
					first = list.got[0]
				}
				if !strings.Contains(first, list.want) || (first == "") != (list.want == "") {
					t.Errorf("%s: %q, want first %q", what, list.got, list.want)
				}
			}
			if !strings.HasSuffix(w.Summary, ".") || strings.HasSuffix(w.Summary, "..") {
				t.Errorf("summary %q is no sentence", w.Summary)
			}
		})
	}
}

// Of several disks, each has the command that chooses it.
func TestWhyDisks(t *testing.T) {
	disk := func(path, serial string) machine.Disk {
		return machine.Disk{Path: path, Serial: serial, Bytes: 64 << 30, SectorSize: 512, Transport: "sata", Contents: machine.Empty}
	}
	f := facts{machine: machine.Machine{ID: "m-1", Name: "alpha", Phase: machine.PhaseWaiting,
		Session: &machine.Session{}, Inventory: &machine.Inventory{Disks: []machine.Disk{disk("/dev/sda", "S 1'$(x)"), disk("/dev/sdb", "")}}}}
	todo := strings.Join(explain(f).Todo, "\n")
	for _, want := range []string{`rackseed approve alpha --disk-serial 'S 1'\''$(x)' installs it on /dev/sda, serial S 1'$(x), 64.0 GiB, empty`, "rackseed approve alpha --disk-path '/dev/sdb' installs it on /dev/sdb"} {
		if !strings.Contains(todo, want) {
			t.Errorf("%q is not in\n%s", want, todo)
		}
	}
	for range 10 {
		f.machine.Inventory.Disks = append(f.machine.Inventory.Disks, disk("/dev/sdc", ""))
	}
	if todo := explain(f).Todo; len(todo) != 2+shownDisks || !strings.Contains(todo[len(todo)-1], "6 more: rackseed machine alpha") {
		t.Errorf("of many disks: %q", todo)
	}
}

func TestWhy(t *testing.T) {
	r := newRig(t)
	id := r.Waiting(1)
	r.Must(state.BootDecide{Machine: id, Decision: machine.BootDecision{Kind: machine.BootDiscovery, Reason: "not installed yet"}})
	r.Must(state.MachineSee{ID: "m-none", MAC: "52:54:00:00:00:01", Via: state.ViaKernel, Text: "kernel fetched"})
	for range 2 * whyEvents {
		r.Must(state.Note{Machine: id, What: "test", Severity: machine.Info, Text: "noted"})
	}
	r.pass(silence.Patience + time.Minute)
	w := decode[Why](t, r.want(200, "GET", "/api/machines/52:54:00:00:00:01/why", "", bearer(siteToken)).body)
	if w.Machine.ID != id || w.Phase != machine.PhaseWaiting || w.Boot == nil || w.Boot.Fetched.IsZero() || w.NextBoot.Kind != machine.BootDiscovery ||
		!strings.Contains(w.BootWhy, "not installed yet") || len(w.Events) != whyEvents || !strings.Contains(w.Summary, "kernel") {
		t.Errorf("%+v", w)
	}
	r.want(404, "GET", "/api/machines/none/why", "", bearer(siteToken))
}
