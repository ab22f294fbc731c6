package site

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/rackseed/rackseed/services/machine"
)

// key is one that a mapping of the site file may have.
type key struct {
	name     string
	required bool
	field    reflect.StructField
}

type keys []key

// keysOf are those of a mapping that is decoded into a struct.
func keysOf(t reflect.Type) (all keys) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		all = append(all, key{name, !optional(f), f})
	}
	return all
}

func (k keys) index(name string) int {
	return slices.IndexFunc(k, func(k key) bool { return k.name == name })
}

func (k keys) names(which func(key) bool) (names []string) {
	for _, k := range k {
		if which(k) {
			names = append(names, k.name)
		}
	}
	return names
}

func (k keys) required() []string { return k.names(func(k key) bool { return k.required }) }

// below are the keys of the mapping, or of each mapping in the list, that
// stands below a key; nil for another kind of value.
func below(t reflect.Type) keys {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || reflect.PointerTo(t).Implements(textual) {
		return nil
	}
	return keysOf(t)
}

// places are where the site file may have each key, as "links[].dhcp"; "" is
// the top.
var places = func() map[string][]string {
	all := map[string][]string{}
	var add func(path string, k keys)
	add = func(path string, k keys) {
		for _, k := range k {
			all[k.name] = append(all[k.name], path)
			child := join(path, k.name)
			if k.field.Type.Kind() == reflect.Slice {
				child += "[]"
			}
			add(child, below(k.field.Type))
		}
	}
	add("", keysOf(reflect.TypeFor[machine.Site]()))
	return all
}()

// stranger is a key that a mapping has not.
type stranger struct {
	name string
	at   *token.Token
}

// slipped tells keys that stand beside the key that they belong below, which is
// one mistake in the indentation, and returns the others.
func (d *decoder) slipped(path string, known keys, given map[string]ast.Node, strange []stranger) (rest []stranger) {
	for _, k := range known {
		inner := below(k.field.Type)
		if node, is := given[k.name]; !is || !isNull(node) || inner == nil {
			continue
		}
		var out []string
		strange = slices.DeleteFunc(strange, func(s stranger) bool {
			slip := inner.index(s.name) >= 0
			if slip {
				out = append(out, s.name)
			}
			return slip
		})
		if len(out) > 0 {
			child := join(path, k.name)
			d.note(child, given[k.name].GetToken())
			d.problem(child, "nothing is below it, and beside it "+strings.Join(out, ", "), "them below it, two spaces further in")
		}
	}
	return strange
}

// unknown tells keys that a mapping has not, each with what may have been
// meant. What was meant is returned: it is not missing besides.
func (d *decoder) unknown(path string, known keys, given map[string]ast.Node, strange []stranger) map[string]bool {
	meant := map[string]bool{}
	free := known.names(func(k key) bool { return given[k.name] == nil })
	for _, s := range strange {
		child := join(path, s.name)
		d.note(child, s.at)
		near, off := nearest(s.name, free)
		switch elsewhere := places[s.name]; {
		case near != "" && (off <= 1 || len(elsewhere) == 0):
			meant[near], d.bad[join(path, near)] = true, true
			d.problem(child, "unknown key", strconv.Quote(near)+"?")
		case len(elsewhere) > 0:
			where := make([]string, len(elsewhere))
			for i, place := range elsewhere {
				if where[i] = "below " + place; place == "" {
					where[i] = "at the top, not indented"
				}
			}
			d.problem(child, "unknown key here", "it "+strings.Join(where, " or "))
		case similar(s.name, known) != "":
			d.problem(child, "unknown key", strconv.Quote(similar(s.name, known))+", which is there already?")
		default:
			d.problem(child, "unknown key", "one of "+strings.Join(known.names(func(key) bool { return true }), ", "))
		}
	}
	return meant
}

// similar is the nearest of all keys that a mapping may have.
func similar(name string, known keys) string {
	near, _ := nearest(name, known.names(func(key) bool { return true }))
	return near
}
