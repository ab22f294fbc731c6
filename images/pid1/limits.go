package pid1

import (
	"fmt"
	"syscall"
)

// SetOpenFiles sets how many files this process and what it starts may have
// open, soft and hard. The kernel gives PID 1 1024 and 4096. (Through package
// syscall: with it Go forgets the soft limit that it keeps for what is started.)
func SetOpenFiles(n uint64) error {
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}); err != nil {
		return fmt.Errorf("limit of %d open files: %w", n, err)
	}
	return nil
}
