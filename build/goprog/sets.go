package goprog

import (
	"time"

	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/step"
)

// Nested are the programs from outside, each in a module of its own, since
// their dependencies must not meet. build is the unpacked Debian set with the C
// libraries of runc and Ignition.
func Nested(build *step.Step) []Set {
	const versionPkg = "k8s.io/component-base/version"
	return []Set{
		{
			Name: "go-kubernetes", Module: "build/modules/kubernetes",
			Packages: map[string]string{"kubernetes": "."},
			LDFlags: "-X " + versionPkg + ".gitVersion=" + pins.Kubernetes +
				" -X " + versionPkg + ".gitMajor=1 -X " + versionPkg + ".gitMinor=37" +
				" -X " + versionPkg + ".gitTreeState=clean" +
				" -X k8s.io/client-go/pkg/version.gitVersion=" + pins.Kubernetes,
		},
		{
			Name: "go-etcd", Module: "build/modules/etcd",
			Packages: map[string]string{"etcd": "."},
		},
		{
			Name: "go-containerd", Module: "build/modules/containerd",
			Packages: map[string]string{
				"containerd":              "github.com/containerd/containerd/v2/cmd/containerd",
				"containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
				"ctr":                     "github.com/containerd/containerd/v2/cmd/ctr",
			},
			Tags:    "no_btrfs,no_devmapper,no_zfs",
			LDFlags: "-X github.com/containerd/containerd/v2/version.Version=" + pins.Containerd,
		},
		{
			Name: "go-cni", Module: "build/modules/cni",
			Packages: map[string]string{
				"bridge":     "github.com/containernetworking/plugins/plugins/main/bridge",
				"loopback":   "github.com/containernetworking/plugins/plugins/main/loopback",
				"host-local": "github.com/containernetworking/plugins/plugins/ipam/host-local",
				"portmap":    "github.com/containernetworking/plugins/plugins/meta/portmap",
			},
		},
		{
			Name: "go-coredns", Module: "build/modules/coredns",
			Packages: map[string]string{"coredns": "github.com/coredns/coredns"},
		},
		{
			// What tests the registry, beside containerd.
			Name: "go-registry-clients", Module: "build/modules/registry-clients",
			Packages: map[string]string{
				"crane":       "github.com/google/go-containerregistry/cmd/crane",
				"conformance": "github.com/opencontainers/distribution-spec/conformance",
			},
		},
		{
			Name: "go-pause", Module: "build/modules/pause",
			Packages: map[string]string{"pause": "."},
		},
		{
			Name: "go-runc", Module: "build/modules/runc",
			Packages: map[string]string{"runc": "github.com/opencontainers/runc"},
			Tags:     "seccomp,urfave_cli_no_docs",
			LDFlags:  "-X main.version=" + pins.Runc[1:],
			C:        &CLibraries{Root: build, Headers: []string{"seccomp.h", "seccomp-syscalls.h"}, Libs: []string{"seccomp"}},
		},
		{
			// Without these flags Ignition relabels for SELinux, and writes SSH
			// keys where Debian's sshd does not look.
			Name: "go-ignition", Module: "build/modules/ignition",
			Packages: map[string]string{"ignition": "github.com/coreos/ignition/v2/internal"},
			LDFlags: "-X github.com/coreos/ignition/v2/internal/version.Raw=" + pins.Ignition[1:] +
				" -X github.com/coreos/ignition/v2/internal/distro.selinuxRelabel=false" +
				" -X github.com/coreos/ignition/v2/internal/distro.writeAuthorizedKeysFragment=false",
			C: &CLibraries{Root: build, Headers: []string{"blkid", "uuid"}, Libs: []string{"blkid", "uuid"}},
		},
	}
}

// buildDate is the date before which no PID 1 of ours believes a clock.
var buildDate = "-X github.com/rackseed/rackseed/images/pid1.BuildDate=" + pins.Epoch().Format(time.RFC3339)

// Main are the programs of this module.
var Main = []Set{
	{Name: "go-rackseed", Module: ".", Packages: map[string]string{"rackseed": "."}, LDFlags: buildDate},
	{Name: "go-installer", Module: ".", Packages: map[string]string{"installer": "./images/installer"}, LDFlags: buildDate},
	{Name: "go-nodeinit", Module: ".", Packages: map[string]string{"nodeinit": "./images/node/nodeinit"}, LDFlags: buildDate},
}
