package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

// errWrite marks an error of the target, which no other transfer heals.
var errWrite = errors.New("writing")

// errMismatch says that the bytes are not those that were promised.
var errMismatch = errors.New("digest mismatch")

// Fetch streams a blob to w from offset 0 on and verifies it while it is
// written. A connection that is cut or stalls is taken up where it stopped, for
// as long as ctx lasts. Bytes that do not match are fetched once more from the
// beginning. progress is told how many bytes are written; it may be nil.
func (c *Client) Fetch(ctx context.Context, f wire.File, w io.WriterAt, progress func(done int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	want, ok := strings.CutPrefix(f.Digest, "sha256:")
	if raw, err := hex.DecodeString(want); !ok || err != nil || len(raw) != sha256.Size || f.Size < 0 {
		return fmt.Errorf("blob %s: its digest %q or size %d is not valid", f.Name, f.Digest, f.Size)
	}
	for again := false; ; again = true {
		t := &transfer{file: f, w: w, sum: sha256.New(), progress: progress}
		err := c.Retry(ctx, "blob "+f.Name, func(err error) bool { return errors.Is(err, errWrite) || Permanent(err) },
			func(ctx context.Context) error { return c.fetchRest(ctx, t) })
		if err != nil {
			return fmt.Errorf("%w (at %d of %d bytes)", err, t.done, f.Size)
		}
		if got := hex.EncodeToString(t.sum.Sum(nil)); got != want {
			if !again {
				c.log.Warn("a blob does not match its digest and is fetched again", "blob", f.Name, "want", want, "got", got)
				continue
			}
			return fmt.Errorf("blob %s: %w: %s was promised, %s came, twice; check the boot service's store", f.Name, errMismatch, want, got)
		}
		return nil
	}
}

// transfer is how far a blob has come; it outlives connections.
type transfer struct {
	file     wire.File
	w        io.WriterAt
	sum      hash.Hash
	done     int64
	progress func(int64)
}

// fetchRest asks for the bytes from t.done on.
func (c *Client) fetchRest(ctx context.Context, t *transfer) error {
	if t.done == t.file.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(c.stall, func() { cancel(fmt.Errorf("no byte came for %s", c.stall)) })
	defer stalled.Stop() // runs until the head has come, and then in each read

	r, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+wire.PathBlob+t.file.Digest+"/"+t.file.Name, nil)
	if err != nil {
		return err
	}
	if t.done > 0 {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.done))
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return explain(ctx, err)
	}
	defer resp.Body.Close()
	body := watched{resp.Body, stalled, c.stall}
	switch {
	case resp.StatusCode == http.StatusPartialContent:
		if start := fmt.Sprintf("bytes %d-", t.done); !strings.HasPrefix(resp.Header.Get("Content-Range"), start) {
			return fmt.Errorf("the boot service sends range %q, %s… was asked for", resp.Header.Get("Content-Range"), start)
		}
	case resp.StatusCode == http.StatusOK:
		if _, err := io.CopyN(io.Discard, body, t.done); err != nil {
			return explain(ctx, err)
		}
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		return &StatusError{resp.StatusCode, fmt.Sprintf("its copy ends before byte %d of %d; check the boot service's store", t.done, t.file.Size)}
	default:
		text, err := io.ReadAll(io.LimitReader(body, 64<<10))
		if err != nil {
			return explain(ctx, err)
		}
		return statusError(resp.StatusCode, text)
	}
	return t.copy(ctx, body)
}

// watched lets its timer run only while a byte is waited for: a disk that is
// slow to take what came before is not a boot service that is away.
type watched struct {
	r     io.Reader
	timer *time.Timer
	limit time.Duration
}

func (w watched) Read(b []byte) (int, error) {
	w.timer.Reset(w.limit)
	defer w.timer.Stop()
	return w.r.Read(b)
}

// copy reads on while what was read before is written and hashed: on a slow
// processor either takes as long as the network. Hashing beside the writing was
// tried and gained nothing: without instructions for it the hash alone is nine
// tenths of the time. When it returns, everything that counts in t.done is
// written.
func (t *transfer) copy(ctx context.Context, body io.Reader) error {
	free, full := make(chan []byte, buffers), make(chan []byte, buffers)
	for range buffers {
		free <- make([]byte, bufferBytes)
	}
	broken := make(chan error, 1) // the target failed; nothing more is written
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		failed := false
		for b := range full {
			if !failed {
				if err := t.put(b); err != nil {
					failed = true
					broken <- err
				}
			}
			free <- b[:bufferBytes]
		}
	}()
	err := t.read(body, free, full, broken)
	close(full)
	<-drained
	select {
	case failed := <-broken: // with the last buffers
		err = failed
	default:
	}
	if err == nil || errors.Is(err, errWrite) || t.done == t.file.Size {
		return err
	}
	return fmt.Errorf("cut off after %d of %d bytes: %w", t.done, t.file.Size, explain(ctx, err))
}

const (
	buffers     = 4
	bufferBytes = 1 << 20
)

// read fills buffers until the file's end, an error of the body, or one of the
// target.
func (t *transfer) read(body io.Reader, free, full chan []byte, broken chan error) error {
	for at := t.done; at < t.file.Size; {
		var b []byte
		select {
		case err := <-broken:
			return err
		case b = <-free:
		}
		n, err := io.ReadFull(body, b[:min(bufferBytes, t.file.Size-at)])
		if n > 0 {
			at += int64(n)
			full <- b[:n]
		}
		if err != nil && at < t.file.Size {
			return err
		}
	}
	return nil
}

// put writes the next bytes and takes them into the hash.
func (t *transfer) put(b []byte) error {
	if _, err := t.w.WriteAt(b, t.done); err != nil {
		return fmt.Errorf("%w at byte %d: %w", errWrite, t.done, err)
	}
	t.sum.Write(b) // never fails (hash.Hash)
	t.done += int64(len(b))
	t.progress(t.done)
	return nil
}

// explain prefers why the context ended over that it did.
func explain(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
