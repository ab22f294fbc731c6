package api

import (
	"sync"
	"time"
)

const (
	// readingLifetime is how long a login lasts that was made while nobody led.
	readingLifetime = time.Hour
	mostReadings    = 64
)

// readings are the logins that a replica lets in by itself while no replica leads: no
// session can be committed then, and people need to see what is wrong. They only
// read, at this replica alone, and end when one leads.
type readings struct {
	mu   sync.Mutex
	open map[string]person // by the token's hash
}

func (r *readings) add(p person, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.open == nil {
		r.open = map[string]person{}
	}
	first := ""
	for hash, other := range r.open {
		switch {
		case !now.Before(other.expires):
			delete(r.open, hash)
		case first == "" || other.expires.Before(r.open[first].expires):
			first = hash
		}
	}
	if len(r.open) >= mostReadings {
		delete(r.open, first)
	}
	r.open[string(p.hash)] = p
}

// find finds who logged in to read; once another replica led since, it is over.
func (r *readings) find(hash []byte, epoch uint64, now time.Time) (person, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.open[string(hash)]
	return p, ok && p.epoch == epoch && now.Before(p.expires)
}

func (r *readings) end(hash []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, string(hash))
}

// led is whether a replica leads, as far as this one knows.
func (s *Server) led() bool { return s.Members == nil || s.Members.Membership().Leader != "" }

// epoch is of the newest leader that this replica's state knows.
func (s *Server) epoch() uint64 {
	cluster, _ := s.Store.View().Cluster()
	return cluster.Epoch
}

// identify decides who holds the token whose hash is given.
func (s *Server) identify(hash []byte) (person, bool) {
	if p, ok := identify(s.Store.View(), hash, s.Now()); ok {
		return p, true
	}
	if s.led() {
		return person{}, false
	}
	return s.readings.find(hash, s.epoch(), s.Now())
}

// openReading lets somebody in to read who has proved who they are.
func (s *Server) openReading(token, name string) Login {
	p := person{name: name, hash: hashToken(token), expires: s.Now().Add(readingLifetime).UTC().Truncate(time.Second), reads: true, epoch: s.epoch()}
	s.readings.add(p, s.Now())
	s.Logger.Warn("api: no replica leads, so a login only reads", "by", p.by())
	return Login{Name: name, Expires: p.expires, Reads: true}
}
