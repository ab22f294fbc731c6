package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// keyring holds the keys of Debian's archive. Debian 12's has Debian 13's.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// network are the host's apt settings that are taken over: how to reach a
// mirror, and nothing about what to install or to run afterwards.
var network = regexp.MustCompile(`^Acquire::(http|https|tor|socks5h|Retries|ForceIPv4|ForceIPv6|Proxy)\b`)

// apt is a private apt root. It sees the host's mirrors, proxies and passwords,
// and none of the host's packages.
type apt struct {
	dir string
	log io.Writer
}

// openApt makes the root in dir, and locks it against other processes until
// close is called.
func openApt(ctx context.Context, dir string, log io.Writer) (a *apt, done func(), err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("private apt root %s: %w", dir, err)
		}
	}()
	for _, d := range []string{"etc/parts", "etc/trusted.gpg.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, nil, err
		}
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, lock.Close())
		}
	}()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, nil, fmt.Errorf("lock: %w", err)
	}
	if _, err := os.Stat(keyring); err != nil {
		return nil, nil, fmt.Errorf("the archive's keys: %w; install the package debian-archive-keyring", err)
	}
	m, err := findMirrors(os.Getenv, "/etc/apt")
	if err != nil {
		return nil, nil, err
	}
	host, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil, nil, fmt.Errorf("the host's apt settings: apt-config dump: %w", err)
	}
	for name, text := range map[string]string{
		"etc/sources.list": sourcesList(m),
		"apt.conf":         config(dir, networkSettings(string(host))),
		"state/status":     "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, nil, err
		}
	}
	return &apt{dir: dir, log: log}, func() { lock.Close() }, nil
}

func sourcesList(m mirrors) string {
	var b strings.Builder
	for _, s := range [][2]string{{m.main, "trixie"}, {m.main, "trixie-updates"}, {m.security, "trixie-security"}} {
		fmt.Fprintf(&b, "deb [signed-by=%s] %s %s main\n", keyring, s[0], s[1])
	}
	return b.String()
}

// networkSettings picks the lines of "apt-config dump" that network allows.
func networkSettings(dump string) string {
	var b strings.Builder
	for line := range strings.Lines(dump) {
		if network.MatchString(line) {
			b.WriteString(line)
		}
	}
	return b.String()
}

// config is the private root's apt.conf (apt.conf(5)).
func config(dir, more string) string {
	return fmt.Sprintf(`Dir "%[1]s";
Dir::Etc "%[1]s/etc";
Dir::Etc::parts "%[1]s/etc/parts";
Dir::Etc::sourcelist "%[1]s/etc/sources.list";
Dir::Etc::sourceparts "-";
Dir::Etc::netrc "/etc/apt/auth.conf";
Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/state/status";
Dir::Cache "%[1]s/cache";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Install-Suggests "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::GzipIndexes "false";
Acquire::ForceHash "SHA256";
`, dir) + more
}

// run runs an apt program and returns what it printed on its standard output.
func (a *apt) run(ctx context.Context, workDir string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = workDir
	cmd.Env = append(proxies(os.Environ()), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&errs, a.log)
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w%s", args[0], args[1], err, indent(errs.String(), 8))
	}
	return out.Bytes(), nil
}

// proxies adds a proxy's variables in small letters, as apt reads them, where
// they are set in capitals alone, as Go and npm also read them.
func proxies(environ []string) []string {
	set := map[string]string{}
	for _, kv := range environ {
		if name, value, ok := strings.Cut(kv, "="); ok && value != "" {
			set[name] = value
		}
	}
	env := slices.Clone(environ)
	for _, small := range []string{"http_proxy", "https_proxy", "no_proxy"} {
		if value := set[strings.ToUpper(small)]; value != "" && set[small] == "" {
			env = append(env, small+"="+value)
		}
	}
	return env
}

// indent is the last lines of a program's complaint.
func indent(text string, last int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) > last {
		lines = lines[len(lines)-last:]
	}
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	return "\n    " + strings.Join(lines, "\n    ")
}

// update gets the suites' indexes.
func (a *apt) update(ctx context.Context) error {
	_, err := a.run(ctx, a.dir, "apt-get", "update", "-q", "--error-on=any")
	return err
}
