package pid1

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// What is started gets the limit too, soft and hard.
func TestSetOpenFiles(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	const n = 1000 // below any limit, so that no privilege is needed
	if err := SetOpenFiles(n); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", "ulimit -Sn; ulimit -Hn").Output()
	if got := strings.Fields(string(out)); err != nil || len(got) != 2 || got[0] != "1000" || got[1] != "1000" {
		t.Errorf("%q, %v; before it was %+v", out, err, was)
	}
}
