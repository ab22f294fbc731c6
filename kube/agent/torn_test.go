package agent

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/pki"
	"k8s.io/client-go/tools/clientcmd"
)

// initialised are a node's files once kubeadm init has ended well, and those of
// Ignition.
func initialised(t *testing.T) map[string]string {
	t.Helper()
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	find := func(name string) ([]byte, bool) { b, ok := secrets[name]; return b, ok }
	files := map[string]string{
		kubernetes + "/pki/ca.crt":                         string(secrets["pki/ca.crt"]),
		kubernetes + "/pki/ca.key":                         string(secrets["pki/ca.key"]),
		kubernetes + "/pki/site.crt":                       "of the site",
		kubernetes + "/own.conf":                           "of the site",
		kubernetes + "/manifests/etcd.yaml":                "kind: Pod\n",
		"/var/lib/etcd/member/snap/db":                     "data",
		"/var/lib/kubelet/config.yaml":                     "kind: KubeletConfiguration\n",
		"/var/lib/kubelet/pki/kubelet-client-current.pem~": "no link to it",
	}
	config := func() []byte {
		b, err := pki.Admin(find, "lab", "https://10.77.0.1:6443", "ann", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pair := func() (cert, key string) {
		c, err := clientcmd.Load(config())
		if err != nil {
			t.Fatal(err)
		}
		user := c.AuthInfos[c.Contexts[c.CurrentContext].AuthInfo]
		return string(user.ClientCertificateData), string(user.ClientKeyData)
	}
	for _, name := range kubeadmConfigs {
		files[kubernetes+"/"+name] = string(config())
	}
	for _, name := range kubeadmPairs {
		files[kubernetes+"/pki/"+name+".crt"], files[kubernetes+"/pki/"+name+".key"] = pair()
	}
	files[kubeletPair+".crt"], files[kubeletPair+".key"] = pair()
	cert, key := pair()
	files["/var/lib/kubelet/pki/kubelet-client-1.pem"] = cert + key
	return files
}

// renewed is kubelet.conf as kubelet-finalize leaves it.
func renewed(t *testing.T, b string) string {
	t.Helper()
	c, err := clientcmd.Load([]byte(b))
	if err != nil {
		t.Fatal(err)
	}
	user := c.AuthInfos[c.Contexts[c.CurrentContext].AuthInfo]
	user.ClientCertificateData, user.ClientKeyData = nil, nil
	user.ClientCertificate, user.ClientKey = kubeletClient, kubeletClient
	out, err := clientcmd.Write(*c)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// lay writes files below a new root and links the kubelet's certificate.
func lay(t *testing.T, files map[string]string) host {
	t.Helper()
	h := host{t.TempDir()}
	for path, text := range files {
		if err := os.MkdirAll(filepath.Dir(h.path(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.path(path), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(h.path(kubeletClient)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("kubelet-client-1.pem", h.path(kubeletClient)); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRemoveTorn(t *testing.T) {
	t.Parallel()
	files := initialised(t)
	partner := func(file string) string {
		if base, found := strings.CutSuffix(file, ".crt"); found {
			return base + ".key"
		}
		return strings.TrimSuffix(file, ".key") + ".crt"
	}
	var pairs, configs []string
	for _, name := range kubeadmPairs {
		pairs = append(pairs, kubernetes+"/pki/"+name+".crt", kubernetes+"/pki/"+name+".key")
	}
	pairs = append(pairs, kubeletPair+".crt", kubeletPair+".key")
	for _, name := range kubeadmConfigs {
		configs = append(configs, kubernetes+"/"+name)
	}
	ways := map[string]func(string) string{
		"empty":  func(string) string { return "" },
		"zeroes": func(s string) string { return strings.Repeat("\x00", len(s)) },
		"half":   func(s string) string { return s[:len(s)/2] },
	}
	try := func(name string, files map[string]string, stops bool, want ...string) {
		h := lay(t, files)
		stopped := false
		removed, err := h.removeTorn(func() error { stopped = true; return nil })
		if err != nil {
			t.Errorf("%s: %v", name, err)
			return
		}
		for i := range want {
			want[i] = h.path(want[i])
		}
		slices.Sort(removed)
		slices.Sort(want)
		if !slices.Equal(removed, want) {
			t.Errorf("%s: removed %q, wanted %q", name, removed, want)
		}
		if stopped != stops {
			t.Errorf("%s: kubelet stopped: %v", name, stopped)
		}
		for path, text := range files {
			b, err := os.ReadFile(h.path(path))
			if gone := slices.Contains(want, h.path(path)); gone && !errors.Is(err, os.ErrNotExist) || !gone && (err != nil || string(b) != text) {
				t.Errorf("%s: %s: %v", name, path, err)
			}
		}
	}
	changed := func(file, text string) map[string]string {
		m := maps.Clone(files)
		m[file] = text
		return m
	}

	try("whole", files, false)
	try("renewed", changed(kubeletConf, renewed(t, files[kubeletConf])), false)
	for way, tear := range ways {
		for _, file := range pairs {
			try(file+" "+way, changed(file, tear(files[file])), strings.HasPrefix(file, kubeletPair), file, partner(file))
		}
		for _, file := range configs {
			try(file+" "+way, changed(file, tear(files[file])), false, file)
		}
		client := changed("/var/lib/kubelet/pki/kubelet-client-1.pem", tear(files["/var/lib/kubelet/pki/kubelet-client-1.pem"]))
		try("client "+way, client, true, kubeletClient)
		client[kubeletConf] = renewed(t, files[kubeletConf])
		try("client and configuration "+way, client, true, kubeletClient, kubeletConf)
	}
	for _, file := range pairs {
		m := maps.Clone(files)
		delete(m, file)
		try(file+" missing", m, strings.HasPrefix(file, kubeletPair), partner(file))
	}
	try("another's key", changed(kubernetes+"/pki/apiserver.key", files[kubernetes+"/pki/etcd/server.key"]), false,
		kubernetes+"/pki/apiserver.crt", kubernetes+"/pki/apiserver.key")
	// Whole YAML with contexts, without the user's key.
	admin := files[adminConf]
	try("cut in front of the key", changed(adminConf, admin[:strings.Index(admin, "client-key-data")]), false, adminConf)
	// What kubeadm writes again in any case, or never.
	for _, file := range []string{kubernetes + "/pki/ca.key", kubernetes + "/manifests/etcd.yaml", "/var/lib/kubelet/config.yaml", kubernetes + "/own.conf"} {
		try(file, changed(file, ""), false)
	}
}

func TestRemoveTornStopsTheKubelet(t *testing.T) {
	t.Parallel()
	files := initialised(t)
	key := files[kubeletPair+".key"]
	files[kubeletPair+".key"] = ""
	h := lay(t, files)
	stuck := errors.New("stuck")
	if removed, err := h.removeTorn(func() error { return stuck }); !errors.Is(err, stuck) || len(removed) != 0 {
		t.Errorf("%q, %v", removed, err)
	}
	// It was just writing it.
	removed, err := h.removeTorn(func() error { return os.WriteFile(h.path(kubeletPair+".key"), []byte(key), 0o600) })
	if err != nil || len(removed) != 0 {
		t.Errorf("a key that is there in the end: %q, %v", removed, err)
	}
}

func TestBegun(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]bool{
		kubernetes + "/pki/apiserver.crt":       false,
		kubernetes + "/manifests/etcd.yaml":     true,
		adminConf:                               true,
		kubeletConf:                             true,
		"/var/lib/kubelet/config.yaml":          true,
		"/var/lib/etcd/member/wal.tmp/0.wal":    true,
		"/var/lib/kubelet/kubeadm-flags.env":    false,
		kubernetes + "/controller-manager.conf": false,
	} {
		h := host{t.TempDir()}
		if err := os.MkdirAll(filepath.Dir(h.path(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(h.path(file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := h.facts(); err != nil || f.Begun != want {
			t.Errorf("%s alone: begun %v, %v", file, f.Begun, err)
		}
	}
}
