// Package pins holds every version that comes from outside, in one place.
//
// The other two places are lock files: build/locks/debian.lock names each
// Debian package with its SHA-256, console/web/package-lock.json each npm
// package. Go modules are pinned by go.mod and go.sum, here and in
// build/modules/*: what is said below about a module must agree with them, and
// a test holds it.
package pins

import "time"

// Go is the toolchain that every program is built with. A newer or older go
// command fetches it as a module (GOTOOLCHAIN, https://go.dev/doc/toolchain).
const Go = "go1.26.8"

// SourceDateEpoch is the one date that stands in everything that is built
// (https://reproducible-builds.org/specs/source-date-epoch): 2026-11-24. It is
// also the date before which no clock of ours is believed.
const SourceDateEpoch = 1795478400

// Epoch is SourceDateEpoch as a time.
func Epoch() time.Time { return time.Unix(SourceDateEpoch, 0).UTC() }

// Versions of what is built from its Go module.
const (
	Kubernetes = "v1.37.2"
	Etcd       = "v3.7.3"
	Containerd = "v2.4.2"
	Runc       = "v1.4.0"
	CNI        = "v1.9.1"
	CoreDNS    = "v1.15.0"
	Ignition   = "v2.27.0"
)

// Names of the container images in the node image, as kubeadm 1.37.2 asks for
// them below our own registry name. The tags of etcd and CoreDNS are kubeadm's
// wish, the programs inside are the versions above.
const (
	ImageRegistry     = "rackseed.local"
	ImageAPIServer    = ImageRegistry + "/kube-apiserver:" + Kubernetes
	ImageControllers  = ImageRegistry + "/kube-controller-manager:" + Kubernetes
	ImageScheduler    = ImageRegistry + "/kube-scheduler:" + Kubernetes
	ImageProxy        = ImageRegistry + "/kube-proxy:" + Kubernetes
	ImageEtcd         = ImageRegistry + "/etcd:3.7.0-0"
	ImageCoreDNS      = ImageRegistry + "/coredns:v1.14.6"
	ImagePause        = ImageRegistry + "/pause:3.10.2"
	ContainerdStore   = "/var/lib/containerd"
	ContainerdImageNS = "k8s.io"
)

// DebianSuite is what appliance and nodes run.
const DebianSuite = "trixie"
