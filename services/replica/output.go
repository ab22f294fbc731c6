package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/rackseed/rackseed/services/events"
	"github.com/rackseed/rackseed/services/machine"
)

var _ events.Others = peers{}

// keepLimit bounds the wait for another replica to write a chunk of output.
const keepLimit = 5 * time.Second

// Keep has another replica keep a chunk: a voter, if there is another one. While
// this replica is the only voter its disk is the one that counts.
func (p peers) Keep(ctx context.Context, of machine.ID, stream string, text []byte) error {
	m := p.store.Load().Membership()
	var errs []error
	voters := 0
	for _, id := range p.Peers() {
		if !m.Voter(id) {
			continue
		}
		voters++
		one, cancel := context.WithTimeout(ctx, keepLimit)
		err := p.client().Keep(one, id, of, stream, text)
		cancel()
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	if voters == 0 {
		return nil
	}
	return fmt.Errorf("no other replica keeps it: %w", errors.Join(errs...))
}

// Chunk reads a chunk from whoever has it.
func (p peers) Chunk(ctx context.Context, c machine.Chunk) ([]byte, error) {
	var errs []error
	without := 0
	for _, id := range p.Peers() {
		one, cancel := context.WithTimeout(ctx, keepLimit)
		text, err := p.client().Chunk(one, id, c)
		cancel()
		if err == nil {
			return text, nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			without++
		} else {
			errs = append(errs, err)
		}
	}
	// One that is away may never come back: those that are there decide.
	if len(errs) > 0 && without == 0 {
		return nil, errors.Join(errs...)
	}
	return nil, fmt.Errorf("output %s of machine %s is on no replica: %w", c.Digest, c.Machine, fs.ErrNotExist)
}

// takes is this replica's output for the others, which may ask before it is open.
type takes struct{ *replica }

func (t takes) Take(ctx context.Context, of machine.ID, stream string, text []byte) error {
	log := t.output.Load()
	if log == nil {
		return errStarting
	}
	return log.Take(ctx, of, stream, text)
}

func (t takes) Kept(ctx context.Context, c machine.Chunk) ([]byte, error) {
	log := t.output.Load()
	if log == nil {
		return nil, errStarting
	}
	return log.Kept(ctx, c)
}
