// Package rack is a whole virtual datacenter room: a switch, the appliance
// booted from the ISO as a USB stick, and empty machines set to netboot.
package rack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/rackseed/rackseed/services/freeport"
	"github.com/rackseed/rackseed/vm-test/qemu"
	"github.com/rackseed/rackseed/vm-test/vswitch"
)

const (
	gib = 1 << 30
	// stickBytes leaves room for the data partition behind its fixed offset.
	stickBytes = 16 * gib
	diskBytes  = 24 * gib

	managementMAC = "52:54:00:77:ff:01"
	applianceMAC  = "52:54:00:77:00:01"
)

// Config is what the room shall be like.
type Config struct {
	Host qemu.Host
	// Dir holds the room's disks, sockets and logs; made if absent.
	Dir string
	// WriteISO writes the image that carries a site file to a path.
	WriteISO func(ctx context.Context, path string, site []byte, emulated bool) error
	// Machines is how many empty machines there are.
	Machines int
	// ControlPlanes is how many of them are large enough for a control plane,
	// and with Approve become one: the first. 0: one. The others are workers.
	ControlPlanes int
	// Approve lists the machines in the site file, to be installed unasked.
	Approve bool
	// LastNode lists the appliance's own machine, too, as a worker that an operator
	// approves: once its stick is pulled it can be a node.
	LastNode bool
	// Medium is what the image is written to.
	Medium Medium
	// Setup changes machine i before each power-on, by its firmware for
	// example; 0 is the appliance. nil: all have UEFI.
	Setup func(i int, m *qemu.Machine)
	// Site is put at the end of the site file.
	Site string
	// OperatorToken may use the API; its hash goes into the site file.
	OperatorToken string
	// ConsolePort and KubernetesPort are ports of the host's loopback that
	// lead to the appliance; 0: any free one.
	ConsolePort, KubernetesPort int
}

// Medium is what the appliance boots from.
type Medium int

const (
	Stick Medium = iota
	ReadOnlyStick
	CD
)

func (m Medium) String() string { return [...]string{"USB", "read-only USB", "CD"}[m] }

func (c Config) controlPlanes() int { return max(c.ControlPlanes, 1) }

// Rack is a room that is powered on.
type Rack struct {
	Config
	Switch    *vswitch.Switch
	Ports     map[string]*vswitch.Port // by machine name
	Appliance *qemu.VM
	Gateway   *qemu.VM // once the stick is pulled
	Machines  []*qemu.VM

	printed int64 // what the appliance had printed before its last power-on
}

// New builds the room; nothing is powered on yet.
func New(ctx context.Context, c Config) (*Rack, error) {
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("virtual rack: %w", err)
	}
	var err error
	for _, port := range []*int{&c.ConsolePort, &c.KubernetesPort} {
		if *port == 0 {
			if *port, err = freeport.Find(); err != nil {
				return nil, fmt.Errorf("virtual rack: %w", err)
			}
		}
	}
	r := &Rack{Config: c, Switch: vswitch.New(), Ports: map[string]*vswitch.Port{}}
	for i := 0; i <= c.Machines; i++ {
		name := machineName(i)
		if err := os.MkdirAll(r.dir(i), 0o755); err != nil {
			return nil, errors.Join(fmt.Errorf("virtual rack: %w", err), r.Close())
		}
		if r.Ports[name], err = r.Switch.Listen(name, r.socket(i)); err != nil {
			return nil, errors.Join(err, r.Close())
		}
		if i > 0 {
			if err := emptyDisk(r.disk(i), diskBytes); err != nil {
				return nil, errors.Join(err, r.Close())
			}
		}
	}
	if err := r.writeStick(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	r.Machines = make([]*qemu.VM, c.Machines)
	return r, nil
}

// PowerOnAppliance boots the stick. One processor is enough for it: with more,
// QEMU's multi-threaded TCG now and then loses a wake-up from one to the other,
// and the guest's kernel stands still (machine.EmulatedArguments).
func (r *Rack) PowerOnAppliance(ctx context.Context) error {
	if r.Appliance != nil {
		info, err := os.Stat(r.Appliance.SerialLog())
		if err != nil {
			return fmt.Errorf("appliance: %w", err)
		}
		r.printed = info.Size()
	}
	m := applianceMachine(r.dir(0))
	m.NICs = []qemu.NIC{
		{MAC: applianceMAC, Socket: r.socket(0)},
		{MAC: managementMAC, Forwards: map[int]int{r.ConsolePort: 443, r.KubernetesPort: 6443}},
	}
	m.Disks = []qemu.Disk{{Path: r.disk(0), Serial: "STICK", Kind: qemu.USBStick, Boot: 1, ReadOnly: r.Medium == ReadOnlyStick}}
	if r.Medium == CD {
		m.Disks[0].Kind = qemu.CD
	}
	vm, err := r.start(ctx, 0, m)
	r.Appliance = vm
	return err
}

// PullStick takes the appliance away, and its management port with it: the host
// comes to the service address by a gateway that is plugged in where the
// appliance was.
func (r *Rack) PullStick(ctx context.Context) error {
	if err := r.Appliance.Kill(); err != nil {
		return err
	}
	// The user network has a DHCP server that cannot be switched off: what it says
	// goes nowhere.
	r.Ports[machineName(0)].Edit(dropDHCPAnswers)
	var err error
	r.Gateway, err = qemu.StartGateway(ctx, r.Host, qemu.Gateway{
		Name: "gateway", Dir: filepath.Join(r.Dir, "gateway"), Socket: r.socket(0), Network: "10.77.0.0/24", Own: "10.77.0.254", Unused: "10.77.0.253",
		Forwards: map[int]string{r.ConsolePort: ServiceAddress + ":443", r.KubernetesPort: ServiceAddress + ":6443"},
	})
	return err
}

// RestartWithoutStick powers the appliance's own machine on again, once its stick
// was pulled: with the same hardware address and UUID, and with an empty disk. Its
// firmware starts with its own settings: QEMU's boot order, which names the stick, has
// OVMF strike the network card from its list for good, which no real machine does.
// Where it was plugged in the gateway is now.
func (r *Rack) RestartWithoutStick(ctx context.Context) error {
	if r.Gateway == nil {
		return errors.New("appliance: its stick was not pulled")
	}
	name, dir := "last-node", filepath.Join(r.dir(0), "node")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	disk, socket := filepath.Join(dir, "disk.img"), filepath.Join(dir, "port.sock")
	if err := emptyDisk(disk, diskBytes); err != nil {
		return err
	}
	var err error
	if r.Ports[name], err = r.Switch.Listen(name, socket); err != nil {
		return err
	}
	m := applianceMachine(dir)
	m.MiB = workerMiB
	m.NICs = []qemu.NIC{{MAC: applianceMAC, Socket: socket}}
	m.Disks = []qemu.Disk{{Path: disk, Serial: "DISK-LAST"}}
	r.Appliance, err = r.start(ctx, 0, m)
	return err
}

// applianceMachine is the machine that the appliance runs on, without cards and
// disks.
func applianceMachine(dir string) qemu.Machine {
	return qemu.Machine{
		Name: machineName(0), Dir: dir, CPUs: 1, MiB: applianceMiB,
		UUID: "7ac5eed0-0000-4000-8000-000000000000", Serial: "RS-APPLIANCE",
	}
}

// dropDHCPAnswers makes a frame from a DHCP server (UDP port 67, IPv4) one of a
// protocol that nobody speaks.
func dropDHCPAnswers(frame []byte) {
	const ethernet, ports = 14, 14 + 20
	if len(frame) >= ports+2 && frame[12] == 0x08 && frame[13] == 0 && frame[ethernet+9] == 17 && frame[ports] == 0 && frame[ports+1] == 67 {
		frame[12], frame[13] = 0x88, 0xb5 // IEEE 802 - Local Experimental Ethertype 1
	}
}

func (r *Rack) start(ctx context.Context, i int, m qemu.Machine) (*qemu.VM, error) {
	if r.Setup != nil {
		r.Setup(i, &m)
	}
	return qemu.Start(ctx, r.Host, m)
}

// PowerOnMachine powers machine i on, from 1. Nothing is said of the boot
// order: as in a real machine it is kept in the firmware's variables. An empty
// disk does not boot, so the first boot is from the network; from then on the
// installer's order holds. (A bootindex would have OVMF try PXE and HTTP over
// IPv4 and IPv6 on each start, minutes of time-outs, before the disk.)
func (r *Rack) PowerOnMachine(ctx context.Context, i int) error {
	m := qemu.Machine{
		Name: machineName(i), Dir: r.dir(i), CPUs: 2, MiB: controlPlaneMiB,
		UUID:   fmt.Sprintf("7ac5eed0-0000-4000-8000-%012d", i),
		Serial: fmt.Sprintf("RS-%04d", i),
		NICs:   []qemu.NIC{{MAC: MachineMAC(i), Socket: r.socket(i)}},
		Disks:  []qemu.Disk{{Path: r.disk(i), Serial: fmt.Sprintf("DISK-%04d", i)}},
	}
	if i > r.controlPlanes() {
		m.CPUs, m.MiB = 1, workerMiB
	}
	vm, err := r.start(ctx, i, m)
	r.Machines[i-1] = vm
	return err
}

// Close cuts the power of everything and takes the switch down. Disks and logs
// stay in Dir.
func (r *Rack) Close() error {
	var errs []error
	for _, vm := range append([]*qemu.VM{r.Appliance, r.Gateway}, r.Machines...) {
		if vm != nil {
			errs = append(errs, vm.Kill())
		}
	}
	return errors.Join(append(errs, r.Switch.Close())...)
}

// MachineMAC is the hardware address of machine i; 0 is the appliance's.
func MachineMAC(i int) string {
	if i == 0 {
		return applianceMAC
	}
	return fmt.Sprintf("52:54:00:77:01:%02x", i)
}

func machineName(i int) string {
	if i == 0 {
		return "appliance"
	}
	return fmt.Sprintf("machine-%d", i)
}

// SiteFile is the room's site file.
func (r *Rack) SiteFile() []byte { return siteFile(r.Config) }

func (r *Rack) dir(i int) string    { return filepath.Join(r.Dir, machineName(i)) }
func (r *Rack) socket(i int) string { return filepath.Join(r.dir(i), "net.sock") }
func (r *Rack) disk(i int) string   { return filepath.Join(r.dir(i), "disk.img") }

// writeStick writes the ISO to the stick, as dd would.
func (r *Rack) writeStick(ctx context.Context) error {
	if err := r.WriteISO(ctx, r.disk(0), r.SiteFile(), !r.Host.KVM); err != nil {
		return fmt.Errorf("virtual stick: %w", err)
	}
	if r.Medium == CD {
		return nil
	}
	// The stick is larger than the image, and empty behind it.
	if err := os.Truncate(r.disk(0), stickBytes); err != nil {
		return fmt.Errorf("virtual stick: %w", err)
	}
	return nil
}

// RewriteStick writes the ISO over the stick again, as dd would on a stick that
// was in use: what is behind the image stays.
func (r *Rack) RewriteStick(ctx context.Context) (err error) {
	image := r.disk(0) + ".new"
	if err := r.WriteISO(ctx, image, r.SiteFile(), !r.Host.KVM); err != nil {
		return fmt.Errorf("virtual stick: %w", err)
	}
	in, err := os.Open(image)
	if err != nil {
		return fmt.Errorf("virtual stick: %w", err)
	}
	defer func() { err = errors.Join(err, in.Close(), os.Remove(image)) }()
	out, err := os.OpenFile(r.disk(0), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("virtual stick: %w", err)
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("virtual stick: %w", err)
	}
	return nil
}

// emptyDisk makes a sparse file of zeros, which takes no room until written.
func emptyDisk(path string, bytes int64) error {
	f, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("virtual disk: %w", err)
	}
	if err := errors.Join(f.Truncate(bytes), f.Close()); err != nil {
		return fmt.Errorf("virtual disk %s: %w", path, err)
	}
	return nil
}
