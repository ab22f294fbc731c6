package debian

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

// Variables that name a mirror, before the host's own apt configuration.
const (
	MirrorVariable         = "RACKSEED_DEBIAN_MIRROR"          // as http://HOST/debian
	SecurityMirrorVariable = "RACKSEED_DEBIAN_SECURITY_MIRROR" // without it made from the other
)

// mirrors are the URIs that packages come from.
type mirrors struct{ main, security string }

// A mirror's URI ends in /debian; Debian's cloud images name a list file
// instead, /etc/apt/mirrors/debian.list.
var (
	mainURI     = regexp.MustCompile(`/debian(\.list)?/?$`)
	securityURI = regexp.MustCompile(`/debian-security(\.list)?/?$`)
	debOptions  = regexp.MustCompile(`^deb\s+(\[[^]]*\]\s*)?(\S+)`)
)

// findMirrors takes the mirrors from the variables, else from the apt
// configuration below etc (/etc/apt).
func findMirrors(getenv func(string) string, etc string) (mirrors, error) {
	m := mirrors{main: strings.TrimRight(getenv(MirrorVariable), "/"), security: strings.TrimRight(getenv(SecurityMirrorVariable), "/")}
	if m.main == "" {
		uris, err := hostURIs(etc)
		if err != nil {
			return mirrors{}, err
		}
		m.main = firstMatch(uris, mainURI)
		if m.security == "" {
			m.security = firstMatch(uris, securityURI)
		}
	}
	if m.main == "" {
		return mirrors{}, fmt.Errorf("no Debian mirror: none in %s whose address ends in /debian; name one with %s=http://HOST/debian", etc, MirrorVariable)
	}
	if m.security == "" {
		if !mainURI.MatchString(m.main) {
			return mirrors{}, fmt.Errorf("no mirror of Debian's security suite: it cannot be guessed from %s; name it with %s", m.main, SecurityMirrorVariable)
		}
		m.security = mainURI.ReplaceAllString(m.main, "/debian-security$1")
	}
	return m, nil
}

func firstMatch(uris []string, re *regexp.Regexp) string {
	for _, u := range uris {
		if re.MatchString(u) {
			return strings.TrimRight(u, "/")
		}
	}
	return ""
}

// hostURIs are the binary package sources of an apt configuration, in order.
func hostURIs(etc string) ([]string, error) {
	var uris []string
	files := []string{filepath.Join(etc, "sources.list")}
	for _, ext := range []string{"list", "sources"} {
		more, err := filepath.Glob(filepath.Join(etc, "sources.list.d", "*."+ext))
		if err != nil {
			return nil, fmt.Errorf("apt sources in %s: %w", etc, err)
		}
		sort.Strings(more)
		files = append(files, more...)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("apt sources: %w", err)
		}
		if strings.HasSuffix(f, ".sources") {
			uris = append(uris, deb822URIs(string(b))...)
		} else {
			uris = append(uris, oneLineURIs(string(b))...)
		}
	}
	return uris, nil
}

// oneLineURIs reads the older format: deb [options] URI suite components.
func oneLineURIs(text string) []string {
	var uris []string
	for line := range strings.Lines(text) {
		if m := debOptions.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			uris = append(uris, m[2])
		}
	}
	return uris
}

// deb822URIs reads the newer format (sources.list(5)): stanzas of fields.
func deb822URIs(text string) []string {
	var uris []string
	fields := map[string]string{}
	flush := func() {
		enabled := strings.ToLower(strings.TrimSpace(fields["enabled"]))
		if strings.Contains(" "+fields["types"]+" ", " deb ") && enabled != "no" && enabled != "false" {
			uris = append(uris, strings.Fields(fields["uris"])...)
		}
		fields = map[string]string{}
	}
	last := ""
	scan := bufio.NewScanner(strings.NewReader(text))
	for scan.Scan() {
		line := scan.Text()
		switch {
		case strings.TrimSpace(line) == "":
			flush()
		case strings.HasPrefix(line, "#"):
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += " " + strings.TrimSpace(line)
		default:
			name, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(name))
			fields[last] = strings.TrimSpace(value)
		}
	}
	flush()
	return uris
}

// Mirror is the one of this machine's packages.
func Mirror() (string, error) {
	m, err := findMirrors(os.Getenv, "/etc/apt")
	return m.main, err
}
