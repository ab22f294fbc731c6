// Package host finds out what the machine that builds has: memory, room on its
// disks, user namespaces, KVM and proxies. What is not enough is told together
// with the way out.
package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// AvailableMiB is the memory that programs can still get without swapping.
func AvailableMiB() (int, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("free memory: %w", err)
	}
	defer f.Close()
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if rest, ok := strings.CutPrefix(scan.Text(), "MemAvailable:"); ok {
			var kib int
			if _, err := fmt.Sscan(rest, &kib); err != nil {
				return 0, fmt.Errorf("free memory: %w", err)
			}
			return kib / 1024, nil
		}
	}
	return 0, errors.New("free memory: /proc/meminfo does not say MemAvailable")
}

// FreeMiB is the room on the file system of a folder, which is there.
func FreeMiB(dir string) (int, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("free room in %s: %w", dir, err)
	}
	return int(s.Bavail * uint64(s.Bsize) >> 20), nil
}

// Writable makes a folder unless it is there, and says so if it is another's:
// "sudo make" leaves such ones behind.
func Writable(dir string) error {
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = unix.Access(dir, unix.W_OK)
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%s may not be written (was make run as root before?): give it back with: sudo chown -R \"$USER\": %s", dir, dir)
	}
	if err != nil {
		return fmt.Errorf("%s may not be written: %w", dir, err)
	}
	return nil
}

// Namespaces tries whether an ordinary user may be root in a namespace of
// their own, and mount there.
func Namespaces(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "unshare", "--user", "--map-root-user", "--mount", "true").CombinedOutput()
	if err == nil {
		return nil
	}
	return fmt.Errorf("user namespaces may not be made here (%s): %s", strings.TrimSpace(string(out)), namespacesWay(os.ReadFile))
}

// switches are settings that forbid them, and the value that does.
var switches = []struct{ setting, off, on string }{
	{"kernel.unprivileged_userns_clone", "0", "1"},
	{"kernel.apparmor_restrict_unprivileged_userns", "1", "0"},
	{"user.max_user_namespaces", "0", "10000"},
}

func namespacesWay(readFile func(string) ([]byte, error)) string {
	var settings string
	for _, s := range switches {
		value, err := readFile("/proc/sys/" + strings.ReplaceAll(s.setting, ".", "/"))
		if err == nil && strings.TrimSpace(string(value)) == s.off {
			settings += " " + s.setting + "=" + s.on
		}
	}
	if settings == "" {
		return "a container must be allowed to (docker run --privileged); or go on as root"
	}
	return "allow them with: sudo sysctl -w" + settings + "; or go on as root"
}

// KVM says whether /dev/kvm opens; whether it works is seen when a virtual
// machine starts.
func KVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return kvmWay(err)
	}
	return f.Close()
}

func kvmWay(err error) error {
	const slow = "virtual machines are emulated, which is several times slower"
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("there is no /dev/kvm (in a virtual machine: nested virtualisation is off): " + slow)
	case errors.Is(err, fs.ErrPermission):
		return errors.New("/dev/kvm may not be opened: sudo usermod -aG kvm \"$USER\", then log in again; until then " + slow)
	}
	return fmt.Errorf("/dev/kvm: %w: %s", err, slow)
}

// Proxies says by which proxies Go, npm and apt go, and where that is set. It
// is an error if one that the others have is missing to some. environ is the
// environment, npmrc what is in ~/.npmrc, apt what "apt-config dump" prints.
func Proxies(environ []string, npmrc, apt string) (string, error) {
	variable := firstOf(environ, "https_proxy", "HTTPS_PROXY")
	npm := variable
	if p := setting(npmrc, "https-proxy", "proxy"); p != "" {
		npm = proxy{p, "~/.npmrc"}
	}
	debian := firstOf(environ, "http_proxy", "HTTP_PROXY")
	for line := range strings.Lines(apt) {
		if value, ok := strings.CutPrefix(line, "Acquire::http::Proxy "); ok {
			debian = proxy{strings.Trim(strings.TrimSpace(value), `";`), "apt's configuration"}
		}
	}
	if debian.url == "DIRECT" {
		debian = proxy{}
	}
	all := fmt.Sprintf("Go modules by %s; npm by %s; Debian packages by %s", variable, npm, debian)
	some := proxy{}
	for _, p := range []proxy{variable, npm, debian} {
		if p.url != "" {
			some = p
		}
	}
	switch {
	case some.url == "":
		return "none is set: everything is fetched directly", nil
	case variable.url == "" || npm.url == "":
		return "", fmt.Errorf("%s. If Go modules or npm packages do not come: export HTTPS_PROXY=%s HTTP_PROXY=%s", all, some.bare(), some.bare())
	case debian.url == "":
		return "", fmt.Errorf("%s. If Debian packages do not come: export HTTP_PROXY=%s", all, some.bare())
	}
	return all, nil
}

type proxy struct{ url, where string }

func (p proxy) String() string {
	if p.url == "" {
		return "none"
	}
	return p.bare() + " (" + p.where + ")"
}

// bare is the URL without user and password.
func (p proxy) bare() string {
	u, err := url.Parse(p.url)
	if err != nil || u.Host == "" {
		return "what " + p.where + " says"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String()
}

func firstOf(environ []string, names ...string) proxy {
	for _, n := range names {
		for _, kv := range environ {
			if value, ok := strings.CutPrefix(kv, n+"="); ok && value != "" {
				return proxy{value, n}
			}
		}
	}
	return proxy{}
}

// setting is a value of an npmrc: lines NAME=VALUE.
func setting(text string, names ...string) string {
	for _, n := range names {
		for line := range strings.Lines(text) {
			name, value, ok := strings.Cut(line, "=")
			if value = strings.Trim(strings.TrimSpace(value), `"`); ok && strings.TrimSpace(name) == n && value != "null" {
				return value
			}
		}
	}
	return ""
}

// HomeFile is a file of the user's own, empty if it is not there.
func HomeFile(name string) string {
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	b, err := os.ReadFile(filepath.Join(home, name))
	if err != nil {
		return ""
	}
	return string(b)
}
