package netboot

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
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
	with := func(kind machine.BootKind, reason string, change func(*boot)) boot {
		b := b
		b.decision = machine.BootDecision{Kind: kind, Reason: reason}
		if change != nil {
			change(&b)
		}
		return b
	}
	local := func(leave machine.LeaveBy, uefi bool) boot {
		return with(machine.BootLocal, "installed by intent i-1", func(b *boot) { b.leave, b.uefi = leave, uefi })
	}
	install := with(machine.BootInstall, "install intent i-1 is open", nil)
	for name, got := range map[string]string{
		"boot.ipxe":            bootScript(base),
		"local.ipxe":           ipxe{}.local(local(machine.LeaveExit, true)),
		"local-sanboot.ipxe":   ipxe{}.local(local(machine.LeaveSanboot, false)),
		"local-chainload.ipxe": ipxe{}.local(local(machine.LeaveChainload, true)),
		"discovery.ipxe":       ipxe{}.installer(with(machine.BootDiscovery, "never seen before", nil)),
		"install.ipxe":         ipxe{}.installer(install),
		"emulated.ipxe":        ipxe{}.installer(with(machine.BootInstall, "install intent i-1 is open", func(b *boot) { b.emulated = true })),
		"wait.ipxe":            ipxe{}.wait(base, "the installer is not available", false),
		"wait-ordered.ipxe":    ipxe{}.wait(base, "the installer is not available", true),
		"refused.ipxe":         ipxe{}.refused("there is no installer for arm64 machines"),
		"boot.grub":            grubConfig(base),
		"local.grub":           grub{}.local(local(machine.LeaveExit, true)),
		"install.grub":         grub{}.installer(install),
		"rescue.grub":          grub{}.installer(with(machine.BootRescue, "an operator asked for the rescue shell", nil)),
		"discovery.grub":       grub{}.installer(with(machine.BootDiscovery, "never seen before", nil)),
		"wait.grub":            grub{}.wait(base, "the installer is not available", false),
		"wait-ordered.grub":    grub{}.wait(base, "the installer is not available", true),
		"refused.grub":         grub{}.refused("there is no installer for arm64 machines"),
	} {
		t.Run(name, func(t *testing.T) {
			golden := filepath.Join("testdata", name)
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
			if strings.HasSuffix(name, ".grub") {
				checkGRUB(t, got)
			} else {
				checkScript(t, got)
			}
		})
	}
}

var commandLine = regexp.MustCompile(`^(echo|sleep|goto|inc|iseq|set|chain|kernel|initrd|boot|imgfree|sanboot|exit|:[a-z]+)\b`)

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
		if _, after, ok := strings.Cut(l, "goto "); ok && !strings.Contains(script, "\n:"+strings.Fields(after)[0]+"\n") {
			t.Errorf("line %q jumps to no label", l)
		}
	}
	last := lines[len(lines)-1]
	if last != "exit 1" && !strings.Contains(last, "goto ") {
		t.Errorf("it ends with %q", last)
	}
}

var (
	grubCommand = regexp.MustCompile(`^(echo|sleep|smbios|set|while|do|done|source|search|if|for|fi|linux|initrd|chainloader|boot|exit)\b`)
	grubEcho    = regexp.MustCompile(`^echo "[a-zA-Z0-9 .,:/()_+=?-]*"$`)
)

// checkGRUB holds what every GRUB script must be: one command a line, nothing
// open at its end, and nothing said that GRUB would read as more than text.
func checkGRUB(t *testing.T, script string) {
	t.Helper()
	open := 0
	for l := range strings.Lines(script) {
		l = strings.TrimSpace(l)
		if !grubCommand.MatchString(l) {
			t.Errorf("line %q is no command", l)
		}
		if strings.HasPrefix(l, "echo ") && !grubEcho.MatchString(l) {
			t.Errorf("line %q is not plain", l)
		}
		if strings.Count(l, `"`)%2 != 0 {
			t.Errorf("line %q opens a string", l)
		}
		for _, w := range strings.Fields(strings.ReplaceAll(l, ";", " ; ")) {
			switch w {
			case "if", "do":
				open++
			case "fi", "done":
				open--
			}
		}
	}
	if open != 0 {
		t.Errorf("%d blocks stay open:\n%s", open, script)
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
		for _, l := range []language{ipxe{}, grub{}} {
			make := func(who, reason string) string {
				b := boot{base: "http://h", who: who, mac: "52:54:00:12:34:56", decision: machine.BootDecision{Kind: k, Reason: reason}}
				if k == machine.BootLocal {
					return l.local(b)
				}
				return l.installer(b)
			}
			got := make(who, reason)
			if l == (ipxe{}) {
				checkScript(t, got)
			} else {
				checkGRUB(t, got)
			}
			if lines, want := strings.Count(got, "\n"), strings.Count(make("a", "b"), "\n"); lines != want {
				t.Errorf("%d lines, not %d:\n%s", lines, want, got)
			}
		}
	})
}

// player is iPXE, as far as scripts that wait need it. Nothing can be fetched
// but what files has.
type player struct {
	files map[string]string // by what ends a URL
	set   map[string]int
	slept int // seconds
}

// play runs a script and those that it chains to until one exits; false if they
// go on for longer than a day.
func (p *player) play(t *testing.T, script string) bool {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	for at := 0; at < len(lines); at++ {
		ok, skip := true, false
		var command []string
		jump := ""
		run := func() (exit bool) {
			if len(command) == 0 {
				ok = true
				return false
			}
			number := func(word string) int {
				n, err := strconv.Atoi(word)
				if err != nil {
					t.Fatalf("%q: %v", lines[at], err)
				}
				return n
			}
			switch ok = true; command[0] {
			case "goto":
				jump = command[1]
			case "sleep":
				p.slept += number(command[1])
			case "inc":
				p.set[command[1]]++
			case "set":
				p.set[command[1]] = number(command[2])
			case "iseq":
				ok = command[1] == "${rounds:int32}" && p.set["rounds:int32"] == number(command[2])
			case "exit":
				return true
			case "echo", "imgfree":
			case "chain":
				ok = false
				address, _, _ := strings.Cut(command[3], "?")
				for path, next := range p.files {
					if strings.HasSuffix(address, path) {
						lines, at, ok, jump = strings.Split(strings.TrimSuffix(next, "\n"), "\n"), 0, true, "#"
					}
				}
			case "kernel", "initrd", "boot":
				ok = false
			default:
				if !strings.HasPrefix(command[0], ":") && command[0] != "#!ipxe" {
					t.Fatalf("%q: unknown to this test", lines[at])
				}
			}
			return false
		}
		for _, word := range append(strings.Fields(lines[at]), "") {
			switch {
			case word != "&&" && word != "||" && word != "":
				command = append(command, word)
				continue
			case !skip && run():
				return true
			}
			if jump != "" {
				break
			}
			skip, command = word == "&&" && !ok || word == "||" && ok, nil
		}
		switch {
		case p.slept > 24*60*60:
			return false
		case jump == "#": // the first line of the next script does nothing
			at = 0
		case jump != "":
			at = slices.Index(lines, ":"+jump)
		case !ok:
			t.Fatalf("%q failed, and the script ends", lines[at])
		}
	}
	t.Fatal("the last script ends without a word")
	return false
}

// A machine for which nothing is ordered goes on to its own disk in the end, and
// one that is to be installed keeps asking.
func TestScriptsGiveUp(t *testing.T) {
	const base = "http://10.77.0.1"
	b := boot{base: base, who: "node-1", mac: "52:54:00:12:34:56", decision: machine.BootDecision{Kind: machine.BootDiscovery}}
	ordered := b
	ordered.decision.Kind = machine.BootInstall
	first, wait := bootScript(base), ipxe{}.wait(base, "no leader", false)
	for name, c := range map[string]struct {
		start, boot, script string // what there is at /boot.ipxe and /boot/script; empty: nothing
		slept               int    // seconds; 0: it goes on
	}{
		"the service is gone":                      {first, "", "", 59 * 5},
		"it has no leader":                         {first, first, wait, 59 * 10},
		"it went while the machine waited":         {wait, "", "", 59 * 10},
		"the installer cannot be fetched":          {first, first, ipxe{}.installer(b), 59 * 5},
		"the service went with the installer":      {ipxe{}.installer(b), "", "", 59 * 5},
		"an install is ordered, and not fetched":   {first, first, ipxe{}.installer(ordered), 0},
		"the service went with an ordered install": {ipxe{}.installer(ordered), "", "", 0},
		"an install is ordered, and waits":         {first, first, ipxe{}.wait(base, "no installer", true), 0},
	} {
		p := player{set: map[string]int{}, files: map[string]string{}}
		for path, script := range map[string]string{pathBoot: c.boot, pathScript: c.script} {
			if script != "" {
				p.files[path] = script
			}
		}
		if ended := p.play(t, c.start); ended != (c.slept > 0) || ended && p.slept != c.slept {
			t.Errorf("%s: ended %v after %d s, want %d", name, ended, p.slept, c.slept)
			continue
		}
		if c.slept > 0 { // iPXE goes on to its next interface
			p.slept = 0
			if !p.play(t, first) || p.slept > pauseWait {
				t.Errorf("%s: the next interface: %d s", name, p.slept)
			}
		}
	}
}
