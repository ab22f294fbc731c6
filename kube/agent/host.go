package agent

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/kube/config"
	"k8s.io/client-go/tools/clientcmd"
)

// Files of the node, below host.root.
const (
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	cmdlineFile  = "/proc/cmdline"
	progressFile = "/run/rackseed/agent.json"
	doneFile     = "/var/lib/rackseed/kubeadm.json"
	networkState = "/run/systemd/netif/state"
	kubernetes   = "/etc/kubernetes"
	adminConf    = kubernetes + "/admin.conf"
	kubeletConf  = kubernetes + "/kubelet.conf"
)

// host is the node's file system; root is "/" but in tests.
type host struct{ root string }

func (h host) path(p string) string { return filepath.Join(h.root, p) }

// word reads a file of one line.
func (h host) word(p string) (string, error) {
	b, err := os.ReadFile(h.path(p))
	return strings.TrimSpace(string(b)), err
}

func (h host) exists(p string) bool {
	_, err := os.Stat(h.path(p))
	return err == nil
}

// doneMark is written when kubeadm has ended well, and again when the boot
// service knows.
type doneMark struct {
	Reported bool `json:"reported"`
}

func (h host) facts() (facts, error) {
	f := facts{Config: h.exists(config.KubeadmPath)}
	b, err := os.ReadFile(h.path(doneFile))
	switch {
	case err == nil:
		var mark doneMark
		if err := json.Unmarshal(b, &mark); err != nil {
			return f, fmt.Errorf("%s: %w: it says whether kubeadm ended well; write {} into it if it did, remove it if not", doneFile, err)
		}
		f.Done, f.Reported = true, mark.Reported
	case !errors.Is(err, fs.ErrNotExist):
		return f, err
	}
	for _, p := range []string{
		kubernetes + "/manifests/kube-apiserver.yaml", adminConf, kubeletConf,
		"/var/lib/kubelet/config.yaml", "/var/lib/etcd/member",
	} {
		f.Begun = f.Begun || h.exists(p)
	}
	return f, nil
}

func (h host) markDone(mark doneMark) error {
	b, err := json.Marshal(mark)
	if err != nil {
		return err
	}
	return writeFile(h.path(doneFile), b, 0o644)
}

// removeTorn removes what a power loss left half written of kubeadm's own
// certificates and kubeconfigs: kubeadm makes missing ones and refuses broken
// ones. The cluster's authorities are Ignition's and stay.
func (h host) removeTorn() (removed []string, err error) {
	files, err := filepath.Glob(h.path(kubernetes + "/*.conf"))
	if err != nil {
		return nil, err
	}
	for _, pattern := range []string{"/pki/*", "/pki/etcd/*"} {
		more, err := filepath.Glob(h.path(kubernetes + pattern))
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	for _, file := range files {
		info, err := os.Lstat(file)
		if err != nil {
			return removed, err
		}
		if !info.Mode().IsRegular() || authority(file) {
			continue
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return removed, err
		}
		if whole(file, b) {
			continue
		}
		if err := os.Remove(file); err != nil {
			return removed, err
		}
		removed = append(removed, file)
	}
	return removed, nil
}

func authority(file string) bool {
	switch filepath.Base(file) {
	case "ca.crt", "ca.key", "front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub":
		return true
	}
	return false
}

func whole(file string, b []byte) bool {
	if filepath.Ext(file) == ".conf" {
		c, err := clientcmd.Load(b)
		return err == nil && c.Contexts[c.CurrentContext] != nil
	}
	block, rest := pem.Decode(b)
	return block != nil && len(bytes.TrimSpace(rest)) == 0
}

// writeFile replaces a file so that a power loss leaves the old one or the new
// one. A file has one writer.
func writeFile(file string, b []byte, mode fs.FileMode) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// Readers of a folder (the CNI library) go by the suffix.
	temporary := filepath.Join(dir, "."+filepath.Base(file)+".tmp")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary, file); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
