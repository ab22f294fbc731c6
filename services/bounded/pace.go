package bounded

import (
	"io"
	"net/http"
	"time"
)

// Pace is how fast a transfer over HTTP has to get on, so that whoever is slow
// does not hold the places of others.
type Pace struct {
	Stall   time.Duration // how long it may stand still
	Slowest int64         // bytes a second below which it is cut, on the whole
	Grace   time.Duration // a start for which Slowest does not count
}

// deadline is when the step must be over with which moved bytes are through.
func (p Pace) deadline(began, now time.Time, moved int64) time.Time {
	still := now.Add(p.Stall)
	slow := began.Add(p.Grace + time.Duration(moved/p.Slowest)*time.Second)
	if slow.Before(still) {
		return slow
	}
	return still
}

// Answer is w with a deadline for each write. A ResponseWriter that has no
// deadlines, as in a test without a socket, has nobody slow behind it either.
func (p Pace) Answer(w http.ResponseWriter) http.ResponseWriter {
	return &answer{ResponseWriter: w, pace: p, began: time.Now()}
}

type answer struct {
	http.ResponseWriter
	pace  Pace
	began time.Time
	sent  int64
}

func (a *answer) Write(b []byte) (int, error) {
	a.expect(int64(len(b)))
	n, err := a.ResponseWriter.Write(b)
	a.sent += int64(n)
	return n, err
}

// expect sets the deadline for the next n bytes.
func (a *answer) expect(n int64) {
	until := a.pace.deadline(a.began, time.Now(), a.sent+n)
	c := http.NewResponseController(a.ResponseWriter)
	// Both: the server reads while a handler writes, to see a client go, and
	// a read whose time is over ends the request.
	_ = c.SetReadDeadline(until)
	_ = c.SetWriteDeadline(until)
}

// piece is how much of a file is handed to the kernel under one deadline.
const piece = 256 << 10

// ReadFrom keeps the kernel's sendfile, which http looks for on the
// ResponseWriter: a file goes out in pieces, each with its deadline.
func (a *answer) ReadFrom(from io.Reader) (total int64, err error) {
	to, ok := a.ResponseWriter.(io.ReaderFrom)
	whole, limited := from.(*io.LimitedReader)
	if !ok || !limited {
		return io.Copy(struct{ io.Writer }{a}, from)
	}
	for whole.N > 0 {
		part := min(whole.N, piece)
		a.expect(part)
		n, err := to.ReadFrom(&io.LimitedReader{R: whole.R, N: part})
		whole.N, a.sent, total = whole.N-n, a.sent+n, total+n
		if err != nil || n < part {
			return total, err
		}
	}
	return total, nil
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Body is a request's body with a deadline for each read, and none once all of
// it was read: what the handler does with it may take its time. After any other
// end the last deadline stays, since the server goes on reading for a while.
func (p Pace) Body(w http.ResponseWriter, from io.ReadCloser) io.ReadCloser {
	return &body{ReadCloser: from, control: http.NewResponseController(w), pace: p, began: time.Now()}
}

type body struct {
	io.ReadCloser
	control *http.ResponseController
	pace    Pace
	began   time.Time
	read    int64
}

func (r *body) Read(b []byte) (int, error) {
	_ = r.control.SetReadDeadline(r.pace.deadline(r.began, time.Now(), r.read+int64(len(b))))
	n, err := r.ReadCloser.Read(b)
	r.read += int64(n)
	if err == io.EOF {
		_ = r.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
