package qemu

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// What a machine is made of shows in QEMU's arguments.
func TestArguments(t *testing.T) {
	m := Machine{
		Dir: "/racks/a,b", NICs: []NIC{{MAC: "52:54:00:00:00:01", Socket: "/racks/a,b/net.sock"}},
		Disks: []Disk{{Path: "/racks/a,b/disk", Serial: "S", Boot: 1}},
	}
	for name, c := range map[string]struct {
		change  func(*Machine)
		has, no string
	}{
		"commas in paths":     {nil, "path=/racks/a,,b/net.sock", "a,b"},
		"UEFI":                {nil, "OVMF_CODE_4M.fd", "smm=on"},
		"Secure Boot":         {func(m *Machine) { m.Firmware = SecureBoot }, "q35,smm=on", "OVMF_CODE_4M.fd"},
		"BIOS":                {func(m *Machine) { m.Firmware = BIOS }, "q35 -boot order=nc", "pflash"},
		"BIOS, with iPXE":     {func(m *Machine) { m.Firmware = BIOS }, "virtio-net-pci", "romfile="},
		"UEFI, without":       {nil, "romfile=", "-boot"},
		"HTTP boot":           {func(m *Machine) { m.HTTPBoot = true }, "IPv4PXESupport,string=no", "-boot"},
		"a disk":              {nil, "virtio-blk-pci,drive=disk0,serial=S,bootindex=1", "readonly=on,id"},
		"a stick":             {func(m *Machine) { m.Disks[0].Kind = USBStick }, "usb-storage", "virtio-blk"},
		"a read-only disk":    {func(m *Machine) { m.Disks[0].ReadOnly = true }, "/disk,readonly=on", "ide-cd"},
		"a CD":                {func(m *Machine) { m.Disks[0].Kind = CD }, "ide-cd,bus=ide.0", "virtio-blk"},
		"a TPM":               {func(m *Machine) { m.TPM = true }, "path=/racks/a,,b/tpm.sock", "tpm-tis"},
		"no TPM":              {nil, "virtio-rng-pci", "tpm"},
		"a CD is not written": {func(m *Machine) { m.Disks[0].Kind = CD }, "/disk,readonly=on", "usb-storage"},
	} {
		m := m
		m.Disks = slices.Clone(m.Disks)
		if c.change != nil {
			c.change(&m)
		}
		if got := strings.Join(m.arguments(Host{}), " "); !strings.Contains(got, c.has) || strings.Contains(got, c.no) {
			t.Errorf("%s: want %q and not %q in\n%s", name, c.has, c.no, got)
		}
	}
}

func TestMonitorsAnswer(t *testing.T) {
	for name, c := range map[string]struct{ says, want string }{
		"well":      {`{"QMP": {}} {"event": "RESET"} {"return": {}} {"error": {"desc": "of the next"}}`, ""},
		"an error":  {`{"error": {"class": "GenericError", "desc": "no display"}}`, "no display"},
		"it leaves": {`{"QMP": {}}`, "EOF"},
	} {
		err := answer(json.NewDecoder(strings.NewReader(c.says)))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
