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
}

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
	Path   string // raw image
	Serial string
	USB    bool // a USB stick instead of a virtio disk
	Boot   int  // place in the boot order, from 1; 0: not booted from
	// Safe keeps fsync: for tests that kill QEMU and look at the disk.
	Safe bool
}

// Machine is what a virtual machine is made of.
type Machine struct {
	Name   string
	Dir    string // sockets, logs, firmware variables; made if absent
	CPUs   int
	MiB    int
	UUID   string
	Serial string // SMBIOS serial number
	NICs   []NIC
	Disks  []Disk
}

// arguments is QEMU's command line, without the program.
func (m Machine) arguments(h Host) []string {
	accel, cpu := "tcg,thread=multi", "max"
	if h.KVM {
		accel, cpu = "kvm", "host"
	}
	args := []string{
		"-name", m.Name, "-machine", "q35", "-accel", accel, "-cpu", cpu,
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MiB),
		"-nodefaults", "-display", "none", "-no-user-config",
		"-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + h.Tools.OVMF("OVMF_CODE_4M.fd"),
		"-drive", "if=pflash,format=raw,unit=1,file=" + m.path("vars.fd"),
		"-chardev", "file,id=serial0,append=on,path=" + m.path("serial.log"), "-serial", "chardev:serial0",
		"-qmp", "unix:" + m.path("qmp.sock") + ",server=on,wait=off",
		"-device", "virtio-rng-pci", "-device", "qemu-xhci,id=xhci", "-device", "VGA",
	}
	if m.UUID != "" {
		args = append(args, "-uuid", m.UUID)
	}
	if m.Serial != "" {
		args = append(args, "-smbios", "type=1,manufacturer=Rackseed,product=Virtual rack,serial="+m.Serial)
	}
	for i, n := range m.NICs {
		id := "net" + strconv.Itoa(i)
		if n.Socket != "" {
			args = append(args, "-netdev", "stream,id="+id+",server=off,reconnect-ms=500,addr.type=unix,addr.path="+n.Socket)
		} else {
			user := "user,id=" + id + ",restrict=on"
			for host, guest := range n.Forwards {
				user += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-10.0.2.15:%d", host, guest)
			}
			args = append(args, "-netdev", user)
		}
		// No option ROM: the firmware's own network stack boots.
		args = append(args, "-device", "virtio-net-pci,romfile=,netdev="+id+",mac="+n.MAC)
	}
	for i, d := range m.Disks {
		id := "disk" + strconv.Itoa(i)
		cache := "unsafe"
		if d.Safe {
			cache = "writeback"
		}
		args = append(args, "-drive", "if=none,format=raw,discard=unmap,id="+id+",cache="+cache+",file="+d.Path)
		if d.USB {
			args = append(args, "-device", "usb-storage,bus=xhci.0,removable=on,drive="+id+",serial="+d.Serial+bootIndex(d.Boot))
		} else {
			args = append(args, "-device", "virtio-blk-pci,drive="+id+",serial="+d.Serial+bootIndex(d.Boot))
		}
	}
	return args
}

func bootIndex(n int) string {
	if n == 0 {
		return ""
	}
	return ",bootindex=" + strconv.Itoa(n)
}

func (m Machine) path(name string) string { return filepath.Join(m.Dir, name) }

// SerialLog is the file that everything on the first serial port goes to.
func (m Machine) SerialLog() string { return m.path("serial.log") }

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
	if _, err := os.Stat(m.path("vars.fd")); errors.Is(err, os.ErrNotExist) {
		if err := copyFile(m.path("vars.fd"), h.Tools.OVMF("OVMF_VARS_4M.fd")); err != nil {
			return nil, fmt.Errorf("machine %s: firmware variables: %w", m.Name, err)
		}
	}
	stderr, err := os.Create(m.path("qemu.log"))
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	defer stderr.Close()
	cmd, err := h.Tools.QEMU(ctx, m.arguments(h)...)
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
		err := cmd.Start()
		started <- err
		if err == nil {
			vm.err = cmd.Wait()
			close(vm.exited)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	return vm, nil
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
