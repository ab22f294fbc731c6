// Package qemu runs virtual machines: the command line of one, its process,
// and its monitor. It knows nothing of what runs inside.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/build/tools"
)

// Host is where QEMU and firmware come from.
type Host struct {
	Tools tools.Root
	// KVM says that /dev/kvm was tried and works.
	KVM bool
	// SWTPM is the program swtpm, for machines with a TPM.
	SWTPM string
}

// Firmware is what a machine starts with.
type Firmware int

const (
	// UEFI is OVMF, which enforces no signatures.
	UEFI Firmware = iota
	// SecureBoot is OVMF with Secure Boot on, and Microsoft's keys in it as
	// machines have them when they are bought.
	SecureBoot
	// BIOS is SeaBIOS.
	BIOS
)

func (f Firmware) String() string { return [...]string{"UEFI", "Secure Boot", "BIOS"}[f] }

// files are OVMF's code and its variables as they come from the factory; empty
// for BIOS, which QEMU brings along.
func (f Firmware) files() (code, variables string) {
	switch f {
	case UEFI:
		return "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd"
	case SecureBoot:
		return "OVMF_CODE_4M.secboot.fd", "OVMF_VARS_4M.ms.fd"
	}
	return "", ""
}

// arguments choose the firmware. Code that enforces Secure Boot keeps its
// variables where only system management mode can write, and cannot do that
// beside ACPI's S3 (/usr/share/doc/ovmf/README.Debian).
func (f Firmware) arguments(h Host, variables string) []string {
	code, _ := f.files()
	flash := []string{
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + option(h.Tools.OVMF(code)),
		"-drive", "if=pflash,format=raw,unit=1,file=" + option(variables),
	}
	switch f {
	case SecureBoot:
		return append(flash, "-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on",
			"-global", "ICH9-LPC.disable_s3=1")
	case UEFI:
		return append(flash, "-machine", "q35")
	}
	// The network, then the first disk, where no disk has a place.
	return []string{"-machine", "q35", "-boot", "order=nc"}
}

// DiskKind is how a disk is attached.
type DiskKind int

const (
	Virtio DiskKind = iota
	USBStick
	CD // on SATA
)

// NIC is one network interface of a machine.
type NIC struct {
	MAC string
	// Socket is the switch port's unix socket. Empty: a network of its own to
	// the host's loopback (QEMU's user network, restricted: nothing gets out).
	Socket string
	// Forwards are connections to the host's loopback that reach the machine:
	// host port → guest port.
	Forwards map[int]int
}

// Disk is one disk of a machine.
type Disk struct {
	Path     string // raw image
	Serial   string
	Kind     DiskKind
	Boot     int  // place in the boot order, from 1; 0: not booted from
	ReadOnly bool // a stick whose switch is on; a CD always is
	// Safe keeps fsync: for tests that kill QEMU and look at the disk.
	Safe bool
}

// Machine is what a virtual machine is made of.
type Machine struct {
	Name     string
	Dir      string // sockets, logs, firmware variables; made if absent
	Firmware Firmware
	// HTTPBoot has UEFI netboot by HTTP (UEFI 2.10 section 24.7), not by PXE.
	HTTPBoot bool
	// Typed makes the first serial port a socket, SerialSocket, that can be
	// typed on; what is printed goes to SerialLog all the same.
	Typed  bool
	CPUs   int
	MiB    int
	UUID   string
	Serial string // SMBIOS serial number
	NICs   []NIC
	Disks  []Disk
	TPM    bool // a TPM 2.0, which keeps its seeds from one start to the next
	// Yields has other machines go first, by a little, where there are more of them
	// than processors: emulated, a control plane that gets too little answers nobody.
	// By much, a worker gets so little beside a busy control plane that its install
	// fails.
	Yields bool
}

// arguments is QEMU's command line, without the program.
func (m Machine) arguments(h Host) []string {
	accel, cpu := "tcg,thread=multi", "max"
	if h.KVM {
		accel, cpu = "kvm", "host"
	}
	args := []string{
		"-name", m.Name, "-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MiB),
		"-nodefaults", "-display", "none", "-no-user-config",
		"-chardev", m.serial(), "-serial", "chardev:serial0",
		"-qmp", "unix:" + option(m.path("qmp.sock")) + ",server=on,wait=off",
		"-device", "virtio-rng-pci", "-device", "qemu-xhci,id=xhci", "-device", "VGA",
	}
	args = append(args, m.Firmware.arguments(h, m.path(variablesFile))...)
	if m.HTTPBoot {
		for _, protocol := range []string{"IPv4PXESupport", "IPv6PXESupport"} {
			args = append(args, "-fw_cfg", "name=opt/org.tianocore/"+protocol+",string=no")
		}
	}
	if m.UUID != "" {
		args = append(args, "-uuid", m.UUID)
	}
	if m.Serial != "" {
		args = append(args, "-smbios", "type=1,manufacturer=Rackseed,product=Virtual rack,serial="+m.Serial)
	}
	if m.TPM {
		args = append(args, "-chardev", "socket,id=tpm0,path="+option(m.path(tpmSocket)), "-tpmdev", "emulator,id=tpm0,chardev=tpm0", "-device", "tpm-crb,tpmdev=tpm0")
	}
	for i, n := range m.NICs {
		id := "net" + strconv.Itoa(i)
		if n.Socket != "" {
			args = append(args, "-netdev", "stream,id="+id+",server=off,reconnect-ms=500,addr.type=unix,addr.path="+option(n.Socket))
		} else {
			user := "user,id=" + id + ",restrict=on"
			for host, guest := range n.Forwards {
				user += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-10.0.2.15:%d", host, guest)
			}
			args = append(args, "-netdev", user)
		}
		// UEFI boots by its own network stack, without an option ROM. SeaBIOS
		// has none: iPXE is in the card, as it is in QEMU's cards by default. (A
		// ROM that is named keeps the IDs of another card, and is not run.)
		rom := ",romfile="
		if m.Firmware == BIOS {
			rom = ""
		}
		args = append(args, "-device", "virtio-net-pci,netdev="+id+",mac="+n.MAC+rom)
	}
	for i, d := range m.Disks {
		id := "disk" + strconv.Itoa(i)
		cache := "unsafe"
		if d.Safe {
			cache = "writeback"
		}
		drive := "if=none,format=raw,discard=unmap,id=" + id + ",cache=" + cache + ",file=" + option(d.Path)
		if d.ReadOnly || d.Kind == CD {
			drive += ",readonly=on"
		}
		device := map[DiskKind]string{
			Virtio:   "virtio-blk-pci",
			USBStick: "usb-storage,bus=xhci.0,removable=on",
			CD:       "ide-cd,bus=ide." + strconv.Itoa(i),
		}[d.Kind]
		args = append(args, "-drive", drive, "-device", device+",drive="+id+",serial="+d.Serial+bootIndex(d.Boot))
	}
	return args
}

// serial is what the first serial port is connected to.
func (m Machine) serial() string {
	if m.Typed {
		return "socket,id=serial0,server=on,wait=off,path=" + option(m.SerialSocket()) + ",logappend=on,logfile=" + option(m.SerialLog())
	}
	return "file,id=serial0,append=on,path=" + option(m.SerialLog())
}

// option is a value among QEMU's options, which commas separate.
func option(value string) string { return strings.ReplaceAll(value, ",", ",,") }

func bootIndex(n int) string {
	if n == 0 {
		return ""
	}
	return ",bootindex=" + strconv.Itoa(n)
}

// variablesFile keeps the firmware's variables from one start to the next.
const variablesFile = "vars.fd"

func (m Machine) path(name string) string { return filepath.Join(m.Dir, name) }

// SerialLog is the file that everything on the first serial port goes to.
func (m Machine) SerialLog() string { return m.path("serial.log") }

// SerialSocket is the Unix socket of the first serial port, with Typed.
func (m Machine) SerialSocket() string { return m.path("serial.sock") }

// VM is a machine that is powered on.
type VM struct {
	Machine
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // why it ended; set before exited closes
	once   sync.Once
}

// Start powers the machine on. It ends with Kill, by itself, or with ctx.
// Firmware variables survive from one start to the next, as in a real machine.
func Start(ctx context.Context, h Host, m Machine) (*VM, error) {
	if err := os.MkdirAll(m.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	_, variables := m.Firmware.files()
	if _, err := os.Stat(m.path(variablesFile)); variables != "" && errors.Is(err, os.ErrNotExist) {
		if err := copyFile(m.path(variablesFile), h.Tools.OVMF(variables)); err != nil {
			return nil, fmt.Errorf("machine %s: firmware variables: %w", m.Name, err)
		}
	}
	return launch(ctx, h, m, m.arguments(h))
}

// Gateway is a place on a switch from where the host's loopback leads to addresses
// there, as an operator's laptop that is plugged in. It is QEMU without a machine:
// its user network and the switch, on one hub.
type Gateway struct {
	Name, Dir string
	Socket    string         // of the switch's port
	Network   string         // as 10.77.0.0/24
	Own       string         // its address there
	Unused    string         // another one, that QEMU's name server has there
	Forwards  map[int]string // host port → ADDRESS:PORT there
}

func (g Gateway) arguments() []string {
	user := "user,id=user,net=" + g.Network + ",host=" + g.Own + ",dns=" + g.Unused
	for host, to := range g.Forwards {
		user += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-%s", host, to)
	}
	return []string{
		"-name", g.Name, "-machine", "none", "-nodefaults", "-display", "none", "-no-user-config",
		"-netdev", user, "-netdev", "stream,id=switch,server=off,reconnect-ms=500,addr.type=unix,addr.path=" + option(g.Socket),
		"-netdev", "hubport,id=port0,hubid=0,netdev=user", "-netdev", "hubport,id=port1,hubid=0,netdev=switch",
	}
}

// StartGateway plugs it in; it is unplugged by Kill, or with ctx.
func StartGateway(ctx context.Context, h Host, g Gateway) (*VM, error) {
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("gateway %s: %w", g.Name, err)
	}
	vm, err := launch(ctx, h, Machine{Name: g.Name, Dir: g.Dir}, g.arguments())
	if err != nil {
		return nil, err
	}
	select { // what it does not understand it says at once
	case <-vm.Exited():
		return nil, vm.Err()
	case <-time.After(gatewayTrial):
		return vm, nil
	}
}

// gatewayTrial is how long a gateway must last to count as plugged in.
const gatewayTrial = time.Second

// launch starts QEMU.
func launch(ctx context.Context, h Host, m Machine, args []string) (*VM, error) {
	stderr, err := os.Create(m.path("qemu.log"))
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	defer stderr.Close()
	cmd, err := h.Tools.QEMU(ctx, args...)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	cmd.Stdout, cmd.Stderr = stderr, stderr
	// A group of its own: Ctrl-C reaches us alone, and we end the machines. If
	// we are killed ourselves, the kernel ends them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	vm := &VM{Machine: m, cmd: cmd, exited: make(chan struct{})}
	go func() {
		// Pdeathsig is sent when the thread that forked ends, not the process:
		// so this goroutine keeps its thread until QEMU is gone.
		runtime.LockOSThread()
		// What a thread starts has its priority; this one ends with QEMU.
		tpm, err := m.startTPM(ctx, h)
		if err == nil {
			err = m.yield()
		}
		if err == nil {
			err = cmd.Start()
		}
		started <- err
		if err == nil {
			vm.err = cmd.Wait()
		}
		if tpm != nil { // it ends with QEMU's connection, or was never asked
			_ = tpm.Process.Kill()
			_ = tpm.Wait()
		}
		if err == nil {
			close(vm.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return vm, nil
}

// tpmSocket is where the machine's TPM is found by QEMU.
const tpmSocket = "tpm.sock"

// startTPM starts the machine's TPM, if it has one, and waits until it listens.
func (m Machine) startTPM(ctx context.Context, h Host) (*exec.Cmd, error) {
	if !m.TPM {
		return nil, nil
	}
	socket, state := m.path(tpmSocket), m.path("tpm")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	log, err := os.Create(m.path("swtpm.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.CommandContext(ctx, h.SWTPM, "socket", "--tpm2", "--tpmstate", "dir="+state, "--ctrl", "type=unixio,path="+socket)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("its TPM: %w", err)
	}
	for range 100 {
		if _, err = os.Stat(socket); err == nil {
			return cmd, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return nil, fmt.Errorf("its TPM does not listen (see %s): %w", log.Name(), err)
}

// yield lowers the calling thread's priority (setpriority(2)) if the machine Yields.
func (m Machine) yield() error {
	if !m.Yields {
		return nil
	}
	now, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	return syscall.Setpriority(syscall.PRIO_PROCESS, 0, min(20-now+2, 19)) // the system call gives 20 less it
}

// Exited is closed when QEMU has ended.
func (vm *VM) Exited() <-chan struct{} { return vm.exited }

// Err says why QEMU ended, with what it printed. Only after Exited.
func (vm *VM) Err() error {
	log, err := os.ReadFile(vm.path("qemu.log"))
	if err != nil {
		log = []byte(err.Error())
	}
	return fmt.Errorf("machine %s: QEMU ended: %w: %s", vm.Name, vm.err, strings.TrimSpace(string(log)))
}

// Kill cuts the power, and waits until QEMU is gone.
func (vm *VM) Kill() error {
	vm.once.Do(func() {
		if err := vm.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			fmt.Fprintf(os.Stderr, "machine %s: %v\n", vm.Name, err)
		}
	})
	select {
	case <-vm.exited:
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("machine %s: QEMU (process %d) does not end after SIGKILL", vm.Name, vm.cmd.Process.Pid)
	}
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
