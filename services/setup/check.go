package setup

import (
	"errors"
	"fmt"

	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
)

// Check says what site a site file describes, or all that is wrong with it:
// the error is then a *site.Error. It is what decides whether a file is taken.
// name is how the file is called in problems.
func Check(name string, text []byte) (machine.Site, error) {
	return site.Parse(name, text, ignitionProblems)
}

func ignitionProblems(s machine.Site) (problems []site.Problem) {
	for i, p := range s.Profiles {
		if err := ignition.Check(p); err != nil {
			problems = append(problems, site.Problem{Path: fmt.Sprintf("profiles[%d].ignition", i), Text: err.Error()})
		}
	}
	return problems
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
