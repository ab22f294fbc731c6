package efi

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/gpt"
)

var partition = gpt.Partition{Number: 2, ID: gpt.MustGUID("00112233-4455-6677-8899-aabbccddeeff"), First: 4096, Last: 4096 + 2097152 - 1}

// Laid out by hand after UEFI 2.10 §3.1.3, §10.3.5.1 and §10.3.5.4.
func TestLoadOption(t *testing.T) {
	want := "01000000" + "3800" + // active; 56 bytes of device path
		"520061000000" + // "Ra"
		"04012a00" + "02000000" + "0010000000000000" + "0000200000000000" + "33221100554477668899aabbccddeeff" + "0202" +
		"04040a00" + "5c0041000000" + // \A
		"7fff0400"
	if got := hex.EncodeToString(LoadOption("Ra", partition, `\A`)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d, err := Description(LoadOption("Rackseed", partition, `\A`)); err != nil || d != "Rackseed" {
		t.Errorf("%q, %v", d, err)
	}
	if _, err := Description([]byte{1, 0, 0, 0, 1, 0, 'x', 0}); err == nil {
		t.Error("a name without end was read")
	}
}

func TestNewOrder(t *testing.T) {
	for _, c := range []struct {
		order         []uint16
		current, ours uint16
		want          []uint16
	}{
		{[]uint16{3, 1, 2}, 1, 9, []uint16{1, 9, 3, 2}},
		{[]uint16{9, 1, 2}, 1, 9, []uint16{1, 9, 2}},
		{[]uint16{1, 2}, 7, 9, []uint16{9, 1, 2}},
		{nil, 7, 9, []uint16{9}},
		{[]uint16{1, 9}, 9, 9, []uint16{9, 1}},
	} {
		if got := NewOrder(c.order, c.current, c.ours); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%v, current %d: %v, want %v", c.order, c.current, got, c.want)
		}
	}
}

func TestFree(t *testing.T) {
	for want, entries := range map[uint16]map[uint16]string{
		0: {}, 2: {0: "a", 1: "b", 5: "c"}, 5: {0: "a", 5: "Rackseed", 7: "Rackseed"},
	} {
		if got := Free(entries, "Rackseed"); got != want {
			t.Errorf("%v: %d, want %d", entries, got, want)
		}
	}
}

func TestAddEntry(t *testing.T) {
	v := Variables{t.TempDir()}
	for name, data := range map[string][]byte{
		"Boot0000": LoadOption("UiApp", partition, "x"), "Boot0001": LoadOption("UEFI PXEv4", partition, "x"),
		"BootOrder": {0, 0, 1, 0}, "BootCurrent": {1, 0}, "SecureBoot": {1},
	} {
		if err := v.Write(name, data); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // a second install replaces its entry
		text, err := v.AddEntry("Rackseed", partition, `\EFI\BOOT\BOOTX64.EFI`)
		if err != nil || text != "0001 UEFI PXEv4, 0002 Rackseed, 0000 UiApp" {
			t.Errorf("%q, %v", text, err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(v.Dir, "BootOrder-"+global))
	if err != nil || !reflect.DeepEqual(raw, []byte{7, 0, 0, 0, 1, 0, 2, 0, 0, 0}) {
		t.Errorf("BootOrder % x, %v", raw, err)
	}
	if !v.SecureBoot() {
		t.Error("Secure Boot is on")
	}
	if (Variables{t.TempDir()}).SecureBoot() {
		t.Error("Secure Boot without the variable")
	}
}
