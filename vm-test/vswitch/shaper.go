package vswitch

import (
	"math/rand/v2"
	"time"
)

// Impairment is what is wrong with a link.
type Impairment struct {
	Loss  float64       // share of frames lost, 0 to 1
	Delay time.Duration // added to each frame
	Rate  int           // bytes a second; 0: unlimited
	Seed  uint64        // of the losses, so that a run can be repeated
}

// shaper decides for each frame whether it is lost and when it is due.
type shaper struct {
	Impairment
	random *rand.Rand
	free   time.Time // when the link has sent what it was given so far
}

func newShaper(i Impairment) shaper {
	return shaper{Impairment: i, random: rand.New(rand.NewPCG(i.Seed, i.Seed))}
}

func (s *shaper) plan(now time.Time, bytes int) (due time.Time, drop bool) {
	if s.Loss > 0 && s.random.Float64() < s.Loss {
		return time.Time{}, true
	}
	due = now
	if s.Rate > 0 {
		if s.free.Before(now) {
			s.free = now
		}
		s.free = s.free.Add(time.Duration(bytes) * time.Second / time.Duration(s.Rate))
		due = s.free
	}
	return due.Add(s.Delay), false
}
