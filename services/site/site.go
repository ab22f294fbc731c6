// Package site reads the site file: site.yaml to a checked machine.Site, or
// every problem in it with line, column and what was expected.
package site

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/rackseed/rackseed/services/machine"
)

// MaxBytes is the size of the largest site file that is read.
const MaxBytes = 1 << 20

// Examine reads, checks and completes a site file. name is how it is called in
// errors, which are always an *Error.
//
// The result has all defaults filled in: profiles control-plane and worker if
// the file has none, lease times, the cluster's name and subnets.
//
// warnings are about a site that is valid, in the file's order: what it says is
// taken, but seldom meant, or must be known (Warnings, and those of also).
func Examine(name string, src []byte, also ...Further) (s machine.Site, warnings []Problem, err error) {
	d := newDecoder()
	s = d.decode(src)
	_, given := d.at["version"]
	switch {
	case given && s.Version > 1:
		// A newer format: what else is not understood says nothing.
		d.problems = slices.DeleteFunc(d.problems, func(p Problem) bool { return p.Path != "version" })
	case d.at[""] != position{} && !d.bad[""]:
		check(d, &s)
	}
	if len(d.problems) == 0 {
		warnings = Warnings(s)
		for _, more := range also {
			problems, more := more(s)
			for _, p := range problems {
				d.within(&p)
				d.problem(p.Path, p.Text, p.Expected)
			}
			warnings = append(warnings, more...)
		}
	}
	if len(d.problems) > 0 {
		return machine.Site{}, nil, newError(name, d.problems)
	}
	for i := range warnings {
		p := &warnings[i]
		d.within(p)
		at := d.where(p.Path)
		p.Line, p.Column = at.line, at.column
	}
	complete(&s)
	return s, firstOf(warnings, "warnings", ""), nil
}

// WarningsInForce are Examine's warnings about a site whose text is not at hand: they
// have no places.
func WarningsInForce(s machine.Site, also ...Further) []Problem {
	list := Warnings(s)
	for _, more := range also {
		_, warnings := more(s)
		list = append(list, warnings...)
	}
	d := newDecoder() // of no file
	for i := range list {
		d.within(&list[i])
		list[i].Line, list[i].Column = 0, 0
	}
	return firstOf(list, "warnings", "")
}

// Further is a check of a site that has no fault so far. What it finds names its
// path, and the place in the file is filled in. A line and column that it has
// itself count from 1 within the text that stands at the path, or above it.
type Further func(machine.Site) (problems, warnings []Problem)

// Parse is Examine without further checks and warnings.
func Parse(name string, src []byte) (machine.Site, error) {
	s, _, err := Examine(name, src)
	return s, err
}

// decode reads the one document of src; without one, at[""] stays unset.
func (d *decoder) decode(src []byte) (s machine.Site) {
	if len(src) > MaxBytes {
		d.problems = append(d.problems, Problem{Text: fmt.Sprintf("the file has %d bytes", len(src)), Expected: fmt.Sprintf("at most %d", MaxBytes)})
		return s
	}
	if at, deep := tooDeep(src); deep {
		d.problems = append(d.problems, Problem{at.line, at.column, "", "lists and mappings are nested too deep", fmt.Sprintf("at most %d", maxNesting)})
		return s
	}
	if at, wrong := notUTF8(src); wrong {
		d.problems = append(d.problems, Problem{at.line, at.column, "", "a letter that is not UTF-8", "a file that the editor saved as UTF-8"})
		return s
	}
	// Editors on Windows put a byte order mark in front, which means nothing in
	// UTF-8, and end lines by \r\n, in which the YAML library counts lines twice.
	src = bytes.TrimPrefix(src, []byte("\xef\xbb\xbf"))
	src = bytes.ReplaceAll(bytes.ReplaceAll(src, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
	d.lines = bytes.Split(src, []byte("\n"))
	file, err := parse(src)
	if err != nil {
		d.problems = append(d.problems, syntaxProblem(err))
		return s
	}
	var body ast.Node
	for _, doc := range file.Docs {
		switch n := doc.Body.(type) {
		case nil, *ast.CommentGroupNode, *ast.NullNode:
		default:
			if body != nil {
				d.note("", n.GetToken())
				d.problem("", "a second document", "one document")
				return s
			}
			body = n
		}
	}
	if body == nil {
		d.problems = append(d.problems, Problem{Line: 1, Column: 1, Text: "the file is empty", Expected: "a site; see docs/site.example.yaml"})
		return s
	}
	d.value("", body, reflect.ValueOf(&s).Elem())
	return s
}

// maxNesting bounds how deep lists and mappings may stand in each other: the
// YAML library needs memory for the square of it (100,000 deep: several GB).
const maxNesting = 1000

// tooDeep finds where src goes deeper than maxNesting by brackets or by
// indicators in one line. Depth by indentation needs no bound beyond MaxBytes:
// each level makes all further lines longer.
func tooDeep(src []byte) (position, bool) {
	brackets, number := 0, 0
	for line := range bytes.Lines(src) {
		number++
		indicators := bytes.Count(line, []byte("- ")) + bytes.Count(line, []byte("? "))
		for i, c := range line {
			switch c {
			case '[', '{':
				brackets++
			case ']', '}':
				brackets = max(0, brackets-1)
			}
			if brackets+indicators > maxNesting {
				return position{number, i + 1}, true
			}
		}
	}
	return position{}, false
}

// notUTF8 finds the first byte that no UTF-8 text has there, as an older
// editor's é.
func notUTF8(src []byte) (position, bool) {
	number := 0
	for line := range bytes.Lines(src) {
		number++
		for column := 1; len(line) > 0; column++ {
			r, n := utf8.DecodeRune(line)
			if r == utf8.RuneError && n == 1 {
				return position{number, column}, true
			}
			line = line[n:]
		}
	}
	return position{}, false
}

// parse turns a panic of the YAML library into an error: the file comes from
// outside, and a bad one must end as a message on the screen.
func parse(src []byte) (file *ast.File, err error) {
	defer func() {
		if p := recover(); p != nil {
			file, err = nil, fmt.Errorf("not readable as YAML: %v", p)
		}
	}()
	return parser.ParseBytes(src, 0)
}

// syntaxHints are what usually is wrong where the YAML library says so.
var syntaxHints = map[string]string{
	"character '\t'":                       "spaces to indent with, no tabs",
	"non-map value is specified":           "key: value, with a space behind the colon",
	"value is not allowed in this context": "a line that is indented as its neighbours are",
}

func syntaxProblem(err error) Problem {
	p := Problem{Line: 1, Column: 1, Text: err.Error()}
	var at yaml.Error
	if !errors.As(err, &at) {
		return p
	}
	message := at.GetMessage()
	p.Text = "not YAML: " + strings.ReplaceAll(message, "\t", "\\t")
	for words, expected := range syntaxHints {
		if strings.Contains(message, words) {
			p.Expected = expected
		}
	}
	if t := at.GetToken(); t != nil && t.Position != nil {
		p.Line, p.Column = t.Position.Line, t.Position.Column
	}
	return p
}

// DefaultLeaseTime is used where the site file names none.
const DefaultLeaseTime = machine.Duration(time.Hour)

// complete fills in what a checked site left out.
func complete(s *machine.Site) {
	if len(s.Profiles) == 0 {
		s.Profiles = []machine.Profile{
			{Name: "control-plane", Role: machine.RoleControlPlane},
			{Name: "worker", Role: machine.RoleWorker},
		}
	}
	for i := range s.Links {
		if dhcp := s.Links[i].DHCP; dhcp != nil && dhcp.LeaseTime == 0 {
			dhcp.LeaseTime = DefaultLeaseTime
		}
	}
	s.Cluster.Name = s.ClusterName()
	if !s.Cluster.PodSubnet.IsValid() {
		s.Cluster.PodSubnet = defaultPodSubnet
	}
	if !s.Cluster.ServiceSubnet.IsValid() {
		s.Cluster.ServiceSubnet = defaultServiceSubnet
	}
}

var (
	defaultPodSubnet     = netip.MustParsePrefix("10.244.0.0/16")
	defaultServiceSubnet = netip.MustParsePrefix("10.96.0.0/16")
)
