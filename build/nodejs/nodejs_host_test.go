//go:build host

package nodejs_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/nodejs"
	"github.com/rackseed/rackseed/build/step"
)

// Node.js starts itself anew, finds the modules that Debian keeps as files, and
// npm runs, all without a node of the host and without leaving its own modules
// to what npm starts.
func TestNodeAndNpmRun(t *testing.T) {
	cache, err := step.DefaultDir()
	if err != nil {
		t.Fatal(err)
	}
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	archive := &debian.Archive{Repository: repository, Cache: cache, Log: t.Output()}
	packages, err := archive.Unpacked(t.Context(), "nodejs")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := (&step.Cache{Dir: cache, Progress: t.Output()}).Get(t.Context(), nodejs.Step(packages, cache))
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	// A host's programs, and no node among them.
	host := t.TempDir()
	for _, name := range []string{"sh", "env"} {
		if err := os.Symlink(filepath.Join("/usr/bin", name), filepath.Join(host, name)); err != nil {
			t.Fatal(err)
		}
	}
	project := t.TempDir()
	if err := os.WriteFile(filepath.Join(project, "package.json"), []byte(`{"scripts":{"path":"node -p process.env.NODE_PATH"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"node", "--version"}, "v20."},
		{[]string{"node", "-p", `String(require("child_process").execFileSync(process.execPath, ["-p", "40+2"]))`}, "42"},
		{[]string{"node", "--input-type=module", "-e", `import {EOL} from "node:os"; console.log(typeof fetch, EOL === "\n")`}, "function true"},
		{[]string{"npm", "--version"}, "9."},
		{[]string{"npm", "run", "--silent", "path"}, "undefined"},
	} {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, c.args[0]), c.args[1:]...)
		cmd.Dir, cmd.Env = project, []string{"PATH=" + bin + ":" + host, "HOME=" + project}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("%q: %v, printed %q, want %q", c.args, err, out, c.want)
		}
	}
}
