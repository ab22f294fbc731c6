package support

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestRing(t *testing.T) {
	var none *Ring
	if b := none.Bytes(); b != nil {
		t.Errorf("none keeps %q", b)
	}
	r := &Ring{}
	const lines = 100_000
	for n := range lines {
		fmt.Fprintf(r, "line %d\n", n)
	}
	b := r.Bytes()
	if len(b) < ringBytes || len(b) > 2*ringBytes {
		t.Errorf("%d bytes are kept", len(b))
	}
	if !bytes.HasPrefix(b, []byte("line ")) || !strings.HasSuffix(string(b), fmt.Sprintf("line %d\n", lines-1)) {
		t.Errorf("it begins with %.20q and ends with %q", b, b[len(b)-20:])
	}
	// A line that never ends is kept in part.
	if _, err := r.Write(make([]byte, 3*ringBytes)); err != nil || len(r.Bytes()) != ringBytes {
		t.Errorf("%v, %d bytes", err, len(r.Bytes()))
	}
}
