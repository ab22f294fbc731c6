package cli

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
	"github.com/rackseed/rackseed/services/statetest"
	"github.com/rackseed/rackseed/services/wire"
)

func TestSiteValidate(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	file := func(name, content string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.yaml", "version: 1\nname: lab\nserviceAddress: 192.0.2.1\nlinks:\n  - interface: eth0\n    address: 192.0.2.2/24\n    dhcp: {from: 192.0.2.9, to: 192.0.2.19}\n")
	r.prints(good+" is valid: site \"lab\", service address 192.0.2.1, 1 link, 2 profiles, 0 machines listed\n", "site", "validate", good)

	content, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	if out := r.must(string(content), "site", "validate", "-"); !strings.HasPrefix(out, "standard input is valid: site \"lab\"") {
		t.Errorf("of standard input: %s", out)
	}
	r.fails("standard input: 1 problem", "version: 1\nname: lab\nserviceAddress: 192.0.2.1\n", "site", "validate", "-")
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.run(stopped, "", io.Discard, "site", "validate", "-"); ExitCode(err) != ExitInterrupted {
		t.Errorf("standard input, interrupted: %v", err)
	}

	// What is valid and should be looked at is told, and refuses nothing.
	odd := file("odd.yaml", "version: 1\nname: lab\nserviceAddress: 192.0.2.1\nlinks:\n  - interface: eth0\n    address: 192.0.2.2/24\n")
	r.prints(odd+" is valid: site \"lab\", service address 192.0.2.1, 1 link, 2 profiles, 0 machines listed\n"+odd+":5:3: warning: links: NO link has dhcp: no machine is served\n", "site", "validate", odd)
	var o api.SiteCheck
	if out := r.must("", "site", "validate", odd, "-o", "json"); json.Unmarshal([]byte(out), &o) != nil || !o.Valid || len(o.Warnings) != 1 || o.Warnings[0].Line != 5 || o.Warnings[0].Path != "links" {
		t.Errorf("warnings as JSON: %s", out)
	}

	bad := file("bad.yaml", "version: 1\nname: lab\nserviceAddress: nowhere\n")
	var out bytes.Buffer
	err = r.run(t.Context(), "", &out, "site", "validate", bad)
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if ExitCode(err) != ExitRefused || err.Error() != bad+": 2 problems" || len(lines) != 2 {
		t.Fatalf("%v:\n%s", err, out.String())
	}
	for i, want := range []string{bad + ":1:1: links: missing: expected a list", bad + ":3:17: serviceAddress: \"nowhere\": expected an IPv4 address"} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("problem %d is %q, want %q", i+1, lines[i], want)
		}
	}
	out.Reset()
	var c api.SiteCheck
	err = r.run(t.Context(), "", &out, "site", "validate", bad, "-o", "json")
	if json.Unmarshal(out.Bytes(), &c) != nil || ExitCode(err) != ExitRefused || len(c.Problems) != 2 || c.Problems[1].Line != 3 {
		t.Errorf("as JSON: %v\n%s", err, out.String())
	}
	r.fails("no such file", "", "site", "validate", bad+".none")
}

func TestLists(t *testing.T) {
	r := newRig(t)
	r.setup()
	site := statetest.Site()
	site.Profiles = append(site.Profiles, machine.Profile{
		Name: "storage", Role: machine.RoleWorker, Selector: machine.Selector{MinMemory: 64 << 30}, Disk: machine.DiskHint{Transport: "nvme"},
		Labels: map[string]string{"tier": "b", "disk": "a"}, Taints: []string{"only=storage:NoSchedule"}, KernelArguments: []string{"quiet", "nosmt"},
	})
	r.Must(state.SiteApply{Site: site})
	r.Waiting(1)
	r.Waiting(2, func(i *machine.Inventory) { i.MemoryBytes = 128 << 30 })
	r.must("", "approve", "m-00000001", "--name", "alpha")
	r.Must(state.LeaseBind{Lease: machine.Lease{
		Address: netip.MustParseAddr("192.0.2.101"), MAC: statetest.MAC(2), Machine: "m-00000002", Hostname: "x",
		Bound: time.Now(), Expires: time.Now().Add(time.Hour),
	}})
	r.prints(`
NAME           ROLE           SELECTOR                  MACHINES  WOULD GET IT
control-plane  control-plane  -                         alpha     -
worker         worker         -                         -         -
storage        worker         at least 64GiB of memory  -         m-00000002
`, "profile", "list")
	if out := r.must("", "profile", "list", "-o", "wide"); !strings.Contains(out, "transport nvme  disk=a,tier=b  only=storage:NoSchedule  quiet nosmt") {
		t.Errorf("wide:\n%s", out)
	}
	r.prints(`
NAME                  SIZE     FILES  DIGEST                                                                   PROBLEM
rackseed/node:latest  200 MiB  1      sha256:abababababababababababababababababababababababababababababababab  -
`, "image", "list")
	r.prints(`
ADDRESS      MAC                MACHINE     HOST NAME  EXPIRES              DECLINED
192.0.2.101  52:54:00:00:00:02  m-00000002  x          NOW  -
`, "lease", "list")
	for _, command := range [][]string{{"profile", "list"}, {"image", "list"}, {"lease", "list"}, {"site", "show"}, {"discovery", "status"}, {"cluster", "status"}, {"status"}, {"version"}, {"why", "alpha"}} {
		if out := r.must("", append(command, "-o", "json")...); !json.Valid([]byte(out)) {
			t.Errorf("rackseed %s -o json: %s", strings.Join(command, " "), out)
		}
		if out := r.must("", append(command, "-o", "yaml")...); !strings.Contains(out, ": ") || strings.HasPrefix(out, "{") {
			t.Errorf("rackseed %s -o yaml: %s", strings.Join(command, " "), out)
		}
	}
	if out := r.must("", "site", "show"); !strings.Contains(out, "serviceAddress: 192.0.2.1\n") || !strings.Contains(out, "minMemory: 64GiB") {
		t.Errorf("site show:\n%s", out)
	}
	if out := r.must("", "version"); !strings.Contains(out, "the same build") {
		t.Errorf("version:\n%s", out)
	}
}

// A script sees by status whether all is well, in each form of output.
func TestStatus(t *testing.T) {
	r := newRig(t)
	r.setup()
	r.must("", "status")
	r.health = []api.Health{
		api.HealthOf("storage", false, "the stick is slow", api.HealthSlow), api.HealthOf("dhcp", false, "listens on eth0", api.HealthListening),
		api.HealthOf("images", false, "starting", api.HealthStarting), api.HealthOf("tftp", false, "waits", api.HealthWaiting),
	}
	if out := r.must("", "status"); !strings.Contains(out, "ok         dhcp ") || !strings.Contains(out, "\nslow       storage      the stick is slow\nlistening  dhcp ") {
		t.Errorf("it says:\n%s", out)
	}
	site := statetest.Site()
	site.MemoryOnly = true
	r.Must(state.SiteApply{Site: site})
	for form, want := range map[string]string{
		"text": "\nSite file: warning: memoryOnly: machines are served even where NOTHING IS KEPT", "json": `"path": "memoryOnly",`, "yaml": "path: memoryOnly\n",
	} {
		if out := r.must("", "status", "-o", form); strings.Count(out, want) != 1 {
			t.Errorf("-o %s, with a site that is for tests:\n%s", form, out)
		}
	}
	r.health = append(r.health, api.HealthOf("tftp", false, "port 69 is taken"), api.HealthOf("ntp", true, ""), api.HealthOf("netboot", false, "nothing is kept", api.HealthVolatile))
	for form, want := range map[string]string{"text": "fault      tftp         port 69 is taken\n", "json": `"text": "port 69 is taken"`, "yaml": "text: port 69 is taken\n"} {
		var out bytes.Buffer
		err := r.run(t.Context(), "", &out, "status", "-o", form)
		if ExitCode(err) != ExitRefused || err.Error() != "the boot service is not well: tftp, netboot" || !strings.Contains(out.String(), want) {
			t.Errorf("-o %s: %v\n%s", form, err, out.String())
		}
	}
}

func TestSupportBundle(t *testing.T) {
	r := newRig(t)
	r.setup()
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if out := r.must("", "support-bundle", file); !strings.HasPrefix(out, file+": ") {
		t.Errorf("it says %q", out)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	r.fails("choose another name", "", "support-bundle", file)
	saved, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"saved": saved, "piped": []byte(r.must("", "support-bundle", "-"))} {
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := io.Copy(io.Discard, z); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What was refused leaves no file behind.
	t.Setenv("RACKSEED_TOKEN", "wrong")
	r.fails("RACKSEED_TOKEN", "", "support-bundle", file+"2")
	if _, err := os.Stat(file + "2"); !os.IsNotExist(err) {
		t.Errorf("an empty file stays: %v", err)
	}
}

func TestExitCodes(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		want int
		args string
	}{
		{ExitNoLogin, "machines"},
		{ExitUsage, "machines --what"},
		{ExitUsage, "machines -o xml"},
		{ExitUsage, "machines more"},
		{ExitUsage, "approve"},
		{ExitUsage, "discovery"},
		{ExitUsage, "discovery perhaps"},
		{ExitUsage, "perhaps"},
		{ExitRefused, "site validate /does/not/exist"},
	} {
		if got := r.exits(strings.Fields(c.args)...); got != c.want {
			t.Errorf("rackseed %s ends with %d, want %d", c.args, got, c.want)
		}
	}
	r.setup()
	if got := r.exits("machine", "none"); got != ExitRefused {
		t.Errorf("not found: %d", got)
	}
	t.Setenv("RACKSEED_TOKEN", "wrong")
	if got := r.exits("machines"); got != ExitNoLogin {
		t.Errorf("a token that is not valid: %d", got)
	}
	t.Setenv("RACKSEED_SERVER", "https://127.0.0.1:1")
	t.Setenv("RACKSEED_FINGERPRINT", strings.Repeat("00", 32))
	if got := r.exits("machines"); got != ExitNoAnswer {
		t.Errorf("nobody there: %d", got)
	}
	if got := ExitCode(nil); got != ExitDone {
		t.Errorf("done: %d", got)
	}
}

func TestCompletion(t *testing.T) {
	defer func(usual time.Duration) { completionTimeout = usual }(completionTimeout)
	completionTimeout = 60 * time.Second
	r := newRig(t)
	complete := func(args ...string) string {
		t.Helper()
		return r.must("", append([]string{"__complete"}, args...)...)
	}
	if out := complete("approve", ""); out != ":4\n" {
		t.Errorf("without a login: %q", out)
	}
	r.setup()
	r.Waiting(1)
	r.Waiting(2)
	r.must("", "approve", "m-00000001", "--name", "alpha")
	const machines = "alpha\tapproved, SN-1, 2 CPU, 4.0 GiB, 1 disk\nm-00000002\twaiting, SN-2, 2 CPU, 4.0 GiB, 1 disk\n:4\n"
	for _, command := range []string{"machine", "why", "approve", "retry", "revoke", "forget", "look", "rescue", "log"} {
		if out := complete(command, ""); out != machines {
			t.Errorf("%s: %q", command, out)
		}
		if out := complete(command, "alpha", ""); out != ":4\n" {
			t.Errorf("%s, a second machine: %q", command, out)
		}
	}
	if out := complete("events", "--machine", ""); out != machines {
		t.Errorf("events --machine: %q", out)
	}
	if out := complete("approve", "alpha", "--profile", ""); out != "control-plane\tcontrol-plane\nworker\tworker\n:4\n" {
		t.Errorf("--profile: %q", out)
	}
	if out := complete("machines", "-o", ""); out != "text\nwide\njson\nyaml\n:4\n" {
		t.Errorf("-o: %q", out)
	}
	// Only a node that is Ready can carry the boot service.
	if out := complete("handoff", "start", "--node", ""); out != ":4\n" {
		t.Errorf("--node, none is Ready: %q", out)
	}
	r.Installed("m-00000001")
	r.Started("m-00000001")
	r.Node("m-00000001", 2, wire.NodeReady)
	if out := complete("handoff", "start", "--node", ""); out != "alpha\t192.0.2.10\n:4\n" {
		t.Errorf("--node: %q", out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if out := r.must("", "completion", shell); !strings.Contains(out, "__complete") {
			t.Errorf("completion %s:\n%s", shell, out)
		}
	}
}

// A site file is put into force where no file of the appliance decides.
func TestSiteApply(t *testing.T) {
	const text = "version: 1\nname: lab\nserviceAddress: 192.0.2.1\nlinks:\n  - interface: eth0\n    address: 192.0.2.2/24\n    dhcp: {from: 192.0.2.9, to: 192.0.2.19}\n"
	r := newRig(t)
	r.setup()
	r.fails("the site file of the appliance decides", text, "site", "apply", "-")
	r = newRigWith(t, func(c *api.Config) { c.SiteByHand = true })
	r.setup()
	if out := r.must(text, "site", "apply", "-"); !strings.HasSuffix(out, "It is in force.\n") {
		t.Errorf("it said %s", out)
	}
	if out := r.must("", "site", "show"); !strings.Contains(out, "192.0.2.19") {
		t.Errorf("in force is %s", out)
	}
	// Nodes and machines know the boot service by its address.
	moved := strings.ReplaceAll(text, "serviceAddress: 192.0.2.1", "serviceAddress: 192.0.2.3")
	r.fails("the service address is 192.0.2.1 and would become 192.0.2.3", moved, "site", "apply", "-")
	r.fails("standard input: 2 problems", "version: 1\nname: lab\nserviceAddress: nowhere\n", "site", "apply", "-")
}

// That nobody leads comes first and fails; parts that say the same are not repeated.
func TestStatusWithoutALeader(t *testing.T) {
	waits := "no replica leads, so that no machine is served"
	s := api.Status{Site: "lab", Service: "192.0.2.1", Health: []api.Health{
		{Name: "dhcp", Text: waits, Kind: api.HealthWaiting}, {Name: "state", OK: true, Text: "kept"}, {Name: "tftp", Text: waits, Kind: api.HealthWaiting},
	}}
	var out bytes.Buffer
	if err := writeStatus(&out, s); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	if !strings.HasPrefix(lines[1], "NO REPLICA LEADS") || strings.Count(out.String(), waits) != 1 || !strings.Contains(out.String(), "tftp         as dhcp\n") {
		t.Errorf("it says:\n%s", out.String())
	}
	if err := unhealthy(s); err == nil || !strings.Contains(err.Error(), "no replica leads") {
		t.Errorf("it ends with %v", err)
	}
	if s.Leads = "node-1"; unhealthy(s) != nil {
		t.Errorf("with a leader: %v", unhealthy(s))
	}
}
