package containerimages

import (
	"errors"
	"fmt"
	"sort"

	"github.com/rackseed/rackseed/build/initramfs"
	"github.com/rackseed/rackseed/build/pins"
	"github.com/rackseed/rackseed/build/tartree"
)

// programs are the files that the images are made of.
type programs struct {
	kubernetes, etcd, coredns, pause string
	debian                           string // the set "node", unpacked: nft and its libraries
}

// images are the node's container images. The four of Kubernetes share the
// layer with its one program; kube-proxy has nft and its libraries on top.
var images = []image{
	{names: []string{pins.ImageAPIServer, pins.ImageControllers, pins.ImageScheduler}, layers: []string{"kubernetes"}},
	{names: []string{pins.ImageProxy}, layers: []string{"kubernetes", "nft"}},
	{names: []string{pins.ImageEtcd}, layers: []string{"etcd"}},
	{names: []string{pins.ImageCoreDNS}, layers: []string{"coredns"}, entrypoint: []string{"/coredns"}},
	{names: []string{pins.ImagePause}, layers: []string{"pause"}, entrypoint: []string{"/pause"}},
}

// kubernetesLinks are the names by which its one program is started.
var kubernetesLinks = []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy"}

func (p programs) layers() (map[string]tartree.Tree, error) {
	layers := map[string]tartree.Tree{}
	var errs []error
	single := func(name, path, file string) {
		t := tartree.Tree{}
		errs = append(errs, t.File(path, 0o755, file), t.Dir("/etc", 0o755), t.Dir("/tmp", 0o1777))
		layers[name] = t
	}
	single("kubernetes", "/usr/local/bin/kubernetes", p.kubernetes)
	for _, link := range kubernetesLinks {
		errs = append(errs, layers["kubernetes"].Symlink("/usr/local/bin/"+link, "kubernetes"))
	}
	single("etcd", "/usr/local/bin/etcd", p.etcd)
	single("coredns", "/coredns", p.coredns)
	single("pause", "/pause", p.pause)
	nft, err := initramfs.Programs(p.debian, "usr/sbin/nft")
	if err != nil {
		return nil, fmt.Errorf("kube-proxy's nft: %w", err)
	}
	t := tartree.Tree{}
	paths := make([]string, 0, len(nft))
	for path := range nft {
		paths = append(paths, path)
	}
	sort.Strings(paths)
	for _, path := range paths {
		errs = append(errs, t.File(path, 0o755, nft[path]))
	}
	layers["nft"] = t
	return layers, errors.Join(errs...)
}
