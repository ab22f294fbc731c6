package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatIsThere(t *testing.T) {
	if mib, err := AvailableMiB(); err != nil || mib < 1 {
		t.Errorf("memory: %d MiB, %v", mib, err)
	}
	if mib, err := FreeMiB(t.TempDir()); err != nil || mib < 1 {
		t.Errorf("disk: %d MiB, %v", mib, err)
	}
	if _, err := FreeMiB("/nowhere"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
}

func TestWritable(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a/b")
	if err := Writable(dir); err != nil {
		t.Error(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Writable(file); err == nil {
		t.Error("a file was taken for a folder")
	}
	if os.Geteuid() == 0 {
		return // may write everywhere
	}
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := Writable(dir); err == nil || !strings.Contains(err.Error(), "sudo chown -R") {
		t.Errorf("a folder that may not be written: %v", err)
	}
}

func TestNamespacesWay(t *testing.T) {
	for _, c := range []struct {
		name     string
		settings map[string]string
		want     string
	}{
		{"nothing is off", map[string]string{"kernel/unprivileged_userns_clone": "1\n", "user/max_user_namespaces": "96364\n"}, "docker run --privileged"},
		{"Debian's switch", map[string]string{"kernel/unprivileged_userns_clone": "0\n"}, "sudo sysctl -w kernel.unprivileged_userns_clone=1;"},
		{"AppArmor and the limit", map[string]string{"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "0"},
			"sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 user.max_user_namespaces=10000;"},
	} {
		got := namespacesWay(func(path string) ([]byte, error) {
			if value, ok := c.settings[strings.TrimPrefix(path, "/proc/sys/")]; ok {
				return []byte(value), nil
			}
			return nil, fs.ErrNotExist
		})
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q in it", c.name, got, c.want)
		}
	}
}

func TestKVMWay(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&fs.PathError{Err: fs.ErrNotExist}, "no /dev/kvm"},
		{&fs.PathError{Err: fs.ErrPermission}, "usermod -aG kvm"},
		{errors.New("busy"), "busy"},
	} {
		if err := kvmWay(c.err); !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "emulated") {
			t.Errorf("%v: %v, want %q in it", c.err, err, c.want)
		}
	}
}

func TestProxies(t *testing.T) {
	const apt = "Acquire::http::Pipeline-Depth \"0\";\nAcquire::http::Proxy \"http://joe:secret@apt:3142/\";\n"
	for _, c := range []struct {
		name       string
		environ    []string
		npmrc, apt string
		want, fail string
	}{
		{"none", []string{"HOME=/", "HTTPS_PROXY="}, "fund=false\nproxy=null\n", "", "none is set", ""},
		{"for all", []string{"HTTPS_PROXY=http://p:1", "http_proxy=http://p:2"}, "", "",
			"Go modules by http://p:1 (HTTPS_PROXY); npm by http://p:1 (HTTPS_PROXY); Debian packages by http://p:2 (http_proxy)", ""},
		{"its own each", []string{"https_proxy=http://joe:secret@p:1"}, "proxy = \"http://n:3\"\n", apt,
			"Go modules by http://p:1 (https_proxy); npm by http://n:3 (~/.npmrc); Debian packages by http://apt:3142 (apt's configuration)", ""},
		{"apt alone", nil, "", apt, "", "export HTTPS_PROXY=http://apt:3142 HTTP_PROXY=http://apt:3142"},
		{"apt not", []string{"HTTPS_PROXY=http://p:1"}, "", "", "", "If Debian packages do not come: export HTTP_PROXY=http://p:1"},
		{"apt directly", []string{"HTTPS_PROXY=http://p:1", "HTTP_PROXY=http://p:1"}, "", "Acquire::http::Proxy \"DIRECT\";\n", "", "Debian packages by none"},
	} {
		got, err := Proxies(c.environ, c.npmrc, c.apt)
		switch {
		case strings.Contains(got, "secret") || err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: a password is told: %s %v", c.name, got, err)
		case c.fail != "" && (err == nil || !strings.Contains(err.Error(), c.fail)):
			t.Errorf("%s: %q, %v; want %q in the error", c.name, got, err, c.fail)
		case c.fail == "" && (err != nil || !strings.Contains(got, c.want)):
			t.Errorf("%s: %q, %v; want %q", c.name, got, err, c.want)
		}
	}
}
