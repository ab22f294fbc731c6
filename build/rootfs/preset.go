package rootfs

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sort"
	"strings"

	"github.com/rackseed/rackseed/build/tartree"
)

// presetRule is one line of a preset file (systemd.preset(5)).
type presetRule struct {
	enable    bool
	pattern   string
	instances []string
}

const (
	unitDir   = "usr/lib/systemd/system"
	adminDir  = "etc/systemd/system"
	presetExt = ".preset"
)

// applyPresets makes the links that "systemctl preset-all" makes: for each unit
// the first rule that names it says whether it starts. It does so without
// running anything of the tree, which may be another machine's.
func applyPresets(t tartree.Tree) error {
	rules, err := presets(t)
	if err != nil {
		return err
	}
	units := map[string]string{} // name → path; those in /etc win
	for _, dir := range []string{unitDir, adminDir} {
		for p, e := range t {
			if path.Dir(p) == dir && e.Type == tar.TypeReg && isUnit(p) {
				units[path.Base(p)] = p
			}
		}
	}
	for _, name := range sortedKeys(units) {
		instances, enabled := decide(rules, name)
		if !enabled || masked(t, name) {
			continue
		}
		if err := enable(t, units, name, instances, map[string]bool{}); err != nil {
			return fmt.Errorf("enabling %s: %w", name, err)
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func isUnit(p string) bool {
	return slices.Contains([]string{".service", ".socket", ".timer", ".target", ".path", ".mount", ".automount", ".swap", ".slice"}, path.Ext(p))
}

func masked(t tartree.Tree, name string) bool {
	e, ok := t[adminDir+"/"+name]
	return ok && e.Type == tar.TypeSymlink && e.Link == "/dev/null"
}

// presets reads all preset files in systemd's order: by name, /etc before /usr
// where both have one.
func presets(t tartree.Tree) ([]presetRule, error) {
	files := map[string]string{}
	for _, dir := range []string{"usr/lib/systemd/system-preset", "etc/systemd/system-preset"} {
		for p, e := range t {
			if path.Dir(p) == dir && e.Type == tar.TypeReg && path.Ext(p) == presetExt {
				files[path.Base(p)] = p
			}
		}
	}
	var rules []presetRule
	for _, name := range sortedKeys(files) {
		text, err := read(t, files[name])
		if err != nil {
			return nil, err
		}
		more, err := parsePreset(text)
		if err != nil {
			return nil, fmt.Errorf("/%s: %w", files[name], err)
		}
		rules = append(rules, more...)
	}
	return rules, nil
}

func parsePreset(text string) ([]presetRule, error) {
	var rules []presetRule
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		if len(f) < 2 || (f[0] != "enable" && f[0] != "disable") {
			return nil, fmt.Errorf("%q: enable or disable and a unit's name are expected", strings.TrimSpace(line))
		}
		if _, err := path.Match(f[1], ""); err != nil {
			return nil, fmt.Errorf("%q: %w", f[1], err)
		}
		rules = append(rules, presetRule{f[0] == "enable", f[1], f[2:]})
	}
	return rules, nil
}

// decide says whether a unit starts; a unit that no rule names does.
func decide(rules []presetRule, unit string) (instances []string, enabled bool) {
	for _, r := range rules {
		// The patterns were checked when they were read.
		if ok, err := path.Match(r.pattern, unit); ok && err == nil {
			return r.instances, r.enable
		}
	}
	return nil, true
}

// install is a unit file's [Install] section.
type install struct {
	wanted   map[string][]string // "wants", "requires", "upholds" → targets
	aliases  []string
	also     []string
	instance string
}

func parseInstall(text string) install {
	in := install{wanted: map[string][]string{}}
	section := ""
	scan := bufio.NewScanner(strings.NewReader(text))
	for scan.Scan() {
		line := strings.TrimSpace(scan.Text())
		if strings.HasPrefix(line, "[") {
			section = line
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section != "[Install]" {
			continue
		}
		words := strings.Fields(value)
		switch strings.TrimSpace(key) {
		case "WantedBy":
			in.wanted["wants"] = append(in.wanted["wants"], words...)
		case "RequiredBy":
			in.wanted["requires"] = append(in.wanted["requires"], words...)
		case "UpheldBy":
			in.wanted["upholds"] = append(in.wanted["upholds"], words...)
		case "Alias":
			in.aliases = append(in.aliases, words...)
		case "Also":
			in.also = append(in.also, words...)
		case "DefaultInstance":
			in.instance = strings.TrimSpace(value)
		}
	}
	return in
}

// enable makes one unit's links (systemctl(1), enable).
func enable(t tartree.Tree, units map[string]string, name string, instances []string, done map[string]bool) error {
	file, ok := units[name]
	if done[name] || !ok {
		return nil
	}
	done[name] = true
	text, err := read(t, file)
	if err != nil {
		return err
	}
	in := parseInstall(text)
	base, ext := strings.TrimSuffix(name, path.Ext(name)), path.Ext(name)
	links := []string{name}
	if strings.HasSuffix(base, "@") {
		if len(instances) == 0 && in.instance != "" {
			instances = []string{in.instance}
		}
		links = nil
		for _, i := range instances {
			links = append(links, base+i+ext)
		}
	}
	for _, kind := range []string{"wants", "requires", "upholds"} {
		for _, target := range in.wanted[kind] {
			for _, link := range links {
				if err := t.Symlink(adminDir+"/"+target+"."+kind+"/"+link, "/"+file); err != nil {
					return err
				}
			}
		}
	}
	for _, alias := range in.aliases {
		if err := t.Symlink(adminDir+"/"+alias, "/"+file); err != nil {
			return err
		}
	}
	for _, also := range in.also {
		if err := enable(t, units, also, nil, done); err != nil {
			return err
		}
	}
	return nil
}

func read(t tartree.Tree, p string) (text string, err error) {
	r, err := t[p].Open()
	if err != nil {
		return "", fmt.Errorf("/%s: %w", p, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	b, err := io.ReadAll(io.LimitReader(r, 1<<20))
	if err != nil {
		return "", fmt.Errorf("/%s: %w", p, err)
	}
	return string(b), nil
}
