package pid1

import (
	"io/fs"
	"strconv"
)

// zombies lists the ended, unreaped children of a process, from /proc.
func zombies(proc fs.FS, parent int) []int {
	entries, err := fs.ReadDir(proc, ".")
	if err != nil {
		return nil
	}
	var list []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := fs.ReadFile(proc, e.Name()+"/stat")
		if err != nil { // ended and reaped meanwhile
			continue
		}
		if state, p, ok := parseStat(string(stat)); ok && state == 'Z' && p == parent {
			list = append(list, pid)
		}
	}
	return list
}
