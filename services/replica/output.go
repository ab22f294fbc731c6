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

// keepPatience is how long one voter is waited for to write a chunk of output before
// another one is asked, too.
const keepPatience = time.Second

// Keep has another replica keep a chunk: a voter, if there is another one. While
// this replica is the only voter its disk is the one that counts.
func (p peers) Keep(ctx context.Context, of machine.ID, stream string, text []byte) error {
	return p.slow.keep(ctx, p.voters(), func(ctx context.Context, id string) error {
		return p.client().Keep(ctx, id, of, stream, text)
	})
}

// keep has one of some voters do something, and remembers who was slow.
func (s *slowness) keep(ctx context.Context, voters []string, do func(ctx context.Context, id string) error) error {
	err := firstOf(ctx, voters, keepPatience, func(ctx context.Context, id string) error {
		_, err := ask(ctx, s, id, keepPatience, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx, id) })
		return err
	})
	if err != nil {
		return fmt.Errorf("no other replica keeps it: %w", err)
	}
	return nil
}

// Chunk reads a chunk from whoever has it.
func (p peers) Chunk(ctx context.Context, c machine.Chunk) ([]byte, error) {
	var errs []error
	without := 0
	for _, id := range p.Peers() {
		text, err := ask(ctx, &p.slow, id, askLimit, func(ctx context.Context) ([]byte, error) { return p.client().Chunk(ctx, id, c) })
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
