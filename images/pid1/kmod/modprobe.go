package kmod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"path/filepath"
	"strings"
)

// IsModprobe says whether the program was started under modprobe's name.
func IsModprobe(argv0 string) bool { return filepath.Base(argv0) == "modprobe" }

// modprobeCall is what modprobe's command line asks for.
type modprobeCall struct {
	quiet bool
	all   bool // every word is a module; without it, those after the first are its parameters
	words []string
}

// parseModprobe understands what the kernel ("-q -- NAME") and Debian's units
// ("-abq NAME …") use. Removing modules is not among it.
func parseModprobe(args []string) (modprobeCall, error) {
	var c modprobeCall
	options := true
	for _, a := range args {
		switch {
		case options && a == "--":
			options = false
		case options && a == "--quiet":
			c.quiet = true
		case options && a == "--all":
			c.all = true
		case options && (a == "--use-blacklist" || a == "--verbose" || a == "--syslog"):
		case options && strings.HasPrefix(a, "--"):
			return c, fmt.Errorf("modprobe: option %s is not understood", a)
		case options && len(a) > 1 && a[0] == '-':
			for _, letter := range a[1:] {
				switch letter {
				case 'q':
					c.quiet = true
				case 'a':
					c.all = true
				case 'b', 'v', 's':
				default:
					return c, fmt.Errorf("modprobe: option -%c is not understood", letter)
				}
			}
		default:
			c.words = append(c.words, a)
		}
	}
	if len(c.words) == 0 {
		return c, errors.New("modprobe: no module is named")
	}
	if !c.all {
		c.words = c.words[:1]
	}
	return c, nil
}

// Modprobe acts as modprobe(8) and returns its exit status. args are without
// the program's name.
func Modprobe(args []string, stderr io.Writer) int {
	call, err := parseModprobe(args)
	if err == nil {
		var l *Loader
		l, err = open(slog.New(slog.DiscardHandler), func(dir fs.FS) (*Index, error) { return readIndexFor(dir, call.words) })
		if err == nil {
			err = l.Load(call.words...)
		}
	}
	if err == nil {
		return 0
	}
	if !call.quiet {
		fmt.Fprintln(stderr, err) // nowhere to tell if this fails
	}
	return 1
}
