package simulate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/services/machine"
)

// The boot service's own golden scripts are what must be understood.
func TestParseBoot(t *testing.T) {
	for _, c := range []struct {
		file string
		want boot
	}{
		{"discovery.ipxe", boot{Kind: machine.BootDiscovery, Service: "http://10.77.0.1"}},
		{"install.ipxe", boot{Kind: machine.BootInstall, Service: "http://10.77.0.1"}},
		{"local.ipxe", boot{Kind: machine.BootLocal}},
		{"wait.ipxe", boot{Again: true}},
	} {
		text, err := os.ReadFile(filepath.Join("../../services/netboot/testdata", c.file))
		if err != nil {
			t.Fatal(err)
		}
		got, err := parseBoot(string(text))
		if err != nil {
			t.Errorf("%s: %v", c.file, err)
			continue
		}
		if got.Kind != c.want.Kind || got.Service != c.want.Service || got.Again != c.want.Again || !strings.HasPrefix(got.Why, "Rackseed: ") {
			t.Errorf("%s: %+v", c.file, got)
		}
		if loads := got.Kernel != "" && got.Initrd != ""; loads != (c.want.Service != "") {
			t.Errorf("%s: kernel %q, initrd %q", c.file, got.Kernel, got.Initrd)
		}
	}
	for name, script := range map[string]string{
		"no script":       "<html>",
		"nothing to boot": "#!ipxe\necho hello\n",
		"no kernel":       "#!ipxe\ninitrd http://h/i\nboot\n",
		"no service":      "#!ipxe\nkernel http://h/k rackseed.mode=install\ninitrd http://h/i\nboot\n",
		"unknown mode":    "#!ipxe\nkernel http://h/k rackseed.url=http://h rackseed.mode=wipe\ninitrd http://h/i\nboot\n",
	} {
		if b, err := parseBoot(script); err == nil {
			t.Errorf("%s: taken for %+v", name, b)
		}
	}
}

func TestNext(t *testing.T) {
	settings := map[string]string{"netX/mac": "52:54:00:d0:00:01", "serial:uristring": "a%20b"}
	got, err := next("#!ipxe\n:again\nchain --replace --autofree http://h/s?mac=${netX/mac}&serial=${serial:uristring} || goto wait\n", settings)
	if want := "http://h/s?mac=52:54:00:d0:00:01&serial=a%20b"; err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := next("#!ipxe\nchain http://h/s?x=${nothing}\n", settings); err == nil || !strings.Contains(err.Error(), "${nothing}") {
		t.Errorf("an unknown setting: %v", err)
	}
	if _, err := next("#!ipxe\nexit\n", settings); err == nil {
		t.Error("a script without chain was followed")
	}
}

func TestDataURL(t *testing.T) {
	for in, want := range map[string]string{"data:,a%20b": "a b", "data:;base64,aGk=": "hi", "data:text/plain;base64,aGk=": "hi"} {
		if got, err := dataURL(in); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "http://h/f", "data:;base64", "data:;base64,!"} {
		if got, err := dataURL(in); err == nil {
			t.Errorf("%q: taken for %q", in, got)
		}
	}
}

func TestHardwareIsTheSameForANumber(t *testing.T) {
	seen := map[string]int{}
	for n := 1; n <= 600; n++ {
		i := Hardware(n)
		for _, word := range append([]string{i.UUID, i.Serial}, string(i.NICs[0].MAC), string(i.NICs[len(i.NICs)-1].MAC), i.Disks[0].Serial) {
			if before := seen[word]; before != 0 && before != n {
				t.Fatalf("machines %d and %d both have %s", before, n, word)
			}
			seen[word] = n
		}
		if i.BootMAC != i.NICs[0].MAC {
			t.Errorf("machine %d netboots from %s, which is not its first NIC", n, i.BootMAC)
		}
	}
}
