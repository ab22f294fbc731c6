package appliance

import "path/filepath"

// Role is what a program of the appliance's initramfs is, by how it was
// started.
type Role int

const (
	RoleCommand  Role = iota // what its arguments say
	RoleInit                 // PID 1 of the stick
	RoleModprobe             // what the kernel calls for a module
)

// RoleOf says what the program is by how it was started. In the appliance's
// initramfs it is /init, and /sbin/modprobe is a link to it. PID 1 by another
// name is a container's: there the arguments count.
func RoleOf(argv0 string, pid int) Role {
	switch name := filepath.Base(argv0); {
	case name == "modprobe":
		return RoleModprobe
	case name == "init" && pid == 1:
		return RoleInit
	}
	return RoleCommand
}
