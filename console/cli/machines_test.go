package cli

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

// moment is a time or a duration that passes while a test runs.
var moment = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d+(m\d+)?s ago`)

// prints runs a command and compares what it prints, moments set aside and
// spaces at the ends of lines too.
func (r *rig) prints(want string, args ...string) {
	r.t.Helper()
	got := moment.ReplaceAllString(r.must("", args...), "NOW")
	if want = strings.TrimPrefix(want, "\n"); got != want {
		r.t.Errorf("rackseed %s prints\n%s\nwant\n%s", strings.Join(args, " "), got, want)
	}
}

func TestMachines(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.prints("No machine was seen yet. Set one to boot from the network on a link that the site file names.\n", "machines")
	r.Waiting(1, func(i *machine.Inventory) { i.AssetTag, i.Serial = "", "ÄÖÜ 1" })
	r.Waiting(2)
	r.Must(state.MachineSee{ID: "m-00000003", MAC: statetest.MAC(3), Via: "dhcp.discover"})
	r.must("", "approve", "m-00000002", "--name", "alpha", "--address", "192.0.2.20")
	r.Installed("m-00000002")
	r.prints(`
NAME        PHASE      MAC                SERIAL  ASSET TAG  ADDRESS     REASON
m-00000001  waiting    52:54:00:00:00:01  ÄÖÜ 1   -          -           waiting for approval
alpha       installed  52:54:00:00:00:02  SN-2    A0002      192.0.2.20  the disk is complete, it reboots
m-00000003  seen       52:54:00:00:00:03  -       -          -           boots discovery next: seen, and not looked at yet
`, "machines")
	r.prints(`
NAME   ID          PHASE      PROFILE        SERIAL  ASSET TAG  ADDRESS     MACS               UUID                                  WHAT                    NEXT BOOT  SEEN    REASON
-      m-00000001  waiting    -              ÄÖÜ 1   -          -           52:54:00:00:00:01  00000000-0000-4000-8000-000000000001  2 CPU, 4.0 GiB, 1 disk  discovery  NOW  waiting for approval
alpha  m-00000002  installed  control-plane  SN-2    A0002      192.0.2.20  52:54:00:00:00:02  00000000-0000-4000-8000-000000000002  2 CPU, 4.0 GiB, 1 disk  local      NOW  the disk is complete, it reboots
-      m-00000003  seen       -              -       -          -           52:54:00:00:00:03  -                                     -                       discovery  NOW  boots discovery next: seen, and not looked at yet
`, "machines", "-o", "wide")

	var list api.List[api.Machine]
	if err := json.Unmarshal([]byte(r.must("", "machines", "-o", "json")), &list); err != nil || len(list.Items) != 3 || list.Items[1].Name != "alpha" {
		t.Errorf("as JSON: %+v, %v", list, err)
	}
	if out := r.must("", "machines", "-o", "yaml"); !strings.Contains(out, "name: alpha") {
		t.Errorf("as YAML:\n%s", out)
	}
	r.fails("text, wide, json and yaml", "", "machines", "-o", "xml")
	r.fails("none", "", "machine", "none")
	r.prints(`
ID             m-00000001
Phase          waiting
Reason         waiting for approval
Waits until    NOW, then it goes back to its own disk
UUID           00000000-0000-4000-8000-000000000001
MAC            52:54:00:00:00:01
Hardware       QEMU Standard PC
Serial number  ÄÖÜ 1
Firmware       uefi
Processor      QEMU, 2 threads
Memory         4.0 GiB
Disk           /dev/vda, virtio, 64.0 GiB, serial number S1: empty
NIC            eth0, 52:54:00:00:00:01, virtio_net
First seen     NOW
Last seen      NOW
Boots next     discovery: not installed yet, and nothing is on its disks
Possible       rackseed approve m-00000001
Possible       rackseed forget m-00000001
Possible       rackseed look m-00000001
Possible       rackseed rescue m-00000001
`, "machine", "52:54:00:00:00:01")
}

func TestApprove(t *testing.T) {
	r := newRig(t)
	r.setup()
	const contents = "GPT, 1 partition: it's BitLocker"
	r.Waiting(1, func(i *machine.Inventory) {
		i.Disks[0].Contents = contents
		i.Disks = append(i.Disks, machine.Disk{Path: "/dev/vdb", Model: "Fast 1", WWN: "0x5000", Transport: "nvme", Bytes: 128 << 30, SectorSize: 512, Contents: machine.Empty})
	})
	// Standard input that is no terminal confirms nothing.
	r.fails("2 disks", "yes\n", "approve", "m-00000001")
	r.fails(`--erase 'GPT, 1 partition: it'\''s BitLocker'`, "yes\n", "approve", "m-00000001", "--disk-serial", "S1")
	r.fails("confirmed as lost is ext4", "", "approve", "m-00000001", "--disk-serial", "S1", "--erase", "ext4")
	if i := r.View().InstallIntent("m-00000001"); i != nil {
		t.Fatalf("approved all the same: %+v", i)
	}
	r.prints(`
Name     alpha
Profile  worker (worker): it was asked for
Address  192.0.2.10
Image    sha256:abababababababababababababababababababababababababababababababab
Disk     /dev/vda, virtio, 64.0 GiB, serial number S1
Is lost  GPT, 1 partition: it's BitLocker
`, "approve", "m-00000001", "--name", "alpha", "--profile", "worker", "--disk-max-size", "100GiB", "--dry-run")
	for _, address := range []string{"1.2.3", "2001:db8::1"} {
		r.fails("--address \""+address+"\": expected an IPv4 address", "", "approve", "m-00000001", "--address", address)
		if got := r.exits("approve", "m-00000001", "--address", address); got != ExitUsage {
			t.Errorf("--address %s ends with %d", address, got)
		}
	}
	r.fails("size", "", "approve", "m-00000001", "--disk-min-size", "large")
	out := r.must("", "approve", "m-00000001", "--name", "alpha", "--address", "192.0.2.20", "--disk-serial", "S1", "--erase", contents)
	for _, want := range []string{"alpha", "192.0.2.20", "may erase " + contents} {
		if !strings.Contains(out, want) {
			t.Errorf("approve lacks %q:\n%s", want, out)
		}
	}
	r.fails("approved already", "", "approve", "alpha")
	r.fails("only a failed one", "", "retry", "alpha")
	r.Failed("m-00000001", "no answer from the disk")
	if out := r.must("", "why", "alpha"); !strings.Contains(out, "alpha (failed): It failed: ") || !strings.Contains(out, "retry the install") {
		t.Errorf("why:\n%s", out)
	}
	if out := r.must("", "retry", "alpha", "--disk-model", "fast*", "--disk-transport", "nvme"); !strings.Contains(out, "epoch 2, disk with WWN 0x5000") {
		t.Errorf("retry:\n%s", out)
	}
	if out := r.must("", "revoke", "alpha", "--reason", "the wrong one"); !strings.Contains(out, "  install i-") || !strings.Contains(out, "It is waiting now") {
		t.Errorf("revoke:\n%s", out)
	}
	r.must("", "forget", "alpha")
	r.fails("alpha", "", "machine", "alpha")
}

// Who is listed and was never seen is listed after the machines.
func TestExpected(t *testing.T) {
	r := newRig(t)
	r.setup()
	site, _ := r.View().Site()
	site.Machines = []machine.ListedMachine{{MAC: statetest.MAC(7), Name: "beta", Profile: "worker"}}
	r.Must(state.SiteApply{Site: site})
	r.prints(`
NAME  PHASE     MAC                SERIAL  ASSET TAG  ADDRESS  REASON
beta  expected  52:54:00:00:00:07  -       -          -        in the site file's list, not seen yet
`, "machines")
	if out := r.must("", "machines", "-o", "json"); !strings.Contains(out, `"expected": [`) || !strings.Contains(out, `"name": "beta"`) {
		t.Errorf("as JSON:\n%s", out)
	}
	r.fails("was not seen yet", "", "why", "beta")

	// Watched, one that the list gets later comes too, in each form of output; one
	// that is listed is not told again.
	for form, want := range map[string][]string{
		"":     {"NAME PHASE", "beta expected 52:54:00:00:00:07", "gamma expected 52:54:00:00:00:08", "m-00000001 waiting"},
		"json": {`{"phase":"expected","name":"beta","mac":"52:54:00:00:00:07","profile":"worker"}`, `{"phase":"expected","name":"gamma","mac":"52:54:00:00:00:08"}`, `"id":"m-00000001"`, `{"id":"m-00000001","phase":"forgotten"}`},
	} {
		site.Machines = site.Machines[:1]
		r.Must(state.SiteApply{Site: site})
		args := []string{"machines", "-w"}
		if form != "" {
			args = append(args, "-o", form)
		}
		next, stop := r.follow(args...)
		for n, w := range want {
			got := strings.Join(strings.Fields(next()), " ")
			for strings.Contains(got, "m-00000001") && !strings.Contains(got, w) { // on its way there
				got = strings.Join(strings.Fields(next()), " ")
			}
			if !strings.Contains(got, w) {
				t.Errorf("-o %q: a row says %q, want %q", form, got, w)
			}
			switch {
			case strings.Contains(w, "beta"):
				site.Machines = append(slices.Clone(site.Machines), machine.ListedMachine{MAC: statetest.MAC(8), Name: "gamma"})
				r.Must(state.SiteApply{Site: site})
			case strings.Contains(w, "gamma"):
				r.Waiting(1)
			case n == 2 && len(want) > 3:
				r.must("", "forget", "m-00000001")
			}
		}
		if err := stop(); err != nil {
			t.Errorf("-o %q: interrupted: %v", form, err)
		}
		if form == "" {
			r.must("", "forget", "m-00000001")
		}
	}
}

func TestLookRescueAndDiscovery(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.Waiting(1, func(i *machine.Inventory) { i.Disks[0].Contents = "ext4" })
	r.prints("The discovery window is closed: machines that are not listed boot their own disks.\n", "discovery", "close")
	r.prints("m-00000001 is looked at when it netboots, until NOW: restart it.\n", "look", "m-00000001", "--for", "30m")
	if m, _ := r.View().Machine("m-00000001"); time.Until(m.Invited) > 30*time.Minute || time.Until(m.Invited) < 29*time.Minute {
		t.Errorf("invited until %v", m.Invited)
	}
	r.prints("m-00000001 boots next: local: known, not approved, and its disk is not empty: approve it while its installer waits, or have it looked at again (rackseed look, or the console).\n",
		"look", "m-00000001", "--cancel")
	r.prints("m-00000001 boots to a rescue shell when it netboots: restart it, then log in as root by SSH. rackseed revoke takes that back until then.\n", "rescue", "m-00000001")
	r.fails("already", "", "rescue", "m-00000001")
	if out := r.must("", "machine", "m-00000001"); !strings.Contains(out, "Rescue         r-") || !strings.Contains(out, "rackseed revoke m-00000001") {
		t.Errorf("machine:\n%s", out)
	}
	if out := r.must("", "discovery", "open", "--for", "90m"); !strings.HasPrefix(out, "The discovery window is open until ") || !strings.Contains(out, " for 1h30m more") && !strings.Contains(out, " for 1h29m") {
		t.Errorf("open: %s", out)
	}
	r.fails("at least", "", "discovery", "open", "--for", "1s")
	for _, long := range []string{"-1h", "0", "long"} {
		for _, command := range [][]string{{"discovery", "open"}, {"look", "m-00000001"}} {
			command = append(command, "--for", long)
			r.fails("expected how long, as 30m or 2h", "", command...)
			if got := r.exits(command...); got != ExitUsage {
				t.Errorf("%v ends with %d", command, got)
			}
		}
	}
	r.fails("reason: expected length <= 200", "", "revoke", "m-00000001", "--reason", strings.Repeat("x", 201))
	if out := r.must("", "discovery", "status", "-o", "json"); !strings.Contains(out, `"open": true`) {
		t.Errorf("status: %s", out)
	}
	if out := r.must("", "status"); !strings.Contains(out, "ok         dhcp") || !strings.Contains(out, "The discovery window is open") || !strings.Contains(out, "Machines: none") {
		t.Errorf("status:\n%s", out)
	}
}

func TestWatch(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.Waiting(1)
	next, stop := r.follow("machines", "-w")
	// Columns stay where they are, whatever machines become.
	reason := 0
	row := func(want string) {
		t.Helper()
		line := moment.ReplaceAllString(next(), "NOW")
		if got := strings.Join(strings.Fields(line), " "); got != want {
			t.Errorf("a row says %q, want %q", got, want)
		}
		if strings.HasPrefix(want, "TIME") {
			reason = strings.Index(line, "REASON") + len("NOW") - len(time.DateTime)
		} else if at := strings.LastIndex(line[:min(reason, len(line))], "  ") + 2; !strings.HasSuffix(want, "forgotten") && at != reason {
			t.Errorf("its last column begins at %d, and the head's at %d:\n%s", at, reason, line)
		}
	}
	row("TIME NAME PHASE MAC SERIAL ASSET TAG ADDRESS REASON")
	row("NOW m-00000001 waiting 52:54:00:00:00:01 SN-1 A0001 - waiting for approval")
	r.Must(state.MachineSee{ID: "m-none", MAC: statetest.MAC(1), Via: "dhcp.request"}) // no change to tell
	r.must("", "approve", "m-00000001", "--name", "alpha")
	row("NOW alpha approved 52:54:00:00:00:01 SN-1 A0001 192.0.2.10 approved by operator ann")
	install, start := r.View().InstallIntent("m-00000001").ID, r.View().Bootstrap().ID
	r.prints("Taken back from alpha:\n  install "+install+"\n  start of the cluster "+start+"\nIt is waiting now: install revoked, waiting for approval.\n", "revoke", "alpha")
	r.fails("nothing is open that could be taken back", "", "revoke", "alpha")
	row("NOW alpha waiting 52:54:00:00:00:01 SN-1 A0001 192.0.2.10 install revoked, waiting for approval")
	r.must("", "forget", "alpha")
	row("NOW m-00000001 forgotten")
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}

	r.Waiting(2)
	next, stop = r.follow("machines", "-w", "-o", "json")
	var m api.Machine
	if err := json.Unmarshal([]byte(next()), &m); err != nil || m.ID != "m-00000002" || m.LastSeen.IsZero() {
		t.Errorf("as JSON: %+v, %v", m, err)
	}
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
}

func TestCluster(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.fails("there is no cluster yet: no control plane was approved yet", "", "kubeconfig")
	r.Waiting(1)
	r.must("", "approve", "m-00000001", "--name", "alpha")
	r.fails("there is no cluster yet: machine alpha will start it, and is approved", "", "kubeconfig")
	r.Installed("m-00000001")
	r.fails("--reason and --confirm are needed", "", "cluster", "abandon", "--reason", "gone")
	r.fails("may not start the cluster yet", "", "cluster", "abandon", "--reason", "gone", "--confirm", "alpha")
	r.Started("m-00000001")
	if out := r.must("", "kubeconfig", "--server", "https://127.0.0.1:7443"); !strings.Contains(out, "ann https://127.0.0.1:7443") {
		t.Errorf("kubeconfig:\n%s", out)
	}
	if out := r.must("", "kubeconfig", "-o", "json"); out != "{\n  \"apiVersion\": \"v1\",\n  \"kind\": \"Config\"\n}\n" {
		t.Errorf("kubeconfig as JSON:\n%s", out)
	}
	out := r.must("", "cluster", "status")
	for _, want := range []string{"c-1, generation 1", "Started by  alpha", "is done", "Kubeconfig  rackseed kubeconfig"} {
		if !strings.Contains(out, want) {
			t.Errorf("cluster status lacks %q:\n%s", want, out)
		}
	}
	r.fails(`is called "alpha"`, "", "cluster", "abandon", "--reason", "gone", "--confirm", "beta")
	r.fails(`is called "lab"`, "", "cluster", "abandon", "--reason", "gone", "--confirm", "alpha")
	if out := r.must("", "cluster", "abandon", "--reason", "gone", "--confirm", "alpha", "--cluster", "lab"); !strings.Contains(out, "taken back from m-00000001 (abandoned: gone)") {
		t.Errorf("abandoned:\n%s", out)
	}
}

func TestEventsInOtherForms(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.Waiting(1)
	r.must("", "approve", "m-00000001")
	r.Installed("m-00000001")
	r.Node("m-00000001", 1, wire.NodeBooted)
	last := r.View().LastEvent()
	next, stop := r.follow("events", "-f", "-o", "json", "--since", "1", "--machine", "m-00000001")
	var e machine.Event
	for e.Seq < last {
		if err := json.Unmarshal([]byte(next()), &e); err != nil || e.Machine != "m-00000001" {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	if err := stop(); err != nil {
		t.Errorf("interrupted: %v", err)
	}
	if out := r.must("", "events", "-o", "yaml"); strings.Count(out, "---\n") != int(last) {
		t.Errorf("as YAML, %d events:\n%s", last, out)
	}
}
