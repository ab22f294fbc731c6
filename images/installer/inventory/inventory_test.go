package inventory

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/images/pid1/block"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/siderolabs/go-smbios/smbios"
	"golang.org/x/sys/unix"
)

// Paths as real kernels have them.
func TestTransport(t *testing.T) {
	for path, want := range map[string]string{
		"/sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda":                                         "sata",
		"/sys/devices/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0/nvme0n1":                                                  "nvme",
		"/sys/devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdb":                             "usb",
		"/sys/devices/pci0000:00/0000:00:05.0/virtio2/block/vda":                                                                "virtio",
		"/sys/devices/pci0000:00/0000:00:06.0/virtio3/host2/target2:0:0/2:0:0:0/block/sdc":                                      "virtio",
		"/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.0/host0/port-0:0/end_device-0:0/target0:0:0/0:0:0:0/block/sdd":         "sas",
		"/sys/devices/pci0000:00/0000:00:02.2/0000:04:00.0/host1/rport-1:0-2/target1:0:0/1:0:0:0/block/sde":                     "fc",
		"/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdf":                                                    "iscsi",
		"/sys/devices/pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0":                                            "mmc",
		"/sys/devices/pci0000:00/0000:00:01.0/0000:01:00.0/host0/target0:2:0/0:2:0:0/block/sda":                                 "unknown", // a RAID controller
		"/sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/f8b3781a/host0/target0:0:0/0:0:0:0/block/sda":                "unknown",
		"/sys/devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/nvme/nvme1/nvme1n1":                                              "usb",
		"/sys/devices/pci0000:00/0000:00:1f.2/ata3/host2/target2:0:0/2:0:0:0/block/sr0":                                         "sata",
		"/sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/host9/port-9:1/expander-9:0/port-9:0:4/end_device-9:0:4/t/block/sdz": "sas",
	} {
		if got := transport(filepath.Base(path), path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

func TestNotDisks(t *testing.T) {
	for name, want := range map[string]bool{"loop0": true, "sr0": true, "dm-0": true, "md127": true, "nvme0c1n1": true, "mmcblk0boot0": true, "nbd3": true,
		"sda": false, "nvme0n1": false, "vdb": false, "mmcblk0": false, "xvda": false} {
		if notDisks.MatchString(name) != want {
			t.Errorf("%s: want %v", name, want)
		}
	}
}

func TestCleanID(t *testing.T) {
	for s, want := range map[string]string{" CZ123 ": "CZ123", "To Be Filled By O.E.M.": "", "Not Specified": "", "0000000000": "", "xxxxxxxx": "", "\x00\x00": "", "0123456789": ""} {
		if got := cleanID(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestParseCPU(t *testing.T) {
	const text = `processor	: 0
model name	: Intel(R) Xeon(R)   CPU
physical id	: 0
core id		: 0

processor	: 1
model name	: Intel(R) Xeon(R)   CPU
physical id	: 0
core id		: 0

processor	: 2
physical id	: 1
core id		: 0
`
	if got, want := parseCPU(text), (machine.CPU{Model: "Intel(R) Xeon(R) CPU", Sockets: 2, Cores: 2, Threads: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := parseMemTotal("MemFree: 1 kB\nMemTotal:       16384 kB\n"); got != 16<<20 {
		t.Errorf("memory %d", got)
	}
	if got := parseMemTotal(""); got != 0 {
		t.Errorf("memory %d of nothing", got)
	}
}

func TestInstalledMemory(t *testing.T) {
	for want, sizes := range map[uint64][]smbios.MemoryDeviceSize{16 << 30: {8192, 0, 8192}, 0: {8192, 0x7fff}, 4 << 30: {4096}} {
		var modules []smbios.MemoryDevice
		for _, s := range sizes {
			modules = append(modules, smbios.MemoryDevice{Size: s})
		}
		if got := installedMemory(modules); got != want {
			t.Errorf("%v: %d, want %d", sizes, got, want)
		}
	}
}

func TestDisks(t *testing.T) {
	dir := t.TempDir()
	h := block.Host{Sys: dir + "/sys", Dev: dir + "/dev"}
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(dir+path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(dir+path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const sda, loop = "/sys/devices/pci/ata1/host0/target/0:0:0:0/block/sda", "/sys/devices/virtual/block/loop0"
	for _, d := range []string{sda, loop} {
		write(d+"/size", "2048\n")
		write(d+"/queue/logical_block_size", "512\n")
		name := filepath.Base(d)
		if err := os.MkdirAll(dir+"/sys/class/block", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(dir+d, dir+"/sys/class/block/"+name); err != nil {
			t.Fatal(err)
		}
		write("/dev/"+name, strings.Repeat("\x00", 1<<20))
	}
	write(sda+"/queue/rotational", "1\n")
	write("/sys/devices/pci/ata1/host0/target/0:0:0:0/vendor", "ATA     \n")
	write("/sys/devices/pci/ata1/host0/target/0:0:0:0/model", "ST4000NM    \n")
	write("/sys/devices/pci/ata1/host0/target/0:0:0:0/wwid", "naa.5000c500\n")
	write("/sys/devices/pci/ata1/host0/target/0:0:0:0/vpd_pg80", "\x00\x80\x00\x08  ZC1ABC")
	if err := os.Symlink("../..", dir+sda+"/device"); err != nil {
		t.Fatal(err)
	}
	disks, err := Disks(h)
	if err != nil || len(disks) != 1 {
		t.Fatalf("%+v, %v", disks, err)
	}
	want := machine.Disk{Path: dir + "/dev/sda", Transport: "sata", Model: "ST4000NM", Serial: "ZC1ABC", WWN: "naa.5000c500", Bytes: 1 << 20,
		SectorSize: 512, Rotational: true, Contents: "empty"}
	if disks[0] != want {
		t.Errorf("%+v\nwant %+v", disks[0], want)
	}
	if now, err := Look(h, dir+"/dev/sda"); err != nil || now != want {
		t.Errorf("looked at again: %+v, %v", now, err)
	}
	if now, err := Look(h, dir+"/dev/sdb"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("one that is not there: %+v, %v", now, err)
	}
	if err := os.Remove(dir + "/dev/sda"); err != nil {
		t.Fatal(err)
	}
	if disks, err = Disks(h); err != nil || !strings.HasPrefix(disks[0].Contents, "unreadable: ") {
		t.Errorf("a disk that cannot be read: %+v, %v", disks, err)
	}
}

// A disk that hangs is listed, with that.
func TestHangingDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk") // a pipe: opening it waits for a writer
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	got := look(machine.Disk{Path: path, Bytes: 1 << 20, SectorSize: 512}, time.Millisecond)
	if got != "unreadable: it did not answer within 1ms" {
		t.Error(got)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0) // lets the look end
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		t.Error(err)
	}
}

func TestOnePath(t *testing.T) {
	d := func(path, transport, wwn, serial string, bytes uint64) machine.Disk {
		return machine.Disk{Path: path, Transport: transport, WWN: wwn, Serial: serial, Bytes: bytes}
	}
	const lun = "naa.600a098038303045"
	got := onePath([]machine.Disk{
		d("/dev/sda", "fc", lun, "S1", 1<<40), d("/dev/sdb", "fc", lun+"2", "S2", 1<<40), d("/dev/sdc", "fc", lun, "S1", 1<<40), d("/dev/sdd", "fc", lun, "S1", 1<<40),
		d("/dev/nvme0n1", "nvme", "eui.0", "A", 1<<40), d("/dev/nvme1n1", "nvme", "eui.0", "B", 1<<40), // a vendor that gives all its disks one ID
		d("/dev/vda", "virtio", "", "", 1<<35), d("/dev/vdb", "virtio", "", "", 1<<35),
	})
	want := []machine.Disk{
		d("/dev/sda", Multipath, lun, "S1", 1<<40), d("/dev/sdb", "fc", lun+"2", "S2", 1<<40),
		d("/dev/nvme0n1", "nvme", "eui.0", "A", 1<<40), d("/dev/nvme1n1", "nvme", "eui.0", "B", 1<<40),
		d("/dev/vda", "virtio", "", "", 1<<35), d("/dev/vdb", "virtio", "", "", 1<<35),
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}
