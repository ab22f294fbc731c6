package medium

import (
	"bytes"
	"testing"
)

// A CD has the image's table, and its drive has sectors of 2048 bytes.
func TestSitePlace(t *testing.T) {
	f := stick(t, 400<<20)
	offset, n, err := sitePlace(f, 400<<20)
	if err != nil || offset != 700416*512 || n != (760000-700416+1)*512 {
		t.Errorf("%d bytes at %d, %v", n, offset, err)
	}
	if _, _, err := sitePlace(bytes.NewReader(make([]byte, 1<<20)), 1<<20); err == nil {
		t.Error("found on an empty medium")
	}
}
