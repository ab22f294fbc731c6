package machine

import (
	"regexp"
	"strings"
	"testing"
)

func TestIsHostName(t *testing.T) {
	for name, want := range map[string]bool{
		"node-1": true, "a": true, "7": true, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
		"": false, "-a": false, "a-": false, "Node": false, "a.b": false, "a_b": false, "a\n": false, "ä": false,
	} {
		if IsHostName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

func TestNewID(t *testing.T) {
	a, b := NewID(), NewID()
	if !regexp.MustCompile(`^m-[0-9a-f]{8}$`).MatchString(string(a)) || a == b {
		t.Errorf("%s, %s", a, b)
	}
}
