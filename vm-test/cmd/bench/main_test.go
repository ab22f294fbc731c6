package main

import (
	"slices"
	"strings"
	"testing"
)

func TestChosen(t *testing.T) {
	for _, c := range []struct {
		args string
		vm   bool
		want string
	}{
		{"", false, "go image-to-disk dora-fsync http-blob tftp-boot replica-copy"},
		{"", true, "go image-to-disk dora-fsync http-blob tftp-boot replica-copy silence iso-to-ready"},
		{"tftp-boot http-blob", false, "tftp-boot http-blob"},
		{"iso-to-ready", false, "iso-to-ready"},
	} {
		got, err := chosen(strings.Fields(c.args), c.vm)
		if err != nil || !slices.Equal(got, strings.Fields(c.want)) {
			t.Errorf("%q, vm %v: %v, %v", c.args, c.vm, got, err)
		}
		for _, name := range got {
			if !strings.Contains(usage, "\n  "+name+" ") {
				t.Errorf("the usage does not tell of %s", name)
			}
		}
	}
	if got, err := chosen([]string{"http-blob", "http"}, false); err == nil || !strings.Contains(err.Error(), `"http"`) {
		t.Errorf("an unknown name: %v, %v", got, err)
	}
}
