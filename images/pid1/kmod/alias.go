package kmod

import "strings"

// aliases answers which modules' patterns match a modalias.
//
// A Debian kernel has some twenty thousand patterns and a machine hundreds of
// devices. Comparing each with each takes seconds on an emulated processor, so
// patterns are filed under their bus (the text before the first colon) and,
// within it, under the literal text before their first wildcard. A lookup then
// costs one map access for each length that such a text has on the bus.
type aliases struct {
	buses map[string]*bus
	wild  []pattern // wildcard already in the bus, as "acpi*:PNP0C0A:*"
}

type bus struct {
	lengths []int // of the literal beginnings, each once
	byStart map[string][]pattern
}

type pattern struct{ glob, module string }

func newAliases() *aliases { return &aliases{buses: map[string]*bus{}} }

func (a *aliases) add(glob, module string) {
	glob = normal(glob)
	literal := glob
	if i := strings.IndexAny(glob, "*?["); i >= 0 {
		literal = glob[:i]
	}
	name, _, found := strings.Cut(literal, ":")
	if !found && literal != glob {
		a.wild = append(a.wild, pattern{glob, module})
		return
	}
	b := a.buses[name]
	if b == nil {
		b = &bus{byStart: map[string][]pattern{}}
		a.buses[name] = b
	}
	if _, known := b.byStart[literal]; !known {
		b.addLength(len(literal))
	}
	b.byStart[literal] = append(b.byStart[literal], pattern{glob, module})
}

func (b *bus) addLength(n int) {
	for _, l := range b.lengths {
		if l == n {
			return
		}
	}
	b.lengths = append(b.lengths, n)
}

// match returns the modules whose patterns match, each once, the most
// particular first (the longest literal beginning).
func (a *aliases) match(modalias string) []string {
	modalias = normal(modalias)
	var found []string
	try := func(patterns []pattern) {
		for _, p := range patterns {
			if glob(p.glob, modalias) && !contains(found, p.module) {
				found = append(found, p.module)
			}
		}
	}
	name, _, _ := strings.Cut(modalias, ":")
	if b := a.buses[name]; b != nil {
		for _, n := range b.lengths {
			if n <= len(modalias) {
				try(b.byStart[modalias[:n]])
			}
		}
	}
	try(a.wild)
	return found
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// normal writes dashes as underscores outside of brackets, as depmod's indexes
// and modprobe do: "crypto-crc32c" and "crypto_crc32c" are one.
func normal(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b, bracket := []byte(s), false
	for i, c := range b {
		switch {
		case c == '[':
			bracket = true
		case c == ']':
			bracket = false
		case c == '-' && !bracket:
			b[i] = '_'
		}
	}
	return string(b)
}

// glob is fnmatch(3) without flags: * ? [a-z] [!x]. A pattern without its
// closing bracket matches nothing.
func glob(pattern, s string) bool {
	p, i, star, retry := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, retry = p, i
			p++
			continue
		}
		if n, ok := one(pattern[p:], s[i]); ok {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		retry++
		p, i = star+1, retry
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// one matches the first element of pattern, n bytes long, with c.
func one(pattern string, c byte) (n int, ok bool) {
	if pattern == "" {
		return 0, false
	}
	switch pattern[0] {
	case '?':
		return 1, true
	case '[':
		end := strings.IndexByte(pattern, ']')
		if end < 2 {
			return 0, false
		}
		set, negated := pattern[1:end], false
		if set[0] == '!' || set[0] == '^' {
			set, negated = set[1:], true
		}
		in := false
		for j := 0; j < len(set); j++ {
			if j+2 < len(set) && set[j+1] == '-' {
				in = in || set[j] <= c && c <= set[j+2]
				j += 2
			} else {
				in = in || set[j] == c
			}
		}
		return end + 1, in != negated
	}
	return 1, pattern[0] == c
}
