package main

import (
	"slices"
	"testing"
)

func TestRoleOf(t *testing.T) {
	for _, c := range []struct {
		argv0 string
		pid   int
		want  role
	}{
		{"/init", 1, roleAppliance},
		{"/init", 77, roleCommand},
		{"/sbin/modprobe", 99, roleModprobe},
		{"rackseed", 99, roleCommand},
		{"/usr/local/bin/rackseed", 1, roleCommand}, // a container
	} {
		if got := roleOf(c.argv0, c.pid); got != c.want {
			t.Errorf("%s as process %d: role %d, want %d", c.argv0, c.pid, got, c.want)
		}
	}
}

func TestCommands(t *testing.T) {
	var names []string
	for _, c := range root().Commands() {
		names = append(names, c.Name())
		if c.Short == "" || c.GroupID == "" {
			t.Errorf("%s has no description or group", c.Name())
		}
	}
	for _, want := range []string{"serve", "node", "setup", "login", "machines", "approve", "kubeconfig", "site"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no command %s among %v", want, names)
		}
	}
}
