package install

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/rackseed/rackseed/images/pid1/gpt"
	"github.com/rackseed/rackseed/services/wire"
)

func order(change func(*wire.Order)) wire.Order {
	o := wire.Order{Kind: wire.OrderInstall, Intent: "i-1", Epoch: 1, Image: &wire.NodeImage{Digest: "sha256:00"}}
	for _, name := range []string{"root.erofs", "vmlinuz", "initrd.img", "grub.cfg", "shimx64.efi", "grubx64.efi", "mmx64.efi"} {
		o.Image.Files = append(o.Image.Files, wire.File{Name: name, Size: 1 << 20})
	}
	if change != nil {
		change(&o)
	}
	return o
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		uefi   bool
		change func(*wire.Order)
		want   string
	}{
		{true, nil, ""},
		{true, func(o *wire.Order) { o.Image = nil }, "names no node image"},
		{true, func(o *wire.Order) { o.Image.Files = o.Image.Files[1:] }, "has no root.erofs"},
		{true, func(o *wire.Order) { o.Image.Files = o.Image.Files[:6] }, "has no mmx64.efi"},
		{true, func(o *wire.Order) { o.Image.Files[0].Size = 4<<30 + 1 }, "a slot has 4294967296"},
		{true, func(o *wire.Order) { o.KernelArguments = []string{"a=b c"} }, `kernel argument "a=b c"`},
		{false, nil, "no boot.img: set its firmware to UEFI"},
		{false, func(o *wire.Order) {
			o.Image.Files = append(o.Image.Files, wire.File{Name: "boot.img"}, wire.File{Name: "core.img"})
		}, ""},
	} {
		err := check(order(c.change), c.uefi)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("want %q, got %v", c.want, err)
		}
	}
}

func TestCommandLine(t *testing.T) {
	root, data := gpt.MustGUID("00000000-0000-0000-0000-00000000000a"), gpt.MustGUID("00000000-0000-0000-0000-00000000000d")
	got, err := commandLine(root, data, []string{"mitigations=off", "tsc=reliable"})
	want := `set rs_cmdline="rackseed.role=node rackseed.slot=a root=PARTUUID=00000000-0000-0000-0000-00000000000a ` +
		`rackseed.data=PARTUUID=00000000-0000-0000-0000-00000000000d systemd.gpt_auto=0 panic=10 mitigations=off tsc=reliable"` + "\n"
	if err != nil || got != want {
		t.Errorf("%s%v\nwant %s", got, err, want)
	}
	for _, bad := range []string{"", `a"b`, "a$b", "a\nb", `a\b`, "é", "a;b"} {
		if _, err := commandLine(root, data, []string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestGRUBEnv(t *testing.T) {
	b := grubenv()
	if len(b) != 1024 || !bytes.HasPrefix(b, []byte("# GRUB Environment Block\n")) || !bytes.Contains(b, []byte("\nA_OK=1\nA_TRY=0\n")) || b[1023] != '#' {
		t.Errorf("%d bytes: %q", len(b), b[:80])
	}
}

func TestBIOSLoader(t *testing.T) {
	boot, core := bytes.Repeat([]byte{1}, 512), bytes.Repeat([]byte{2}, 1500)
	code, sectors, err := biosLoader(boot, core, 2048, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if len(code) != 440 || hex.EncodeToString(code[0x5c:0x68]) != "000800000000000001019090" {
		t.Errorf("boot code: %d bytes, % x", len(code), code[0x5c:0x68])
	}
	if len(sectors) != 1536 || hex.EncodeToString(sectors[0x1f4:0x200]) != "010800000000000002002008" {
		t.Errorf("core: %d bytes, % x", len(sectors), sectors[0x1f4:0x200])
	}
	if _, _, err := biosLoader(boot, core, 2048, 1024); err == nil || !strings.Contains(err.Error(), "its partition 1024") {
		t.Errorf("a core that is too large: %v", err)
	}
	if _, _, err := biosLoader(boot[:100], core, 2048, 1<<20); err == nil {
		t.Error("a short boot.img was taken")
	}
}
