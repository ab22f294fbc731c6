package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Index is what depmod wrote about a kernel's modules.
type Index struct {
	files   map[string]file // by module name, underscores
	builtin map[string]bool
	soft    map[string]softdep
	aliases *aliases
	keep    func(pattern string) bool // nil keeps all
}

type file struct {
	path string   // below the index's folder
	deps []string // paths, what is needed last comes first, as modules.dep has it
}

type softdep struct{ pre, post []string }

// Name is a module's name from its file's path: "a/b/snd-hda.ko.xz" → "snd_hda".
func Name(p string) string {
	base, _, _ := strings.Cut(path.Base(p), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// ReadIndex reads modules.dep and, where they exist, modules.alias,
// modules.softdep and modules.builtin of the folder (/lib/modules/VERSION).
func ReadIndex(dir fs.FS) (*Index, error) { return readIndex(dir, nil) }

// readIndexFor is ReadIndex for one question: of the patterns only those that
// match one of words are kept, and plain names, by which softdeps go. The kernel starts modprobe for each, and filing twenty
// thousand patterns for one look-up costs most of its time.
func readIndexFor(dir fs.FS, words []string) (*Index, error) {
	var wanted []string
	for _, w := range words {
		wanted = append(wanted, normal(w))
	}
	return readIndex(dir, func(pattern string) bool {
		if !strings.ContainsAny(pattern, "*?[:") {
			return true
		}
		pattern = normal(pattern)
		for _, w := range wanted {
			if glob(pattern, w) {
				return true
			}
		}
		return false
	})
}

func readIndex(dir fs.FS, keep func(pattern string) bool) (*Index, error) {
	x := &Index{keep: keep, files: map[string]file{}, builtin: map[string]bool{}, soft: map[string]softdep{}, aliases: newAliases()}
	for _, part := range []struct {
		name     string
		parse    func(line string)
		required bool
	}{
		{"modules.dep", x.parseDep, true},
		{"modules.alias", x.parseAlias, false},
		{"modules.softdep", x.parseSoftdep, false},
		{"modules.builtin", func(line string) { x.builtin[Name(line)] = true }, false},
	} {
		f, err := dir.Open(part.name)
		if errors.Is(err, fs.ErrNotExist) && !part.required {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("the kernel modules' index: %w", err)
		}
		err = lines(f, part.parse)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("the kernel modules' index %s: %w", part.name, err)
		}
	}
	return x, nil
}

func lines(r io.Reader, parse func(string)) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 64<<10), 1<<20)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			parse(line)
		}
	}
	return s.Err()
}

// "kernel/fs/ext4/ext4.ko.xz: kernel/fs/jbd2/jbd2.ko.xz …"
func (x *Index) parseDep(line string) {
	p, deps, found := strings.Cut(line, ":")
	if found {
		x.files[Name(p)] = file{path: p, deps: strings.Fields(deps)}
	}
}

// "alias pci:v00008086d* e1000e"
func (x *Index) parseAlias(line string) {
	rest, ok := strings.CutPrefix(line, "alias ")
	pattern, module, found := strings.Cut(strings.TrimSpace(rest), " ")
	if ok && found && (x.keep == nil || x.keep(pattern)) {
		x.aliases.add(pattern, strings.ReplaceAll(strings.TrimSpace(module), "-", "_"))
	}
}

// "softdep ext4 pre: crc32c post: x"
func (x *Index) parseSoftdep(line string) {
	f := strings.Fields(line)
	if len(f) < 3 || f[0] != "softdep" {
		return
	}
	name := strings.ReplaceAll(f[1], "-", "_")
	s, list := x.soft[name], (*[]string)(nil)
	for _, word := range f[2:] {
		switch word {
		case "pre:":
			list = &s.pre
		case "post:":
			list = &s.post
		default:
			if list != nil {
				*list = append(*list, word)
			}
		}
	}
	x.soft[name] = s
}

// Resolve names the modules that stand for a module name or an alias ("ext4",
// "fs-ext4", "pci:v0000…"). builtin is true when the kernel itself has it.
func (x *Index) Resolve(word string) (modules []string, builtin bool) {
	name := strings.ReplaceAll(word, "-", "_")
	if x.builtin[name] {
		return nil, true
	}
	if _, ok := x.files[name]; ok {
		return []string{name}, false
	}
	for _, m := range x.aliases.match(word) {
		if _, ok := x.files[m]; ok {
			modules = append(modules, m)
		}
	}
	return modules, false
}

// Plan lists the files to load for a module, in order: what it softly wants
// before, what it depends on, itself, what it softly wants after. soft marks
// those whose failure does not matter.
func (x *Index) Plan(module string) []Step {
	var plan []Step
	x.plan(module, false, map[string]bool{}, &plan)
	return plan
}

// Step is one file of a plan, its path below the index's folder.
type Step struct {
	Module, Path string
	Soft         bool
}

func (x *Index) plan(module string, soft bool, seen map[string]bool, plan *[]Step) {
	f, ok := x.files[module]
	if !ok || seen[module] {
		return
	}
	seen[module] = true
	wanted := func(words []string) {
		for _, w := range words {
			found, _ := x.Resolve(w)
			for _, m := range found {
				x.plan(m, true, seen, plan)
			}
		}
	}
	wanted(x.soft[module].pre)
	for i := len(f.deps) - 1; i >= 0; i-- {
		x.plan(Name(f.deps[i]), soft, seen, plan)
	}
	*plan = append(*plan, Step{module, f.path, soft})
	wanted(x.soft[module].post)
}
