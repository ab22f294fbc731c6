// Package alone keeps what make starts apart from another of its kind: by a lock
// on its folder, and by the ports of loopback that it takes. Errors name the
// variable of make that is the way out.
package alone

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Number is a variable of make, from the environment: otherwise if it is empty,
// and an error if it is no number from least to most.
func Number(variable string, otherwise, least, most int) (int, error) {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%s=%s: expected a number from %d to %d", variable, text, least, most)
	}
	return n, nil
}

// Port is one that a variable of make chooses.
type Port struct {
	Variable string
	Number   int
}

// Ports reads those that variables choose, or else their standard ones.
func Ports(standard ...Port) ([]Port, error) {
	ports := make([]Port, len(standard))
	for i, p := range standard {
		n, err := Number(p.Variable, p.Number, 1, 65535)
		if err != nil {
			return nil, err
		}
		for _, other := range ports[:i] {
			if other.Number == n {
				return nil, fmt.Errorf("%s=%d and %s=%d: expected two ports", other.Variable, n, p.Variable, n)
			}
		}
		ports[i] = Port{p.Variable, n}
	}
	return ports, nil
}

// Free says which port on loopback somebody has already. target is what make was
// told.
func Free(target string, ports ...Port) error {
	for _, p := range ports {
		if err := free(p.Number); err != nil {
			return fmt.Errorf("%s=%d: %w: another program has it; choose another port, as make %s %s=%d", p.Variable, p.Number, err, target, p.Variable, next(p.Number))
		}
	}
	return nil
}

func free(port int) error {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}

// next is the next port that is free, as far as can be seen.
func next(port int) int {
	for n := port + 1; n < port+100 && n <= 65535; n++ {
		if free(n) == nil {
			return n
		}
	}
	return port + 1
}

// Second is the command for another one beside one that runs: with a folder and
// ports of its own.
func Second(target, variable, dir string, ports ...Port) string {
	words := []string{"make", target, variable + "=" + dir + "2"}
	for _, p := range ports {
		words = append(words, fmt.Sprintf("%s=%d", p.Variable, next(p.Number)))
	}
	return strings.Join(words, " ")
}

// BusyError says that a folder is taken.
type BusyError struct{ Dir, Who, PID string }

func (e *BusyError) Error() string {
	if e.PID == "" { // it has the lock, and did not write that yet
		return e.Dir + ": another one runs there already; end it with Ctrl-C there"
	}
	return fmt.Sprintf("%s: %s runs there already; end it with Ctrl-C there, or by: kill %s", e.Dir, e.Who, e.PID)
}

// Lock takes a folder until unlock, or the end of this process. who is what the
// *BusyError of others says of this one, in one line.
func Lock(dir, who string) (unlock func(), err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("%s: lock: %w", f.Name(), err), f.Close())
		}
		text, _ := io.ReadAll(io.LimitReader(f, 1024)) // without it the error says less
		if err := f.Close(); err != nil {
			return nil, err
		}
		who, pid, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
		return nil, &BusyError{dir, who, pid}
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := fmt.Fprintf(f, "%s\n%d\n", who, os.Getpid()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
