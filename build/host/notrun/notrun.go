// Package notrun is for tests that need root, or something else that not every machine
// has. Without it they are skipped, and named where who runs them sees it: make prints the
// list at its end.
package notrun

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Variable names a file that is there; each skipped test adds a line to it.
const Variable = "RACKSEED_NOT_RUN"

// WithoutRoot skips a test that needs to be root, if only of a user namespace. why says
// what for.
func WithoutRoot(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, why)
	}
}

// InNamespace skips a test that needs to be root of the whole machine.
func InNamespace(t testing.TB, why string) {
	t.Helper()
	mapped, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 || !whole(string(mapped)) {
		skip(t, why)
	}
}

// Without skips a test for something else that this machine has not.
func Without(t testing.TB, what string) {
	t.Helper()
	skip(t, "needs "+what)
}

// whole says whether all user IDs are mapped to themselves (user_namespaces(7)).
func whole(uidMap string) bool {
	f := strings.Fields(uidMap)
	return len(f) == 3 && f[0] == "0" && f[1] == "0" && f[2] == "4294967295"
}

func skip(t testing.TB, why string) {
	t.Helper()
	if list := os.Getenv(Variable); list != "" {
		f, err := os.OpenFile(list, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			_, err = fmt.Fprintf(f, "%s: %s\n", t.Name(), why)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Fatalf("%s: %v", Variable, err)
		}
	}
	t.Skip("not run here: " + why)
}
