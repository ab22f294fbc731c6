package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/durable"
)

// Files of the node, below host.root.
const (
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	cmdlineFile  = "/proc/cmdline"
	progressFile = "/run/rackseed/agent.json"
	doneFile     = "/var/lib/rackseed/kubeadm.json"
	joinFile     = "/run/rackseed/kubeadm-join.yaml" // holds a token while kubeadm joins by it
	serversFile  = "/var/lib/rackseed/api-servers.json"
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
	f := facts{Config: h.exists(config.KubeadmPath), JoinConfig: h.exists(config.JoinPath)}
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
	f.Begun, err = h.begun()
	return f, err
}

// begun says whether there is anything that kubeadm's preflight checks mind, or
// that makes a kubelet run, whose ports they mind.
func (h host) begun() (bool, error) {
	for _, pattern := range []string{
		kubernetes + "/manifests/*.yaml", adminConf, kubeletConf, kubeletConfig, etcdData + "/*",
	} {
		found, err := filepath.Glob(h.path(pattern))
		if err != nil || len(found) > 0 {
			return true, err
		}
	}
	return false, nil
}

// markDone must not be called before kubeadm's files are on the disk: a node
// with the mark never runs it again.
func (h host) markDone(mark doneMark) error {
	b, err := json.Marshal(mark)
	if err != nil {
		return err
	}
	return writeFile(h.path(doneFile), b, 0o644)
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
	return durable.SyncFolder(dir)
}
