package state

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/raft"
)

// Past is what a folder of the state holds, read without Raft: nothing is written
// by it, nobody leads, and nobody is heard.
type Past struct {
	// View has all entries of the log, also those at its end of which nobody can say
	// now whether they were committed.
	View View
	// Members are those of the newest configuration, and Configured its entry.
	Members    []Member
	Configured uint64
	Last       uint64 // the newest entry
	Term       uint64 // the newest that was heard of

	close func() error
}

// Alone says whether a server is the only voter.
func (p *Past) Alone(id string) bool {
	return slices.Equal((Membership{Members: p.Members}).Voters(), []string{id})
}

// Close lets other processes have the folder.
func (p *Past) Close() error { return p.close() }

// ReadPast reads the state in a folder, and keeps every other process off it until
// Close. fs.ErrNotExist: there is none, or nothing was written to it yet.
func ReadPast(config Config) (*Past, error) {
	if _, err := os.Stat(filepath.Join(config.Dir, "raft")); err != nil {
		return nil, fmt.Errorf("state in %s: %w", config.Dir, err)
	}
	var halted error
	s := offline(config)
	s.config.Halt = func(err error) { halted = err }
	p := &Past{close: s.closeStores}
	err := s.readPast(p)
	if err = cmp.Or(err, halted); err != nil {
		return nil, errors.Join(fmt.Errorf("state in %s: %w", config.Dir, err), s.closeStores())
	}
	return p, nil
}

// offline is a store without Raft.
func offline(config Config) *Store {
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	config.segment = cmp.Or(config.segment, segmentSize)
	return &Store{config: config}
}

func (s *Store) readPast(p *Past) (err error) {
	if s.fsm, err = newFSM(maxEvents, s.config.Halt, s.config.Logger); err != nil {
		return err
	}
	kept, err := s.openStores()
	if err != nil {
		return err
	}
	if begun, err := kept.begun(s.config.Dir); err != nil || !begun {
		return cmp.Or(err, error(fs.ErrNotExist))
	}
	if p.Term, err = kept.term(); err != nil {
		return err
	}
	list, err := kept.snapshots.List()
	if err != nil {
		return err
	}
	for _, meta := range list { // the newest first; begun found one that can be read, if any is there
		content, err := readable(kept.snapshots, meta.ID)
		if err != nil {
			continue
		}
		if err := s.fsm.Restore(content); err != nil {
			return err
		}
		p.configure(meta.ConfigurationIndex, meta.Configuration)
		p.Last = meta.Index
		break
	}
	last, err := kept.log.LastIndex()
	if err != nil {
		return err
	}
	for index := p.Last + 1; index <= last; {
		var batch []*raft.Log
		for ; index <= last && len(batch) < cachedEntries; index++ {
			var l raft.Log
			if err := kept.log.GetLog(index, &l); err != nil {
				return fmt.Errorf("entry %d of the log: %w", index, err)
			}
			if l.Type == raft.LogConfiguration {
				p.configure(l.Index, raft.DecodeConfiguration(l.Data))
			}
			p.Last, p.Term = l.Index, max(p.Term, l.Term)
			batch = append(batch, &l)
		}
		s.fsm.ApplyBatch(batch)
	}
	p.View = s.fsm.view()
	return nil
}

func (p *Past) configure(index uint64, c raft.Configuration) {
	p.Members, p.Configured = nil, index
	for _, x := range c.Servers {
		p.Members = append(p.Members, Member{string(x.ID), x.Suffrage == raft.Voter})
	}
	slices.SortFunc(p.Members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
}
