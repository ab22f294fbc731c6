package replica

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/setup"
	"github.com/rackseed/rackseed/services/state"
)

// siteLook is how often the site file is looked at: whoever edits it sees the
// outcome in the console without a restart.
const siteLook = 2 * time.Second

// siteFile keeps what was found in the site file.
type siteFile struct {
	mu       sync.Mutex
	problems []string
	// read is closed once it was read, and applied if it is valid: until then the
	// site in force is that of the last start, by which no machine is to be sent
	// to its disk any more.
	read chan struct{}
	once sync.Once
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

// siteFiles are where the site file may be.
func (r *replica) siteFiles() setup.Files { return setup.FilesOf(r.Site, r.Data) }

// watchSite applies the site file in force whenever it changes. What is wrong
// with another is shown, and changes nothing.
func (r *replica) watchSite(ctx context.Context, tell report) error {
	tick := time.NewTicker(siteLook)
	defer tick.Stop()
	watch := setup.Watch{Files: r.siteFiles()}
	for {
		if now, changed := watch.Look(); changed {
			if err := r.takeSite(ctx, now, tell); err != nil {
				return err
			}
		}
		r.file.once.Do(func() { close(r.file.read) })
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// takeSite applies the site file in force. One that is taken is kept: it stays
// in force when the given one goes wrong.
func (r *replica) takeSite(ctx context.Context, now setup.InForce, tell report) error {
	r.file.set(now.Problems)
	for _, p := range now.Problems {
		r.Logger.Warn("replica: site file", "problem", p)
	}
	if now.Source == setup.Nowhere {
		tell(false, now.Problems[0])
		return nil
	}
	err := r.applySite(ctx, now.Site)
	var refusal *state.Refusal
	if errors.As(err, &refusal) {
		r.file.set(append(now.Problems, "site file: "+refusal.Error()))
		tell(false, refusal.Error())
		return nil
	}
	if err != nil {
		return err
	}
	if now.Source == setup.Given {
		if err := r.siteFiles().KeepGiven(now.Text); err != nil {
			r.Logger.Warn("replica: site file", "error", err)
		}
	}
	if len(now.Problems) > 0 {
		tell(false, now.Problems[0])
		return nil
	}
	tell(true, fmt.Sprintf("site %q is applied", now.Site.Name))
	return nil
}

// applySite makes a site the applied one, unless it is already.
func (r *replica) applySite(ctx context.Context, s machine.Site) error {
	store := r.store.Load()
	applied, ok := store.View().Site()
	same, err := equal(applied, s)
	if err != nil || ok && same {
		return err
	}
	if err := r.checkProfiles(s); err != nil {
		return &state.Refusal{Text: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	if _, err := store.Propose(ctx, by, state.SiteApply{Site: s}); err != nil {
		return fmt.Errorf("applying the site file: %w", err)
	}
	return nil
}

// checkProfiles says what is wrong with what profiles give nodes in Kubernetes.
func (r *replica) checkProfiles(s machine.Site) error {
	if r.Plugins.CheckProfile == nil {
		return nil
	}
	for i, p := range s.Profiles {
		if err := r.Plugins.CheckProfile(p); err != nil {
			return fmt.Errorf("profiles[%d] (%s): %w", i, p.Name, err)
		}
	}
	return nil
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
