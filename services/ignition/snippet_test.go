package ignition

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

func TestCheck(t *testing.T) {
	v := func(rest string) string { return `{"ignition":{"version":"3.6.0"},` + "\n" + rest + "}" }
	for name, c := range map[string]struct{ ignition, want string }{
		"none":              {"", ""},
		"white space":       {" \n", ""},
		"oldest":            {`{"ignition":{"version":"3.0.0"}}`, ""},
		"file":              {v(`"storage":{"files":[{"path":"/etc/motd","contents":{"source":"data:,hi"}}]}`), ""},
		"unit":              {v(`"systemd":{"units":[{"name":"a.service","enabled":true,"contents":"[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target"}]}`), ""},
		"not JSON":          {"variant: fcos", `profile "p": ignition`},
		"cut off":           {v(`"storage":{`), "unexpected end"},
		"type":              {v(`"storage":{"files":7}`), ":2:"},
		"no version":        {`{"storage":{}}`, "expected an Ignition config as JSON"},
		"too new":           {`{"ignition":{"version":"9.0.0"}}`, "3.0.0 to 3.6.0"},
		"bad unit":          {v(`"systemd":{"units":[{"name":"a.service","contents":"[Service"}]}`), `profile "p": ignition:2:`},
		"relative path":     {v(`"storage":{"files":[{"path":"etc/x"}]}`), ":2:29: storage.files.0.path: path not absolute"},
		"read-only":         {v(`"storage":{"files":[{"path":"/usr/bin/x"}]}`), `:2:29: storage.files.0.path: "/usr/bin/x" is read-only`},
		"dotted":            {v(`"storage":{"files":[{"path":"/etc/../usr/x"}]}`), "not fully simplified"},
		"identity":          {v(`"storage":{"files":[{"path":"/etc/rackseed/node.json"}]}`), "Rackseed's own"},
		"link over folder":  {v(`"storage":{"links":[{"path":"/etc/systemd","target":"/var/x"}]}`), "in the way"},
		"file over folder":  {v(`"storage":{"files":[{"path":"/etc"}]}`), "in the way"},
		"folder above ours": {v(`"storage":{"directories":[{"path":"/etc/systemd","mode":493}]}`), ""},
		"neighbour's name":  {v(`"storage":{"directories":[{"path":"/etc/rackseed-more"}]}`), ""},
		"disks":             {v(`"storage":{"disks":[{"device":"/dev/sda","wipeTable":true}]}`), "storage.disks: the installer lays out the disk"},
		"arguments":         {v(`"kernelArguments":{"shouldExist":["quiet"]}`), "profile's kernelArguments"},
		"fetched":           {v(`"storage":{"files":[{"path":"/etc/x","contents":{"source":"http://192.0.2.1/x"}}]}`), "storage.files.0.contents.source: nothing is fetched"},
		"appended":          {v(`"storage":{"files":[{"path":"/etc/x","append":[{"source":"https://192.0.2.1/x"}]}]}`), "storage.files.0.append.0.source: nothing is fetched"},
		"other config":      {`{"ignition":{"version":"3.6.0","config":{"merge":[{"source":"data:,x"}]}}}`, "ignition.config"},
		"too long":          {strings.Repeat(" ", MaxSnippet) + "x", "over 1048576 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			warnings, err := Check(machine.Profile{Name: "p", Role: machine.RoleWorker, Ignition: c.ignition})
			if c.want == "" {
				if err != nil || len(warnings) > 0 {
					t.Errorf("refused: %v, or odd: %v", err, warnings)
				}
				return
			}
			var found *ProfileError
			if !errors.As(err, &found) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want a *ProfileError with %q", err, c.want)
			}
		})
	}
}

func TestCheckWarns(t *testing.T) {
	p := machine.Profile{Name: "p", Role: machine.RoleWorker, Ignition: `{"ignition":{"version":"3.4.0"},
 "storage":{"files":[{"path":"/etc/motd","permissions":420}]},
 "units":[]}`}
	warnings, err := Check(p)
	want := []Problem{{3, 2, "units", "unknown key"}, {2, 42, "storage.files.0.permissions", "unknown key"}}
	if err != nil || !slices.Equal(warnings, want) {
		t.Errorf("%v, %v; want %v", warnings, err, want)
	}
}

// What Check lets through must assemble for a real machine; nothing panics.
func FuzzCheck(f *testing.F) {
	f.Add(`{"ignition":{"version":"3.6.0"},"storage":{"files":[{"path":"/etc/motd","contents":{"source":"data:,hi"}}]}}`)
	f.Add(`{"ignition":{"version":"3.0.0"},"passwd":{"users":[{"name":"root","sshAuthorizedKeys":["k"]}]}}`)
	f.Add(`{"ignition":{"version":"3.6.0"},"storage":{"links":[{"path":"/etc/default","target":"/var/x"}]}}`)
	f.Add(`{"ignition":{"version":"3.4.0"},"systemd":{"units":[{"name":"a.service","contents":"[Service"}]}}`)
	f.Add("{\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, snippet string) {
		p := machine.Profile{Name: "p", Role: machine.RoleWorker, Ignition: snippet}
		if _, err := Check(p); err != nil {
			if !strings.Contains(err.Error(), `profile "p"`) {
				t.Fatalf("the error does not name the profile: %v", err)
			}
			return
		}
		in := input()
		in.Profile = p
		if _, err := Assemble(in); err != nil {
			t.Fatalf("checked, but does not assemble: %v", err)
		}
	})
}
