package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

// service takes lines as the boot service does, and loses answers on demand.
type service struct {
	t     *testing.T
	lines []string
	fail  int // posts that fail before being taken
	lose  int // posts that are taken and whose answer is lost
	calls int
}

func (s *service) post(_ context.Context, o wire.Output) (uint64, error) {
	s.calls++
	if s.fail > 0 {
		s.fail--
		return 0, errors.New("unreachable")
	}
	next := uint64(len(s.lines)) + 1
	if o.First > next {
		s.t.Errorf("lines from %d on were sent, %d is next", o.First, next)
		return next, nil
	}
	if skip := next - o.First; skip < uint64(len(o.Lines)) {
		s.lines = append(s.lines, o.Lines[skip:]...)
	}
	if s.lose > 0 {
		s.lose--
		return 0, errors.New("cut off")
	}
	return uint64(len(s.lines)) + 1, nil
}

func TestSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &service{t: t, fail: 2, lose: 1}
		j := New(Limit)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { j.Send(ctx, "s", s.post, slog.New(slog.DiscardHandler)); close(done) }()
		var want []string
		for i := range 2500 {
			line := fmt.Sprintf("line %d", i)
			j.Append(line + "\n")
			want = append(want, line)
			if i%500 == 0 {
				time.Sleep(100 * time.Millisecond) // virtual time
			}
		}
		j.Flush(ctx)
		if strings.Join(s.lines, "\n") != strings.Join(want, "\n") {
			t.Errorf("%d lines arrived, of %d", len(s.lines), len(want))
		}
		calls := s.calls
		time.Sleep(time.Hour)
		if s.calls != calls {
			t.Errorf("%d posts of nothing", s.calls-calls)
		}
		cancel()
		<-done
	})
}

func TestBounded(t *testing.T) {
	j := New(10)
	j.Append("first")
	if _, lines := j.next(); len(lines) != 1 {
		t.Fatal("the first batch holds one line")
	}
	for i := range 100 {
		j.Append(fmt.Sprint(i))
	}
	if first, lines := j.next(); first != 1 || len(lines) != 1 {
		t.Errorf("what is in flight must stay as it is: %d, %q", first, lines)
	}
	j.ack(2)
	first, lines := j.next()
	if first != 2 || len(lines) != 11 || lines[0] != "[90 lines were dropped: the boot service was not reached]" || lines[1] != "90" {
		t.Errorf("from %d: %q", first, lines)
	}
}

func TestAck(t *testing.T) {
	j := New(Limit)
	for i := range 5 {
		j.Append(fmt.Sprint(i))
	}
	j.next()
	j.ack(3)
	if first, lines := j.next(); first != 3 || strings.Join(lines, "") != "234" {
		t.Errorf("from %d: %q", first, lines)
	}
	j.ack(6)
	j.Append("5")
	if first, lines := j.next(); first != 6 || strings.Join(lines, "") != "5" {
		t.Errorf("from %d: %q", first, lines)
	}
	j.Restart()
	if first, lines := j.next(); first != 1 || len(lines) != 1 {
		t.Errorf("a new stream, from %d: %q", first, lines)
	}
}

func TestAppendCleans(t *testing.T) {
	j := New(Limit)
	j.Append("a\nb\xff\r\n")
	j.Append(strings.Repeat("é", 4096))
	_, lines := j.next()
	if lines[0] != "a b?" || len(lines[1]) > 4100 || !strings.HasSuffix(lines[1], "é…") {
		t.Errorf("%q, %d bytes", lines[0], len(lines[1]))
	}
}
