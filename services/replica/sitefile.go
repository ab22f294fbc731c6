package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
	"github.com/rackseed/rackseed/services/state"
)

// siteLook is how often the site file is looked at: whoever edits it sees the
// outcome in the console without a restart.
const siteLook = 2 * time.Second

// siteFile keeps what was found in the site file.
type siteFile struct {
	mu       sync.Mutex
	problems []string
}

func (r *replica) siteProblems() []string {
	r.file.mu.Lock()
	defer r.file.mu.Unlock()
	return append([]string{}, r.file.problems...)
}

func (f *siteFile) set(problems []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems = problems
}

// watchSite applies the site file whenever its content changes to something
// valid. What is wrong with it is shown, and changes nothing.
func (r *replica) watchSite(ctx context.Context, tell report) error {
	tick := time.NewTicker(siteLook)
	defer tick.Stop()
	var last [sha256.Size]byte
	for first := true; ; first = false {
		src, err := readSite(r.Site)
		sum := sha256.Sum256(fmt.Appendf(src, "\x00%v", err))
		if first || sum != last {
			if err := r.takeSite(ctx, src, err, tell); err != nil {
				return err
			}
			last = sum
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// takeSite checks what was read and applies it.
func (r *replica) takeSite(ctx context.Context, src []byte, readErr error, tell report) error {
	s, problems := checkSite(filepath.Base(r.Site), src, readErr)
	r.file.set(problems)
	if len(problems) > 0 {
		for _, p := range problems {
			r.Logger.Warn("replica: site file", "problem", p)
		}
		tell(false, problems[0])
		return nil
	}
	store := r.store.Load()
	applied, ok := store.View().Site()
	same, err := equal(applied, s)
	if err != nil {
		return err
	}
	if !ok || !same {
		ctx, cancel := context.WithTimeout(ctx, commitTimeout)
		defer cancel()
		_, err := store.Propose(ctx, by, state.SiteApply{Site: s})
		var refusal *state.Refusal
		if errors.As(err, &refusal) {
			r.file.set([]string{filepath.Base(r.Site) + ": " + refusal.Error()})
			tell(false, refusal.Error())
			return nil
		}
		if err != nil {
			return fmt.Errorf("applying the site file: %w", err)
		}
	}
	tell(true, fmt.Sprintf("site %q is applied", s.Name))
	return nil
}

// readSite reads the site file, and no more of it than one can be.
func readSite(path string) (src []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return io.ReadAll(io.LimitReader(f, site.MaxBytes+1))
}

// checkSite says what site a file describes, or all that is wrong with it.
func checkSite(name string, src []byte, readErr error) (machine.Site, []string) {
	switch {
	case name == ".":
		return machine.Site{}, []string{"no site file was given: start with --site FILE"}
	case errors.Is(readErr, fs.ErrNotExist):
		return machine.Site{}, []string{name + ": it is missing: put it on the stick's partition RACKSEED; README.txt there has an example"}
	case readErr != nil:
		return machine.Site{}, []string{fmt.Sprintf("%s: cannot be read: %v", name, readErr)}
	}
	s, err := site.Parse(name, src)
	var list *site.Error
	if errors.As(err, &list) {
		var problems []string
		for _, p := range list.Problems {
			problems = append(problems, list.Line(p))
		}
		return machine.Site{}, problems
	}
	if err != nil {
		return machine.Site{}, []string{err.Error()}
	}
	var problems []string
	for i, p := range s.Profiles {
		if err := ignition.Check(p); err != nil {
			problems = append(problems, fmt.Sprintf("%s: profiles[%d].ignition: %v", name, i, err))
		}
	}
	return s, problems
}

// equal compares sites as the log has them.
func equal(a, b machine.Site) (bool, error) {
	x, err := json.Marshal(a)
	if err != nil {
		return false, err
	}
	y, err := json.Marshal(b)
	return bytes.Equal(x, y), err
}
