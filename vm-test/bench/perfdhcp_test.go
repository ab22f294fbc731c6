package bench

import (
	"os"
	"strings"
	"testing"
)

// The report is one of Kea 2.6.3's perfdhcp.
func TestReadPerfdhcp(t *testing.T) {
	b, err := os.ReadFile("testdata/perfdhcp.txt")
	if err != nil {
		t.Fatal(err)
	}
	got, err := readPerfdhcp(string(b))
	if want := (exchanges{asked: 19999, complete: 18145}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	half, _, _ := strings.Cut(string(b), "***Statistics for: REQUEST-ACK")
	for name, report := range map[string]string{"nothing": "", "half": half} {
		if got, err := readPerfdhcp(report); err == nil {
			t.Errorf("%s was read as %+v", name, got)
		}
	}
}
