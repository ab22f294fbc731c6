package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

const (
	// maxLines that wait for the boot service. kubeadm writes a few hundred.
	maxLines = 4096
	// maxLine is the longest line that is kept, in bytes; the boot service
	// cuts there too.
	maxLine = 8 << 10
	// sendLines and sendBytes go in one request at most; with every byte
	// escaped to six in JSON they are within wire.MaxBody.
	sendLines = 1000
	sendBytes = 512 << 10
)

// output numbers the node's lines and sends them until they are committed.
// When it is full, new lines are counted instead of kept: the first error
// matters more than its thousandth repetition.
type output struct {
	client *client
	stream string
	log    *slog.Logger

	mu      sync.Mutex
	lines   []string
	dropped int
	wake    chan struct{} // holds one value while lines wait
}

func newOutput(c *client, stream string, log *slog.Logger) *output {
	return &output{client: c, stream: stream, log: log, wake: make(chan struct{}, 1)}
}

// bootstrapToken is kubeadm's secret by which nodes join
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
var bootstrapToken = regexp.MustCompile(`\b([a-z0-9]{6})\.[a-z0-9]{16}\b`)

// clean makes a line fit to be shown: valid UTF-8, without control characters,
// no longer than maxLine, and without bootstrap tokens, which kubeadm is told
// not to print but some of its errors quote.
func clean(line string) string {
	line = strings.ToValidUTF8(strings.TrimRight(line, "\r\n"), "\uFFFD")
	line = strings.Map(func(r rune) rune {
		if r < 0x20 && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, line)
	line = bootstrapToken.ReplaceAllString(line, "$1.****************")
	if len(line) > maxLine {
		const mark = " … (cut)"
		line = strings.ToValidUTF8(line[:maxLine-len(mark)], "") + mark
	}
	return line
}

// Print takes a line. It never waits.
func (o *output) Print(line string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.lines) >= maxLines {
		o.dropped++
		return
	}
	if o.dropped > 0 {
		o.lines = append(o.lines, fmt.Sprintf("… %d lines were not kept: the boot service could not be reached in time", o.dropped))
		o.dropped = 0
	}
	o.lines = append(o.lines, clean(line))
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// Run sends until the context ends. Without a line it first asks for the next
// number: an earlier agent of the same boot may have sent some.
func (o *output) Run(ctx context.Context) error {
	var next uint64
	retry := backoff{first: time.Second, most: 15 * time.Second}
	for {
		lines := o.head()
		if len(lines) == 0 && next > 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-o.wake:
			}
			continue
		}
		if next == 0 {
			lines = nil
		}
		var reply wire.OutputReply
		err := o.client.call(ctx, http.MethodPost, wire.PathOutput,
			wire.Output{Stream: o.stream, First: max(next, 1), Lines: lines}, &reply)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			o.log.Warn("sending output", "stream", o.stream, "first", max(next, 1), "error", err)
			if !retry.wait(ctx) {
				return nil
			}
			// A refused number is asked for anew.
			if final(err) {
				next = 0
			}
			continue
		}
		retry.reset()
		if next > 0 {
			o.drop(acknowledged(next, reply.Next, len(lines)))
		}
		next = max(reply.Next, 1)
	}
}

// acknowledged says how many of n lines from number first on are committed when
// the boot service asks for next.
func acknowledged(first, next uint64, n int) int {
	if next <= first {
		return 0
	}
	return int(min(next-first, uint64(n)))
}

// head is what goes in the next request: at least one line, if there is one.
func (o *output) head() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, size := 0, 0
	for n < min(len(o.lines), sendLines) {
		if size += len(o.lines[n]); size > sendBytes && n > 0 {
			break
		}
		n++
	}
	return o.lines[:n:n]
}

func (o *output) drop(n int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.lines = append([]string(nil), o.lines[n:]...)
}
