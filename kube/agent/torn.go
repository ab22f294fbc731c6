package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/tools/clientcmd"
)

// What a power loss can leave of kubeadm init (v1.37.2, cmd/kubeadm/app/phases),
// in the order in which it writes. No file is synced, so that any of them may
// be there and empty, and a later one whole.
//
//   - certs: of each pair the key, then the certificate. If one of the two is
//     there both must be sound, or init fails for good: removed here, both.
//     The authorities and sa.* are Ignition's, on the disk before the node's
//     first boot; kubeadm never writes them.
//   - kubeconfig: kept if there, refused if it cannot be read, and not looked
//     at for its user: removed here. kubelet-finalize writes kubelet.conf
//     again, in place.
//   - etcd, control-plane (manifests) and kubelet-start (kubeadm-flags.env,
//     instance-config.yaml, config.yaml): always written again. Only preflight
//     minds those that are there, and a resumed init leaves it out.
//   - /var/lib/etcd is etcd's, and sound by itself: its log is made in wal.tmp
//     and renamed, a wal.tmp that is found is begun again, and so is a database
//     without a byte.
//   - the kubelet, started by then, writes its client certificate, then the link
//     to it, and a self-signed pair for serving. It refuses to start with a
//     broken one, and makes missing ones: removed here.
//
// The rest of init writes through the API server.
var (
	kubeadmPairs = []string{
		"apiserver", "apiserver-kubelet-client", "front-proxy-client",
		"etcd/server", "etcd/peer", "etcd/healthcheck-client", "apiserver-etcd-client",
	}
	kubeadmConfigs = []string{"admin.conf", "super-admin.conf", "kubelet.conf", "controller-manager.conf", "scheduler.conf"}
)

const (
	kubeletPair   = "/var/lib/kubelet/pki/kubelet"
	kubeletClient = "/var/lib/kubelet/pki/kubelet-client-current.pem" // a link
)

// removeTorn removes the files above that are not whole, and returns them. What
// it may remove is made again by kubeadm or the kubelet. stopKubelet is called
// before something of the running kubelet's own is judged for good.
func (h host) removeTorn(stopKubelet func() error) (removed []string, err error) {
	torn, err := h.tornOfKubelet()
	if err == nil && len(torn) > 0 {
		// It may be writing them at this moment.
		if err := stopKubelet(); err != nil {
			return nil, fmt.Errorf("stopping the kubelet, whose %s is broken: %w", torn[0], err)
		}
		torn, err = h.tornOfKubelet()
	}
	if err != nil {
		return nil, err
	}
	for _, name := range kubeadmPairs {
		more, err := h.tornPair(kubernetes + "/pki/" + name)
		if err != nil {
			return nil, err
		}
		torn = append(torn, more...)
	}
	for _, file := range torn {
		if err := os.Remove(file); err != nil {
			return removed, err
		}
		removed = append(removed, file)
	}
	// After the kubelet's certificate, which kubelet.conf may name.
	for _, name := range kubeadmConfigs {
		file := kubernetes + "/" + name
		b, found, err := h.regular(file)
		if err != nil {
			return removed, err
		}
		if !found || h.wholeConfig(b) == nil {
			continue
		}
		if err := os.Remove(h.path(file)); err != nil {
			return removed, err
		}
		removed = append(removed, h.path(file))
	}
	return removed, nil
}

func (h host) tornOfKubelet() ([]string, error) {
	torn, err := h.tornPair(kubeletPair)
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(h.path(kubeletClient))
	switch {
	case errors.Is(err, fs.ErrNotExist): // or the link leads nowhere: the kubelet takes it as missing
		return torn, nil
	case err != nil:
		return nil, err
	}
	if _, err := tls.X509KeyPair(b, b); err != nil {
		torn = append(torn, h.path(kubeletClient))
	}
	return torn, nil
}

// tornPair returns the files of a certificate and its key, base.crt and
// base.key, unless they are sound and belong together, or neither is there.
func (h host) tornPair(base string) ([]string, error) {
	cert, hasCert, err := h.regular(base + ".crt")
	if err != nil {
		return nil, err
	}
	key, hasKey, err := h.regular(base + ".key")
	if err != nil {
		return nil, err
	}
	if hasCert && hasKey {
		if _, err := tls.X509KeyPair(cert, key); err == nil {
			return nil, nil
		}
	}
	var files []string
	if hasCert {
		files = append(files, h.path(base+".crt"))
	}
	if hasKey {
		files = append(files, h.path(base+".key"))
	}
	return files, nil
}

// regular reads a file. Links and folders in its place are somebody's own.
func (h host) regular(file string) (b []byte, found bool, err error) {
	info, err := os.Lstat(h.path(file))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular() {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	b, err = os.ReadFile(h.path(file))
	return b, err == nil, err
}

// wholeConfig says what a kubeconfig lacks to be used: cutting YAML anywhere
// leaves YAML, so each part is looked at.
func (h host) wholeConfig(b []byte) error {
	c, err := clientcmd.Load(b)
	if err != nil {
		return err
	}
	current := c.Contexts[c.CurrentContext]
	if current == nil {
		return errors.New("no current context")
	}
	cluster, user := c.Clusters[current.Cluster], c.AuthInfos[current.AuthInfo]
	if cluster == nil || user == nil {
		return errors.New("no cluster or user")
	}
	block, _ := pem.Decode(cluster.CertificateAuthorityData)
	if block == nil {
		return errors.New("no authority")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return err
	}
	cert, key := user.ClientCertificateData, user.ClientKeyData
	if user.ClientCertificate != "" { // the kubelet's, once it renews it by itself
		if cert, err = os.ReadFile(h.path(user.ClientCertificate)); err != nil {
			return err
		}
		if key, err = os.ReadFile(h.path(user.ClientKey)); err != nil {
			return err
		}
	}
	_, err = tls.X509KeyPair(cert, key)
	return err
}

// syncAll writes everything that kubeadm and the kubelet wrote to the disk.
func (h host) syncAll() error {
	for _, p := range []string{kubernetes, "/var/lib"} {
		d, err := os.Open(h.path(p))
		if err != nil {
			return err
		}
		if err := errors.Join(unix.Syncfs(int(d.Fd())), d.Close()); err != nil {
			return fmt.Errorf("%s: writing it to the disk: %w", p, err)
		}
	}
	return nil
}

// clearTorn makes way for kubeadm, and tells what it removed.
func (a *agent) clearTorn(ctx context.Context) error {
	removed, err := a.host.removeTorn(func() error {
		return a.commands.Run(ctx, a.output.Print, "systemctl", "stop", "kubelet.service")
	})
	for _, file := range removed {
		a.output.Print("rackseed: " + file + " was half written: it is made again")
	}
	if err != nil {
		return fmt.Errorf("looking for what an interrupted kubeadm left: %w", err)
	}
	return nil
}
