package site

import (
	"bytes"
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"

	"github.com/rackseed/rackseed/services/machine"
)

// position is a place in the file, both numbers from 1.
type position struct{ line, column int }

// decoder fills a Go value from YAML by its json tags. It goes on after a
// problem, so that all of them are told at once, and remembers where each
// value stood, so that later checks can point at it.
type decoder struct {
	problems []Problem
	at       map[string]position // by path
	bad      map[string]bool     // paths that already have a problem
	lines    [][]byte            // of the file
	blocks   map[string]position // where the lines of a literal block begin, by path
}

func newDecoder() *decoder {
	return &decoder{at: map[string]position{}, bad: map[string]bool{}, blocks: map[string]position{}}
}

// problem notes what is wrong at path; once a path, since the first is the
// cause of the others.
func (d *decoder) problem(path, text, expected string) {
	if d.bad[path] {
		return
	}
	d.bad[path] = true
	at := d.where(path)
	d.problems = append(d.problems, Problem{at.line, at.column, path, text, expected})
}

// broken says whether there is a problem at path or below it, so that what it
// says cannot be relied on.
func (d *decoder) broken(path string) bool {
	for bad := range d.bad {
		if rest, below := strings.CutPrefix(bad, path); below && (rest == "" || rest[0] == '.' || rest[0] == '[') {
			return true
		}
	}
	return false
}

// where finds the position of path, or of the nearest parent that is there.
func (d *decoder) where(path string) position {
	for {
		if at, ok := d.at[path]; ok {
			return at
		}
		cut := strings.LastIndexAny(path, ".[")
		if cut < 0 {
			if at, ok := d.at[""]; ok {
				return at
			}
			return position{1, 1}
		}
		path = path[:cut]
	}
}

// within finds where in the file a place is that counts within a text there, for
// a problem that has one: in a literal block, whose lines stand in the file as
// they are. Of another text the problem says the place in words.
func (d *decoder) within(p *Problem) {
	if p.Line < 1 {
		return
	}
	for path := p.Path; path != ""; path = path[:max(0, strings.LastIndexAny(path, ".["))] {
		if at, ok := d.blocks[path]; ok {
			d.at[p.Path] = position{at.line + p.Line - 1, at.column + p.Column - 1}
			return
		}
	}
	p.Text += fmt.Sprintf(" (its line %d, column %d)", p.Line, p.Column)
}

// block notes where the lines of a literal block begin: below its indicator, as
// far in as its first line that is not blank.
func (d *decoder) block(path string, n ast.Node) {
	l, ok := n.(*ast.LiteralNode)
	if !ok || l.Start == nil || l.Start.Position == nil || !strings.HasPrefix(l.Start.Value, "|") {
		return
	}
	first := l.Start.Position.Line + 1
	for i, line := range strings.Split(l.Value.Value, "\n") {
		if strings.TrimSpace(line) == "" || first+i > len(d.lines) {
			continue
		}
		if in, ok := bytes.CutSuffix(d.lines[first+i-1], []byte(line)); ok {
			d.blocks[path] = position{first, len(in) + 1}
		}
		return
	}
}

func (d *decoder) note(path string, t *token.Token) {
	if t != nil && t.Position != nil {
		d.at[path] = position{t.Position.Line, t.Position.Column}
	}
}

// textual types know their own notation.
var textual = reflect.TypeFor[encoding.TextUnmarshaler]()

// value decodes n into v, which is addressable and zero.
func (d *decoder) value(path string, n ast.Node, v reflect.Value) {
	switch n.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.TagNode, *ast.MergeKeyNode:
		d.note(path, n.GetToken())
		d.problem(path, "anchors, aliases, merge keys and tags are not understood in a site file", "the value itself")
		return
	}
	if v.Addr().Type().Implements(textual) {
		d.text(path, n, v)
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.value(path, n, v.Elem())
	case reflect.Struct:
		d.object(path, n, v)
	case reflect.Map:
		d.mapping(path, n, v)
	case reflect.Slice:
		d.list(path, n, v)
	default:
		d.scalar(path, n, v)
	}
}

// object decodes a mapping with known keys. Nothing at all after the key is an
// empty one, if that may be: it is what remains when all its lines are
// commented out.
func (d *decoder) object(path string, n ast.Node, v reflect.Value) {
	known := keysOf(v.Type())
	if isNull(n) {
		d.note(path, n.GetToken())
		if required := known.required(); len(required) > 0 {
			d.problem(path, "nothing is below it", strings.Join(required, ", ")+" below it, or to leave it out")
			for _, name := range required { // what these lack follows from it
				d.bad[join(path, name)] = true
			}
		}
		return
	}
	pairs, ok := d.pairs(path, n)
	if !ok {
		return
	}
	given := map[string]ast.Node{}
	var strange []stranger
	for _, pair := range pairs {
		name, ok := d.key(path, pair)
		switch {
		case !ok:
		case known.index(name) < 0:
			strange = append(strange, stranger{name, pair.Key.GetToken()})
		default:
			given[name] = pair.Value
		}
	}
	strange = d.slipped(path, known, given, strange)
	meant := d.unknown(path, known, given, strange)
	for _, k := range known {
		child := join(path, k.name)
		node, is := given[k.name]
		switch {
		case !is && k.required && !meant[k.name]:
			d.problem(child, "missing", expectation(k.field.Type))
		case is && !d.bad[child]:
			d.value(child, node, v.FieldByIndex(k.field.Index))
			d.enum(child, v.FieldByIndex(k.field.Index), k.field.Tag.Get("enum"))
			d.bounds(child, v.FieldByIndex(k.field.Index), k.field.Tag)
		}
	}
}

// optional says whether a field may be absent: as in the JSON schema, it is
// what encoding/json would leave out.
func optional(f reflect.StructField) bool {
	_, options, _ := strings.Cut(f.Tag.Get("json"), ",")
	return strings.Contains(options, "omitempty") || strings.Contains(options, "omitzero")
}

func (d *decoder) enum(path string, v reflect.Value, tag string) {
	if tag == "" || d.bad[path] {
		return
	}
	allowed := strings.Split(tag, ",")
	for _, a := range allowed {
		if v.String() == a {
			return
		}
	}
	d.problem(path, strconv.Quote(v.String()), strings.Join(allowed, " or "))
}

// bounds checks a whole number against the schema's minimum and maximum.
func (d *decoder) bounds(path string, v reflect.Value, tag reflect.StructTag) {
	least, most := tag.Get("minimum"), tag.Get("maximum")
	if v.Kind() != reflect.Int || d.bad[path] || least == "" && most == "" {
		return
	}
	below := func(limit string, sign int64) bool {
		n, err := strconv.ParseInt(limit, 10, 64)
		return err == nil && sign*v.Int() < sign*n
	}
	if !below(least, 1) && !below(most, -1) {
		return
	}
	expected := least + " to " + most
	switch {
	case least == most:
		expected = least
	case most == "":
		expected = "at least " + least
	}
	d.problem(path, strconv.FormatInt(v.Int(), 10), expected)
}

// mapping decodes a mapping whose keys the user chooses.
func (d *decoder) mapping(path string, n ast.Node, v reflect.Value) {
	if isNull(n) {
		return
	}
	pairs, ok := d.pairs(path, n)
	if !ok {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for _, pair := range pairs {
		key, ok := d.key(path, pair)
		if !ok {
			continue
		}
		element := reflect.New(v.Type().Elem()).Elem()
		d.value(join(path, key), pair.Value, element)
		v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), element)
	}
}

func (d *decoder) pairs(path string, n ast.Node) ([]*ast.MappingValueNode, bool) {
	switch n := n.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 {
			d.note(path, n.Values[0].Key.GetToken())
		} else {
			d.note(path, n.GetToken())
		}
		return n.Values, true
	case *ast.MappingValueNode:
		d.note(path, n.Key.GetToken())
		return []*ast.MappingValueNode{n}, true
	}
	d.note(path, n.GetToken())
	d.problem(path, describe(n), "a mapping (key: value)")
	return nil, false
}

func (d *decoder) key(path string, pair *ast.MappingValueNode) (string, bool) {
	switch k := pair.Key.(type) {
	case *ast.StringNode:
		return k.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return k.GetToken().Value, true
	}
	d.note(path, pair.Key.GetToken())
	d.problem(path, "a key that is not a plain word", "key: value")
	return "", false
}

// list decodes a sequence. Nothing at all after the key is an empty one: that
// is what remains when all its lines are commented out.
func (d *decoder) list(path string, n ast.Node, v reflect.Value) {
	d.note(path, n.GetToken())
	if isNull(n) {
		return
	}
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		d.problem(path, describe(n), "a list (lines that begin with \"- \")")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(seq.Values), len(seq.Values)))
	for i, item := range seq.Values {
		d.value(path+"["+strconv.Itoa(i)+"]", item, v.Index(i))
	}
}

// text decodes the types that know their own notation.
func (d *decoder) text(path string, n ast.Node, v reflect.Value) {
	d.note(path, n.GetToken())
	s, ok := scalarText(n)
	if !ok || s == "" {
		d.problem(path, describe(n), expectation(v.Type()))
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(s)); err != nil || !isIPv4(v.Interface()) {
		v.SetZero()
		d.problem(path, strconv.Quote(s), expectation(v.Type()))
	}
}

// isIPv4 is true of everything that is not an IPv6 address.
func isIPv4(v any) bool {
	switch v := v.(type) {
	case netip.Addr:
		return v.Is4()
	case netip.Prefix:
		return v.Addr().Is4()
	}
	return true
}

func (d *decoder) scalar(path string, n ast.Node, v reflect.Value) {
	d.note(path, n.GetToken())
	switch v.Kind() {
	case reflect.Bool:
		if b, ok := n.(*ast.BoolNode); ok {
			v.SetBool(b.Value)
			return
		}
	case reflect.Int:
		if i, ok := n.(*ast.IntegerNode); ok {
			if x, err := strconv.ParseInt(i.Token.Value, 0, strconv.IntSize); err == nil {
				v.SetInt(x)
				return
			}
		}
	case reflect.String:
		if s, ok := scalarText(n); ok {
			v.SetString(s)
			d.block(path, n)
			return
		}
	}
	d.problem(path, describe(n), expectation(v.Type()))
}

// scalarText is a scalar as it was written. Numbers count as text, so that a
// serial number like 0012 needs no quotes and keeps its zeros.
func scalarText(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode:
		return n.GetToken().Value, true
	}
	return "", false
}

func isNull(n ast.Node) bool {
	_, null := n.(*ast.NullNode)
	return null
}

// describe says what a node is, for a problem's text.
func describe(n ast.Node) string {
	if s, ok := scalarText(n); ok {
		return strconv.Quote(s)
	}
	switch n := n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.BoolNode:
		return n.GetToken().Value
	}
	return "a " + strings.ToLower(n.Type().String())
}

// expectation says what a value of type t looks like.
func expectation(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[netip.Addr]():
		return "an IPv4 address, as 10.77.0.100"
	case reflect.TypeFor[netip.Prefix]():
		return "an IPv4 address with its prefix length, as 10.77.0.2/24"
	case reflect.TypeFor[machine.MAC]():
		return "a hardware address, as 52:54:00:12:34:56"
	case reflect.TypeFor[machine.Duration]():
		return "a duration, as 90s, 30m or 1h30m"
	case reflect.TypeFor[machine.Size]():
		return "a size with its unit, as 480GB, 1.92TB or 64GiB"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map, reflect.Pointer:
		return "a mapping (key: value)"
	}
	return "text (in quotes, if it looks like something else)"
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}
