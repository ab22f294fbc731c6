package site

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing wrong with a site file.
type Problem struct {
	Line     int    `json:"line"`               // from 1; 0 when the whole file is meant
	Column   int    `json:"column"`             // from 1
	Path     string `json:"path,omitempty"`     // as links[0].dhcp.from
	Text     string `json:"text"`               // what is there, or what is wrong
	Expected string `json:"expected,omitempty"` // what would be right
}

// Error is returned by Parse and holds every problem that was found, in the
// file's order.
type Error struct {
	File     string    `json:"file"`
	Problems []Problem `json:"problems"`
}

// Error gives one line a problem, as
//
//	site.yaml:7:12: links[0].dhcp.from: "10.77.0.300": expected an IPv4 address, as 10.77.0.100
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = e.Line(p)
	}
	return strings.Join(lines, "\n")
}

// Line gives one problem as one line of text.
func (e *Error) Line(p Problem) string { return p.line(e.File, "") }

// Warning gives what Examine warns of as one line of text: a place, the word
// warning, and what it is.
func (p Problem) Warning(file string) string { return p.line(file, ": warning") }

func (p Problem) line(file, mark string) string {
	var b strings.Builder
	b.WriteString(file)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(mark)
	if p.Path != "" {
		b.WriteString(": " + p.Path)
	}
	b.WriteString(": " + p.Text)
	if p.Expected != "" {
		b.WriteString(": expected " + p.Expected)
	}
	return b.String()
}

// maxProblems is how many are told at once; nobody mends more in one go.
const maxProblems = 50

// newError is the error of problems.
func newError(file string, problems []Problem) *Error {
	return &Error{File: file, Problems: firstOf(problems, "problems", "those above to be mended first")}
}

// firstOf are the first ones by their places, and how many there are besides.
func firstOf(list []Problem, what, expected string) []Problem {
	all := inOrder(list)
	if more := len(all) - maxProblems; more > 0 {
		next := all[maxProblems]
		all = append(all[:maxProblems:maxProblems], Problem{Line: next.Line, Column: next.Column, Text: fmt.Sprintf("here begin %d more %s", more, what), Expected: expected})
	}
	return all
}

// inOrder sorts by the places in the file.
func inOrder(list []Problem) []Problem {
	slices.SortStableFunc(list, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return list
}

// nearest returns the candidate that a mistyped word most likely meant, and how
// many letters it is off, or "".
func nearest(word string, candidates []string) (best string, off int) {
	off = 1 + max(1, len(word)/2)
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c)); d < off {
			best, off = c, d
		}
	}
	return best, off
}

// distance is Levenshtein's: how many letters to insert, delete or replace.
func distance(a, b string) int {
	// A key longer than any of ours is none of ours; this bounds the table.
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
