package setup

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

// Check says what site a site file describes, or all that is wrong with it:
// the error is then a *site.Error. It is what decides whether a file is taken.
// name is how the file is called in problems.
func Check(name string, text []byte) (machine.Site, error) {
	s, _, err := Examine(name, text)
	return s, err
}

// Examine is Check with what is valid and should be looked at, and with further
// checks of others.
func Examine(name string, text []byte, also ...site.Further) (s machine.Site, warnings []site.Problem, err error) {
	return site.Examine(name, text, append([]site.Further{checkIgnition}, also...)...)
}

// Warnings are Examine's about the site in force, without places. They are asked for
// often, and what a profile's Ignition was checked for is not checked anew.
func Warnings(s machine.Site) []site.Problem {
	return site.WarningsInForce(s, func(s machine.Site) (_, warnings []site.Problem) {
		for i, p := range s.Profiles {
			warnings = append(warnings, inSite(ignitionPath(i), ignition.Warnings(p))...)
		}
		return nil, warnings
	})
}

func ignitionPath(profile int) string { return fmt.Sprintf("profiles[%d].ignition", profile) }

// checkIgnition checks the profiles' Ignition.
func checkIgnition(s machine.Site) (problems, warnings []site.Problem) {
	for i, p := range s.Profiles {
		path := ignitionPath(i)
		found, err := ignition.Check(p)
		warnings = append(warnings, inSite(path, found)...)
		var wrong *ignition.ProfileError
		switch {
		case errors.As(err, &wrong):
			problems = append(problems, inSite(path, wrong.Problems)...)
		case err != nil:
			problems = append(problems, site.Problem{Path: path, Text: err.Error()})
		}
	}
	return problems, warnings
}

// number is the place in a list, as Ignition's library writes it.
var number = regexp.MustCompile(`\.([0-9]+)`)

// inSite gives problems of an Ignition paths in the site file.
func inSite(path string, found []ignition.Problem) []site.Problem {
	list := make([]site.Problem, len(found))
	for i, p := range found {
		list[i] = site.Problem{Line: int(p.Line), Column: int(p.Column), Path: path, Text: p.Text}
		if p.Path != "" {
			list[i].Path += "." + number.ReplaceAllString(p.Path, "[$1]")
		}
	}
	return list
}

// lines are the problems of a site file, one each.
func lines(err error) []string {
	var list *site.Error
	if !errors.As(err, &list) {
		return []string{err.Error()}
	}
	all := make([]string, len(list.Problems))
	for i, p := range list.Problems {
		all[i] = list.Line(p)
	}
	return all
}
