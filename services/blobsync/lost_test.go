package blobsync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/blob"
)

// sometimes are replicas of which some cannot be asked.
type sometimes struct {
	*others
	away map[string]bool
}

func (s sometimes) Size(ctx context.Context, peer string, d blob.Digest) (int64, error) {
	s.mu.Lock()
	away := s.away[peer]
	s.mu.Unlock()
	if away {
		return 0, errors.New("it is away")
	}
	return s.others.Size(ctx, peer, d)
}

// What every replica lacks is waited for by nobody, and named; as long as one that may
// have it is away, it is missing. Once it is there again, it comes.
func TestOnNoReplica(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, blobs := image(t, "a layer")
		i.Ref = "web:1"
		lost := maps.Clone(blobs)
		maps.DeleteFunc(lost, func(_ blob.Digest, text string) bool { return text == "a layer" })
		from := sometimes{&others{peers: []string{"a", "b"}, has: map[string]map[blob.Digest]string{"a": lost}}, map[string]bool{"b": true}}
		l := loop(store(t), nil, i)
		l.Source = from
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		done := make(chan error, 1)
		var health atomic.Value
		go func() { done <- l.Run(ctx, func(ok bool, text string) { health.Store(fmt.Sprint(ok, " ", text)) }) }()
		synctest.Wait()
		if s, told := l.Status(), health.Load().(string); s.Missing != 1 || s.Lost != "" || !strings.Contains(told, "are missing") || !strings.Contains(told, "it is away") {
			t.Errorf("one is away: %+v; %s", s, told)
		}
		next := func(change func()) { // change, and wait for the next try
			from.mu.Lock()
			change()
			from.mu.Unlock()
			time.Sleep(pauseMost)
			synctest.Wait()
		}
		next(func() { from.away["b"] = false })
		if s, told := l.Status(), health.Load().(string); !s.Counted || s.Missing != 0 || s.Bytes != 0 || s.Lost != "image web:1 is on no replica: push it again" || told != "false "+s.Lost {
			t.Errorf("all are there: %+v; %s", s, told)
		}
		next(func() { from.has["b"] = blobs })
		if s, told := l.Status(), health.Load().(string); s != (Status{Counted: true}) || !strings.HasPrefix(told, "true ") || !l.Blobs.Has(digestOf("a layer")) {
			t.Errorf("it was pushed again: %+v; %s", s, told)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLostWords(t *testing.T) {
	for want, refs := range map[string][]string{
		"": nil,
		"image node is on no replica: it comes back with the appliance, or with a replica that has it": {"node"},
		"image a:1 is on no replica: push it again; image b:1 is on no replica: push it again":         {"a:1", "b:1"},
	} {
		if got := lostWords(refs); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := lostWords(slices.Repeat([]string{"a:1"}, namedLost+2)); !strings.HasSuffix(got, "; and 2 images more are on none") {
		t.Errorf("many: %q", got)
	}
}
