package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/rackseed/rackseed/build/console"
	"github.com/rackseed/rackseed/build/containerimages"
	"github.com/rackseed/rackseed/build/debian"
	"github.com/rackseed/rackseed/build/goprog"
	"github.com/rackseed/rackseed/build/initramfs"
	"github.com/rackseed/rackseed/build/iso"
	"github.com/rackseed/rackseed/build/nodejs"
	"github.com/rackseed/rackseed/build/oci"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/rootfs"
	"github.com/rackseed/rackseed/build/step"
	"github.com/rackseed/rackseed/build/tartree"
	"github.com/rackseed/rackseed/build/tools"
)

// graph is everything that is built, from sources to the ISO. Making it runs
// nothing but hashing, and go list for our own programs; a step's Make is run
// only when its output is asked for and not in the cache.
type graph struct {
	ctx     context.Context
	repo    string
	archive *debian.Archive
	made    map[string]*step.Step
}

// Targets by their names on the command line.
func (g *graph) target(name string) (*step.Step, error) {
	if s, ok := g.made[name]; ok {
		return s, nil
	}
	var s *step.Step
	var err error
	switch name {
	case "tools", "boot", "build", "peers", "rescue", "node-packages", "nodejs-packages":
		s, err = g.archive.Unpacked(g.ctx, strings.TrimSuffix(name, "-packages"))
	case "clients":
		s, err = g.clients()
	case "nodejs":
		s, err = g.nodejs()
	case "console":
		s, err = g.console()
	case "kernel":
		s, err = g.kernel()
	case "appliance-initrd", "installer-initrd", "node-initrd":
		s, err = g.initrd(name)
	case "node-images":
		s, err = g.containerImages()
	case "node-root":
		s, err = g.nodeRoot()
	case "node-bios":
		s, err = g.nodeBIOS()
	case "service-image":
		s, err = g.serviceImage()
	case "oci":
		s, err = g.oci()
	case "iso-base":
		s, err = g.isoBase()
	default:
		s, err = g.program(name)
	}
	if err != nil {
		return nil, err
	}
	g.made[name] = s
	return s, nil
}

// targets makes several.
func (g *graph) targets(names ...string) ([]*step.Step, error) {
	var list []*step.Step
	for _, n := range names {
		s, err := g.target(n)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

// program finds the set of Go programs that is named, "go-" left out or not.
func (g *graph) program(name string) (*step.Step, error) {
	for _, set := range goprog.Main {
		if set.Name != name && set.Name != "go-"+name {
			continue
		}
		var packages []string
		for _, p := range set.Packages {
			packages = append(packages, p)
		}
		in, err := goprog.PackageInput(g.ctx, g.repo, packages...)
		if err != nil {
			return nil, err
		}
		return goprog.Step(g.repo, set, in), nil
	}
	libraries, err := g.target("build")
	if err != nil {
		return nil, err
	}
	for _, set := range goprog.Nested(libraries) {
		if set.Name != name && set.Name != "go-"+name {
			continue
		}
		in, err := goprog.ModuleInput(g.repo, set.Module)
		if err != nil {
			return nil, err
		}
		return goprog.Step(g.repo, set, in), nil
	}
	return nil, fmt.Errorf("there is no target %q", name)
}

func (g *graph) file(target, path string) (step.File, error) {
	s, err := g.target(target)
	return step.File{Step: s, Path: path}, err
}

// clients are the programs that tests call by name, by their sets: others'
// clients and servers, and what a bare host lacks.
var clients = []struct {
	set      string
	programs []string
}{
	{"peers", []string{
		"atftp", "atftpd", "busybox", "curl", "dhclient", "dnsmasq", "in.tftpd", "ip",
		"kea-dhcp4", "nft", "nginx", "perfdhcp", "swtpm", "tftp", "wrk",
	}},
	{"tools", []string{"mke2fs", "mkfs.fat", "sfdisk"}},
	{"node-packages", []string{"cryptsetup", "lvm", "mkswap", "wipefs"}},
}

// clients makes a folder bin that is put into PATH.
func (g *graph) clients() (*step.Step, error) {
	var sets []string
	for _, c := range clients {
		sets = append(sets, c.set)
	}
	deps, err := g.targets(sets...)
	if err != nil {
		return nil, err
	}
	return &step.Step{
		// The scripts hold absolute paths.
		Name: "clients", Inputs: []string{"2", fmt.Sprint(clients), g.archive.Cache}, Deps: deps, Refers: true,
		Make: func(_ context.Context, out string, dirs []string, _ io.Writer) error {
			bin := filepath.Join(out, "bin")
			if err := os.Mkdir(bin, 0o755); err != nil {
				return err
			}
			for i, c := range clients {
				if err := tools.Root(dirs[i]).WriteScripts(bin, c.programs...); err != nil {
					return err
				}
			}
			return nil
		},
	}, nil
}

func (g *graph) nodejs() (*step.Step, error) {
	packages, err := g.target("nodejs-packages")
	if err != nil {
		return nil, err
	}
	return nodejs.Step(packages, g.archive.Cache), nil
}

func (g *graph) console() (*step.Step, error) {
	node, err := g.target("nodejs")
	if err != nil {
		return nil, err
	}
	return console.Step(g.repo, node)
}

func (g *graph) kernel() (*step.Step, error) {
	deps, err := g.targets("boot", "tools")
	if err != nil {
		return nil, err
	}
	return rootfs.Kernel(deps[0], deps[1]), nil
}

// initrds: what each has beside the kernel's modules.
var initrds = map[string]struct {
	program string
	modules []string
	tools   []string // Debian programs of the set tools
	rescue  []string // and of the set rescue
	console bool
}{
	"appliance-initrd": {"rackseed", initramfs.Wide, fileSystemTools, nil, true},
	"installer-initrd": {"installer", initramfs.Wide, append([]string{"usr/sbin/e2fsck"}, fileSystemTools...), []string{"usr/bin/busybox"}, false},
	"node-initrd":      {"nodeinit", initramfs.Root, nil, nil, false},
}

var fileSystemTools = []string{"usr/sbin/mke2fs", "usr/sbin/mkfs.fat"}

func (g *graph) initrd(name string) (*step.Step, error) {
	want := initrds[name]
	deps, err := g.targets(want.program, "boot", "tools")
	if err != nil {
		return nil, err
	}
	if len(want.rescue) > 0 {
		r, err := g.target("rescue")
		if err != nil {
			return nil, err
		}
		deps = append(deps, r)
	}
	if want.console {
		c, err := g.target("console")
		if err != nil {
			return nil, err
		}
		deps = append(deps, c)
	}
	code, err := step.Files(g.repo, "build/initramfs", "images/pid1/kmod")
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name: name, Inputs: []string{code, strconv.Itoa(pins.SourceDateEpoch), fmt.Sprint(want)}, Deps: deps,
		Make: func(ctx context.Context, out string, dirs []string, _ io.Writer) error {
			s := initramfs.Spec{
				Init: filepath.Join(dirs[0], want.program), Kernel: dirs[1], Modules: want.modules,
				Programs: []initramfs.Debian{{Root: dirs[2], Paths: want.tools}}, Epoch: pins.SourceDateEpoch,
				Run: tools.Root(dirs[2]).Command, Files: map[string]string{},
			}
			if len(want.tools) > 0 {
				s.Files["etc/mke2fs.conf"] = filepath.Join(dirs[2], "etc/mke2fs.conf")
			}
			more := dirs[3:]
			if len(want.rescue) > 0 {
				s.Programs = append(s.Programs, initramfs.Debian{Root: more[0], Paths: want.rescue})
				more = more[1:]
			}
			if want.console {
				s.Files["usr/share/rackseed/console"] = more[0]
			}
			return initramfs.Write(ctx, filepath.Join(out, "initrd.img"), s)
		},
	}, nil
}

// files makes a list of files, each from a target.
func (g *graph) files(list map[string][2]string) (map[string]step.File, error) {
	m := map[string]step.File{}
	for name, f := range list {
		file, err := g.file(f[0], f[1])
		if err != nil {
			return nil, err
		}
		m[name] = file
	}
	return m, nil
}

func (g *graph) containerImages() (*step.Step, error) {
	f, err := g.files(map[string][2]string{
		"kubernetes": {"kubernetes", "kubernetes"}, "etcd": {"etcd", "etcd"}, "coredns": {"coredns", "coredns"},
		"pause": {"pause", "pause"}, "containerd": {"containerd", "containerd"}, "ctr": {"containerd", "ctr"},
	})
	if err != nil {
		return nil, err
	}
	node, err := g.target("node-packages")
	if err != nil {
		return nil, err
	}
	return containerimages.Step(containerimages.Programs{
		Kubernetes: f["kubernetes"], Etcd: f["etcd"], CoreDNS: f["coredns"], Pause: f["pause"],
		Containerd: f["containerd"], Ctr: f["ctr"], Debian: node,
	}), nil
}

// nodePrograms are our Go programs in the node's root, as docs/interfaces.md
// lists them.
var nodePrograms = map[string][2]string{
	"/usr/local/bin/rackseed":                {"rackseed", "rackseed"},
	"/usr/local/bin/kubernetes":              {"kubernetes", "kubernetes"},
	"/usr/local/bin/containerd":              {"containerd", "containerd"},
	"/usr/local/bin/containerd-shim-runc-v2": {"containerd", "containerd-shim-runc-v2"},
	"/usr/local/bin/ctr":                     {"containerd", "ctr"},
	"/usr/local/sbin/runc":                   {"runc", "runc"},
	"/usr/lib/rackseed/ignition":             {"ignition", "ignition"},
	"/opt/cni/bin/bridge":                    {"cni", "bridge"},
	"/opt/cni/bin/loopback":                  {"cni", "loopback"},
	"/opt/cni/bin/host-local":                {"cni", "host-local"},
	"/opt/cni/bin/portmap":                   {"cni", "portmap"},
}

func (g *graph) nodeRoot() (*step.Step, error) {
	programs, err := g.files(nodePrograms)
	if err != nil {
		return nil, err
	}
	deps, err := g.targets("tools", "kernel")
	if err != nil {
		return nil, err
	}
	store, err := g.file("node-images", containerimages.StoreFile)
	if err != nil {
		return nil, err
	}
	base, err := rootfs.Base(g.ctx, g.archive, deps[0])
	if err != nil {
		return nil, err
	}
	return rootfs.Image(rootfs.Spec{
		Base: base, Kernel: deps[1], Tools: deps[0], Store: store, Programs: programs,
		Files: filepath.Join(g.repo, "images/node/files"),
	})
}

const (
	shim = "usr/lib/shim/shimx64.efi.signed"
	mok  = "usr/lib/shim/mmx64.efi.signed"
	// The GRUB for removable media: its prefix is /boot/grub, on the ISO as
	// on a node's ESP.
	grub = "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"
	// The GRUB for netboot: it has http and tftp, and its prefix is /grub.
	grubNet = "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"
)

// nodeBIOS makes GRUB for nodes that BIOS boots: boot.img for the first sector
// and core.img for the BIOS boot partition.
func (g *graph) nodeBIOS() (*step.Step, error) {
	deps, err := g.targets("boot", "tools")
	if err != nil {
		return nil, err
	}
	code, err := step.Files(g.repo, "build/iso")
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name: "node-bios", Inputs: []string{code, strconv.Itoa(pins.SourceDateEpoch)}, Deps: deps,
		Make: func(ctx context.Context, out string, dirs []string, log io.Writer) error {
			return iso.NodeBIOS(ctx, out, iso.Spec{Boot: dirs[0], Epoch: pins.SourceDateEpoch, Run: command(dirs[1]), Log: log})
		},
	}, nil
}

// serviceImage makes the layer of the container image by which nodes run the boot
// service.
func (g *graph) serviceImage() (*step.Step, error) {
	deps, err := g.targets("rackseed", "console")
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name: "service-image", Inputs: []string{"1", strconv.Itoa(pins.SourceDateEpoch)}, Deps: deps,
		Make: func(ctx context.Context, out string, dirs []string, _ io.Writer) error {
			t := tartree.Tree{}
			err := errors.Join(
				t.File("/usr/local/bin/rackseed", 0o755, filepath.Join(dirs[0], "rackseed")),
				t.Folder("/usr/share/rackseed/console", dirs[1]),
				t.Dir("/tmp", 0o1777), t.Dir("/data", 0o700),
			)
			if err != nil {
				return err
			}
			return t.Write(ctx, filepath.Join(out, "layer.tar"), pins.Epoch())
		},
	}, nil
}

func (g *graph) oci() (*step.Step, error) {
	names := []string{"boot", "kernel", "installer-initrd", "node-initrd", "node-root", "node-bios", "service-image"}
	deps, err := g.targets(names...)
	if err != nil {
		return nil, err
	}
	code, err := step.Files(g.repo, "build/oci", "images/node/grub.cfg")
	if err != nil {
		return nil, err
	}
	return &step.Step{
		Name: "oci", Inputs: []string{code, shim, mok, grub, grubNet}, Deps: deps,
		Make: func(_ context.Context, out string, dirs []string, _ io.Writer) error {
			boot, kernel := dirs[0], filepath.Join(dirs[1], "vmlinuz")
			return oci.Write(out,
				oci.Artifact{Ref: "ipxe", Type: oci.TypeFirmware, Files: map[string]string{
					"snponly.efi":   filepath.Join(boot, "usr/lib/ipxe/snponly.efi"),
					"undionly.kpxe": filepath.Join(boot, "usr/lib/ipxe/undionly.kpxe"),
				}},
				oci.Artifact{Ref: "shim", Type: oci.TypeFirmware, Files: map[string]string{
					"shimx64.efi": filepath.Join(boot, shim), "grubx64.efi": filepath.Join(boot, grubNet), "mmx64.efi": filepath.Join(boot, mok),
				}},
				oci.Artifact{Ref: "installer", Type: oci.TypeBoot, Files: map[string]string{
					"vmlinuz": kernel, "initrd.img": filepath.Join(dirs[2], "initrd.img"),
				}},
				oci.Artifact{Ref: "node", Type: oci.TypeNode, Files: map[string]string{
					"root.erofs": filepath.Join(dirs[4], "root.erofs"), "vmlinuz": kernel,
					"initrd.img": filepath.Join(dirs[3], "initrd.img"), "grub.cfg": filepath.Join(g.repo, "images/node/grub.cfg"),
					"shimx64.efi": filepath.Join(boot, shim), "grubx64.efi": filepath.Join(boot, grub), "mmx64.efi": filepath.Join(boot, mok),
					"boot.img": filepath.Join(dirs[5], "boot.img"), "core.img": filepath.Join(dirs[5], "core.img"),
				}},
				oci.Image{Ref: "service", Layers: []string{filepath.Join(dirs[6], "layer.tar")}, Entrypoint: []string{"/usr/local/bin/rackseed"}, Created: pins.Epoch()},
			)
		},
	}, nil
}

func (g *graph) isoBase() (*step.Step, error) {
	deps, err := g.targets("kernel", "appliance-initrd", "oci", "boot", "tools")
	if err != nil {
		return nil, err
	}
	code, err := step.Files(g.repo, "build/iso", "images/pid1/gpt")
	if err != nil {
		return nil, err
	}
	s := &step.Step{Name: "iso-base", Inputs: []string{code, strconv.Itoa(pins.SourceDateEpoch)}, Deps: deps}
	build := s.Key()
	s.Make = func(ctx context.Context, out string, dirs []string, log io.Writer) error {
		return iso.Base(ctx, out, iso.Spec{
			Kernel: filepath.Join(dirs[0], "vmlinuz"), Initrd: filepath.Join(dirs[1], "initrd.img"),
			OCI: dirs[2], Boot: dirs[3], Build: build, Epoch: pins.SourceDateEpoch,
			Run: command(dirs[4]), Log: log,
		})
	}
	return s, nil
}

func command(root string) iso.Command {
	return func(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
		return tools.Root(root).Command(ctx, name, args...)
	}
}
