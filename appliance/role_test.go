package appliance

import "testing"

func TestRoleOf(t *testing.T) {
	for _, c := range []struct {
		argv0 string
		pid   int
		want  Role
	}{
		{"/init", 1, RoleInit},
		{"/init", 77, RoleCommand},
		{"/sbin/modprobe", 99, RoleModprobe},
		{"rackseed", 99, RoleCommand},
		{"/usr/local/bin/rackseed", 1, RoleCommand}, // a container
	} {
		if got := RoleOf(c.argv0, c.pid); got != c.want {
			t.Errorf("%s as process %d: role %d, want %d", c.argv0, c.pid, got, c.want)
		}
	}
}
