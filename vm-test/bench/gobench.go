package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/rackseed/rackseed/build/tools"
)

// pkg is what "go list" says of a package.
type pkg struct {
	Dir, ImportPath           string
	TestGoFiles, XTestGoFiles []string
}

// GoBenchmarks runs the Go benchmarks that stand beside the code, wherever
// there are any, and prints what they print. repository is its folder.
func GoBenchmarks(ctx context.Context, repository string, out, log io.Writer) error {
	list := exec.CommandContext(ctx, "go", "list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles", "./...")
	list.Dir, list.Stderr = repository, log
	listed, err := list.Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	packages, err := withBenchmarks(listed)
	if err != nil {
		return err
	}
	if len(packages) == 0 {
		return fmt.Errorf("no package of %s has a benchmark", repository)
	}
	test := exec.CommandContext(ctx, "go", append([]string{"test", "-run", "^$", "-bench", ".", "-benchtime", "1s"}, packages...)...)
	test.Dir, test.Stdout, test.Stderr = repository, out, log
	if err := test.Run(); err != nil {
		return fmt.Errorf("go test -bench: %w", err)
	}
	return nil
}

const (
	handoffRuns = 5
	killRuns    = 100
)

// Silence runs the benchmarks of how long DHCP is silent, which move the boot
// service and kill its leader in network namespaces, and prints what they print.
// clients has the programs that they call.
func Silence(ctx context.Context, repository string, clients tools.Root, out, log io.Writer) error {
	for _, b := range []struct {
		name string
		runs int
	}{{"HandoffSilence", handoffRuns}, {"LeaderKilled", killRuns}} {
		test := exec.CommandContext(ctx, "go", "test", "-tags", "host", "-timeout", "2h", "-run", "^$", "-bench", b.name, "-benchtime", fmt.Sprintf("%dx", b.runs), "./vm-test/moving")
		test.Dir, test.Stdout, test.Stderr = repository, out, log
		test.Env = append(os.Environ(), "PATH="+filepath.Join(string(clients), "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
		if err := test.Run(); err != nil {
			return fmt.Errorf("go test -bench %s: %w", b.name, err)
		}
	}
	return nil
}

// withBenchmarks are the packages, of those that go list printed, whose tests
// have a benchmark.
func withBenchmarks(listed []byte) ([]string, error) {
	var found []string
	for d := json.NewDecoder(bytes.NewReader(listed)); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		for _, name := range append(p.TestGoFiles, p.XTestGoFiles...) {
			b, err := os.ReadFile(filepath.Join(p.Dir, name))
			if err != nil {
				return nil, err
			}
			if bytes.Contains(b, []byte("\nfunc Benchmark")) {
				found = append(found, p.ImportPath)
				break
			}
		}
	}
}
