// Package layout holds the shape of the repository: which way imports go, and
// what may stand at its top.
package layout

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rackseed/rackseed/"

// rules say what the packages under a path may import of ours. The first rule
// whose path fits counts; a path fits itself and all below it.
var rules = []struct {
	path string
	may  []string
	why  string
}{
	{"services/machine", nil, "the vocabulary leans on nothing"},
	{"services/wire", []string{"services/machine"}, "the installer is small, and shares it"},
	{"services/site", []string{"services/machine", "services/wire"}, "a site file can be checked anywhere"},
	{"services/keyring", []string{"services/durable"}, "secrets are sealed and opened without knowing whose they are"},
	{"services/state", []string{"services/machine", "services/wire", "services/keyring"}, "the log knows no protocol"},
	{"services/blob", []string{"services/machine", "services/wire"}, "bulk knows no state"},
	{"services/api", []string{"services"}, "the people's API is the top of the services"},
	{"services/replica", []string{"services"}, "it wires the services and nothing above them"},
	{"services", []string{"services"}, "the boot service must start without Kubernetes, appliance and console"},
	{"images/pid1", nil, "any PID 1 of ours"},
	{"images/installer", []string{"images/pid1", "images/installer", "services/wire", "services/machine"}, "every machine in a storm downloads it"},
	{"images/node", []string{"images/pid1", "images/node"}, "it is in every node's initrd"},
	{"kube", []string{"kube", "services"}, "the cluster leans on the boot service"},
	{"appliance", []string{"appliance", "images/pid1", "services"}, "the stick runs the boot service"},
	{"console", []string{"console", "services"}, "people's tools talk to the API"},
	{"build", []string{"build", "services/machine", "services/wire", "services/blob", "services/site", "images/pid1"}, "the build makes the product, it is not in it"},
	{"vm-test", []string{"vm-test", "build", "console", "services", "images"}, "tests lean on everything they test"},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImportsGoOneWay(t *testing.T) {
	list := exec.Command("go", "list", "-e", "-json=ImportPath,Imports", "./...")
	list.Dir = root(t)
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for d := json.NewDecoder(bytes.NewReader(out)); ; seen++ {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		from, ok := strings.CutPrefix(p.ImportPath, module)
		if !ok {
			continue // main: it picks a role, and so imports them all
		}
		i := slices.IndexFunc(rules, func(r struct {
			path string
			may  []string
			why  string
		}) bool {
			return below(from, r.path)
		})
		if i < 0 {
			t.Errorf("%s: no rule says what it may import", from)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module)
			if !ours || below(to, rules[i].path) {
				continue
			}
			if !slices.ContainsFunc(rules[i].may, func(path string) bool { return below(to, path) }) {
				t.Errorf("%s imports %s: %s", from, to, rules[i].why)
			}
		}
		if strings.HasPrefix(from, "services/") && !strings.HasPrefix(from, "services/replica") && !strings.HasPrefix(from, "services/api") {
			for _, imported := range p.Imports {
				if below(strings.TrimPrefix(imported, module), "services/api") || below(strings.TrimPrefix(imported, module), "services/replica") {
					t.Errorf("%s imports %s: only what is above the services may", from, imported)
				}
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d packages were looked at", seen)
	}
}

func below(path, folder string) bool {
	return path == folder || strings.HasPrefix(path, folder+"/")
}

func TestTopLevel(t *testing.T) {
	git := exec.Command("git", "ls-files")
	git.Dir = root(t)
	out, err := git.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	allowed := []string{"appliance", "services", "images", "kube", "console", "build", "vm-test", "docs", "Makefile",
		"go.mod", "go.sum", "main.go", "README.md", "LICENSE"}
	for file := range strings.Lines(string(out)) {
		top, _, _ := strings.Cut(strings.TrimSpace(file), "/")
		if !strings.HasPrefix(top, ".") && !slices.Contains(allowed, top) {
			t.Errorf("%s: a thing lives where its reason to change lives; %q is not one of the top folders", strings.TrimSpace(file), top)
		}
	}
}

func root(t *testing.T) string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
