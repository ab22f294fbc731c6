//go:build slow

// Package newcomer proves what the README promises to whoever comes new: on a
// Debian 12 or 13 with git, make and a C compiler, and as an ordinary user,
// everything is built and starts, or says the one command that is missing.
//
// It needs root, to install such machines into folders and to enter them.
package newcomer

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/host/notrun"
)

const (
	// dirVariable names a folder in which the machines stay, so that single steps
	// can be run again: go test -tags slow -run /trixie/iso ./build/newcomer
	dirVariable = "RACKSEED_NEWCOMER"
	// coldVariable, if set, has them fetch and compile all of Go's themselves,
	// which takes half an hour more each.
	coldVariable = "RACKSEED_NEWCOMER_COLD"
)

func TestNewcomer(t *testing.T) {
	notrun.WithoutRoot(t, "installing a machine into a folder")
	dir := os.Getenv(dirVariable)
	if dir == "" {
		dir = t.TempDir()
	}
	for _, suite := range []string{"bookworm", "trixie"} {
		t.Run(suite, func(t *testing.T) {
			m := newMachine(t, suite, dir)
			for _, s := range steps {
				if !t.Run(s.name, func(t *testing.T) { s.does(t, m) }) {
					return
				}
			}
		})
	}
}

var steps = []struct {
	name string
	does func(*testing.T, machine)
}{
	{"help", func(t *testing.T, m machine) {
		if got := m.does(t, "make"); !strings.Contains(got, "make run") {
			t.Errorf("make printed %q", got)
		}
	}},
	// What needs no C compiler and no user namespace works at once.
	{"cli", func(t *testing.T, m machine) {
		if got := m.does(t, "make cli && out/bin/rackseed site validate docs/site.example.yaml"); got == "" {
			t.Error("the site file was not spoken of")
		}
	}},
	{"doctor", func(t *testing.T, m machine) {
		said := m.does(t, "make doctor || true")
		if exists(filepath.Join(m.root, "usr/bin/newuidmap")) {
			return // another run has obeyed
		}
		if missing := oneCommand.FindStringSubmatch(said); missing == nil || !strings.Contains(missing[1], "uidmap chromium") {
			t.Errorf("make doctor did not say what is missing: %q", missing)
		}
	}},
	{"iso", func(t *testing.T, m machine) {
		m.obeys(t, "make iso")
		m.does(t, "make iso && ls -l out/rackseed.iso && sha256sum ~/.cache/rackseed/out/iso-base-*/*.iso ~/.cache/rackseed/out/node-root-*/root.erofs")
	}},
	{"dev", func(t *testing.T, m machine) {
		m.starts(t, "make dev MACHINES=2 CONSOLE_PORT=18443 HTTP_PORT=18080", `Setup code|setup code`)
	}},
	{"run", func(t *testing.T, m machine) {
		m.starts(t, "make run CONSOLE_PORT=18443 KUBERNETES_PORT=26443", `^The appliance boots from the stick`)
	}},
	{"test", func(t *testing.T, m machine) {
		m.obeys(t, "make test")
		m.starts(t, "make test", `^ok\s+github\.com/rackseed/rackseed`)
	}},
	// All that can be run in a user namespace is, and what cannot is named.
	{"test-host", func(t *testing.T, m machine) {
		if said := m.does(t, "make test-host"); !strings.Contains(said, "NOT RUN, because they need root:") {
			t.Error("make test-host named nothing that needs root")
		}
	}},
	{"healthy", func(t *testing.T, m machine) { m.does(t, "make doctor") }},
}

var oneCommand = regexp.MustCompile(`(?m)One command gets it:\n +su -c '(.*)'$`)

// obeys has root run the one command that make says before anything else, if
// something is missing: nothing is missing after it.
func (m machine) obeys(t *testing.T, line string) {
	t.Helper()
	said := m.does(t, line+" --dry-run 2>&1 || true")
	missing := oneCommand.FindStringSubmatch(said)
	if missing == nil {
		return
	}
	t.Logf("root# %s", missing[1])
	output(t, m.command(t.Context(), "root", "export DEBIAN_FRONTEND=noninteractive\n"+missing[1]))
	if again := oneCommand.FindStringSubmatch(m.does(t, line+" --dry-run 2>&1 || true")); again != nil {
		t.Fatalf("%s: after %q it still wants %q", line, missing[1], again[1])
	}
}
