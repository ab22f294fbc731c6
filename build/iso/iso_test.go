package iso

import (
	"bytes"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func TestVolumeUUID(t *testing.T) {
	form := regexp.MustCompile(`^2026-11-24-([01]\d|2[0-3])-[0-5]\d-[0-5]\d-\d\d$`)
	seen := map[string]bool{}
	for _, build := range []string{"", "a", "b", "0123456789abcdef"} {
		u := volumeUUID(1795478400, build)
		if !form.MatchString(u) {
			t.Errorf("volumeUUID(%q) = %s is no date of 2026-11-24", build, u)
		}
		if u != volumeUUID(1795478400+3600, build) {
			t.Errorf("volumeUUID(%q) hangs on the time of day", build)
		}
		seen[u] = true
	}
	if len(seen) != 4 {
		t.Errorf("builds share a UUID: %v", seen)
	}
}

func TestEnvBlock(t *testing.T) {
	plain, err := envBlock("U", false)
	if err != nil {
		t.Fatal(err)
	}
	emulated, err := envBlock("U", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{plain, emulated} {
		if len(b) != 1024 || !bytes.HasPrefix(b, []byte("# GRUB Environment Block\n")) {
			t.Errorf("GRUB does not take %d bytes beginning with %q", len(b), b[:26])
		}
	}
	if !bytes.Contains(emulated, []byte("\nrs_args="+emulatedArguments+"\n")) || bytes.Contains(plain, []byte("mitigations")) {
		t.Error("arguments of an emulated machine are not exactly where they were asked for")
	}
	if _, err := envBlock(strings.Repeat("u", 1024), false); err == nil {
		t.Error("a block that is too long was made")
	}
}

func TestParents(t *testing.T) {
	if got, want := parents("EFI/BOOT/x.efi"), []string{"EFI", "EFI/BOOT"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := parents("site.yaml"); got != nil {
		t.Errorf("got %v", got)
	}
}
