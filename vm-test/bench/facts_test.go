package bench

import (
	"strings"
	"testing"
)

func TestFirstVersion(t *testing.T) {
	for said, want := range map[string]string{
		"curl 8.14.1 (x86_64-pc-linux-gnu) libcurl/8.14.1": "8.14.1",
		"2.6.3\n":                     "2.6.3",
		"tftp-hpa 5.3, with remap":    "5.3",
		"atftp-0.8.0 (server)":        "0.8.0",
		"nginx version: nginx/1.26.3": "1.26.3",
		"dd (coreutils) 9.1\n\nCop":   "9.1",
		"none":                        "of an unknown version",
		"":                            "of an unknown version",
	} {
		if got := firstVersion([]byte(said)); got != want {
			t.Errorf("%q: got %q, want %q", said, got, want)
		}
	}
}

func TestCPUModel(t *testing.T) {
	if got := cpuModel([]byte("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.00GHz\n")); got != "Some CPU @ 2.00GHz" {
		t.Errorf("got %q", got)
	}
	if got := cpuModel(nil); got != "an unknown model" {
		t.Errorf("got %q", got)
	}
}

func TestOnDisk(t *testing.T) {
	if err := onDisk("/proc"); err != nil {
		t.Errorf("not in memory: %v", err)
	}
	if err := onDisk("/dev/shm"); err == nil || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("in memory: %v", err)
	}
	if err := onDisk("/nowhere"); err == nil || !strings.Contains(err.Error(), "/nowhere") {
		t.Errorf("nowhere: %v", err)
	}
}
