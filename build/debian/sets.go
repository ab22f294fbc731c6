package debian

import (
	"errors"
	"fmt"
	"os"
	"path"
	"sort"

	"github.com/goccy/go-yaml"
)

// sets is packages.yaml.
type sets struct {
	Sets map[string]set `yaml:"sets"`
}

type set struct {
	// Closure is "" or "with": each package with what it depends on;
	// "together": one installable system with the essential packages.
	Closure  string   `yaml:"closure"`
	Packages []string `yaml:"packages"`
	Only     []string `yaml:"only"` // patterns of path.Match over names
}

func readSets(file string) (sets, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return sets{}, fmt.Errorf("package sets: %w", err)
	}
	s, err := parseSets(b)
	if err != nil {
		return sets{}, fmt.Errorf("package sets: %s: %w", file, err)
	}
	return s, nil
}

func parseSets(b []byte) (sets, error) {
	var s sets
	if err := yaml.UnmarshalWithOptions(b, &s, yaml.Strict()); err != nil {
		return sets{}, err
	}
	if len(s.Sets) == 0 {
		return sets{}, errors.New("there are no sets")
	}
	for _, name := range s.names() {
		one := s.Sets[name]
		switch {
		case one.Closure != "" && one.Closure != "with" && one.Closure != "together":
			return sets{}, fmt.Errorf("set %s: closure %q: expected with or together", name, one.Closure)
		case len(one.Packages) == 0:
			return sets{}, fmt.Errorf("set %s: no packages", name)
		}
		for _, pattern := range one.Only {
			if _, err := path.Match(pattern, ""); err != nil {
				return sets{}, fmt.Errorf("set %s: only %q: %w", name, pattern, err)
			}
		}
	}
	return s, nil
}

func (s sets) names() []string {
	var names []string
	for n := range s.Sets {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// keeps says whether a package of the closure belongs to the set.
func (s set) keeps(name string) bool {
	for _, pattern := range s.Only {
		// The patterns were checked when they were read.
		if ok, err := path.Match(pattern, name); ok && err == nil {
			return true
		}
	}
	return len(s.Only) == 0
}

// installs are the arguments of the apt-get runs whose results make the set.
func (s set) installs() [][]string {
	if s.Closure == "together" {
		return [][]string{append([]string{"?essential", "apt"}, s.Packages...)}
	}
	var runs [][]string
	for _, p := range s.Packages {
		runs = append(runs, []string{p})
	}
	return runs
}
