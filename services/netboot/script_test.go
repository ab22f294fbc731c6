package netboot

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestScriptsGolden(t *testing.T) {
	const base = "http://10.77.0.1"
	b := boot{
		base: base, who: "node-1", mac: "52:54:00:12:34:56",
		kernel: "sha256:" + strings.Repeat("a", 64), initrd: "sha256:" + strings.Repeat("b", 64),
	}
	with := func(kind machine.BootKind, reason string, emulated bool) string {
		b := b
		b.decision, b.emulated = machine.BootDecision{Kind: kind, Reason: reason}, emulated
		return b.script()
	}
	for name, got := range map[string]string{
		"boot":      bootScript(base),
		"local":     with(machine.BootLocal, "installed by intent i-1", false),
		"discovery": with(machine.BootDiscovery, "never seen before", false),
		"install":   with(machine.BootInstall, "install intent i-1 is open", false),
		"emulated":  with(machine.BootInstall, "install intent i-1 is open", true),
		"wait":      waitScript(base, "the installer is not available"),
		"refused":   refusedScript("there is no installer for arm64 machines"),
	} {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name+".ipxe")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s (-update writes it anew):\n%s", golden, got)
			}
			checkScript(t, got)
		})
	}
}

var commandLine = regexp.MustCompile(`^(echo|sleep|goto|chain|kernel|initrd|boot|imgfree|exit|:[a-z]+)\b`)

var harmless = regexp.MustCompile(`^[a-zA-Z0-9 .,:/()_+=?-]*$`)

// checkScript holds what every script must be: iPXE knows it by its first
// line, each line is one command, each label that is jumped to exists, and it
// ends by going on or by handing over, never at a prompt.
func checkScript(t *testing.T, script string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	if lines[0] != "#!ipxe" {
		t.Errorf("first line %q", lines[0])
	}
	for _, l := range lines[1:] {
		if !commandLine.MatchString(l) && !strings.HasPrefix(l, ":") {
			t.Errorf("line %q is no command", l)
		}
		if strings.HasPrefix(l, "echo ") && (!harmless.MatchString(l) || strings.Contains(l, " -")) {
			t.Errorf("line %q is not plain", l)
		}
		if i := strings.Index(l, "goto "); i >= 0 && !strings.Contains(script, "\n:"+l[i+len("goto "):]+"\n") {
			t.Errorf("line %q jumps to no label", l)
		}
	}
	last := lines[len(lines)-1]
	if last != "exit 1" && !strings.Contains(last, "goto ") {
		t.Errorf("it ends with %q", last)
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"node-1 (52:54:00:12:34:56), http://10.77.0.1/": "node-1 (52:54:00:12:34:56), http://10.77.0.1/",
		"two\nlines":     "two?lines",
		"${net0/mac}":    "??net0/mac?",
		"a && reboot":    "a ?? reboot",
		"a || shell; #x": "a ?? shell? ?x",
		"-n":             "?n",
		"a --config b":   "a ?-config b",
		"ü":              "?",
	} {
		if got := plain(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := plain(strings.Repeat("x", 500)); len(got) != 200 {
		t.Errorf("%d bytes", len(got))
	}
}

// Whatever a machine is called and whyever it boots, its script keeps its
// shape: nothing from outside becomes a command.
func FuzzScript(f *testing.F) {
	f.Add("node-1", "never seen before", uint8(0))
	f.Add("x\nshell", "${mac} || exit 0 -- ;", uint8(1))
	f.Add("-n -", "\r\n#!ipxe", uint8(2))
	f.Fuzz(func(t *testing.T, who, reason string, kind uint8) {
		kinds := []machine.BootKind{machine.BootLocal, machine.BootDiscovery, machine.BootInstall}
		k := kinds[int(kind)%len(kinds)]
		make := func(who, reason string) string {
			return boot{base: "http://h", who: who, mac: "52:54:00:12:34:56", decision: machine.BootDecision{Kind: k, Reason: reason}}.script()
		}
		got := make(who, reason)
		checkScript(t, got)
		if lines, want := strings.Count(got, "\n"), strings.Count(make("a", "b"), "\n"); lines != want {
			t.Errorf("%d lines, not %d:\n%s", lines, want, got)
		}
	})
}
