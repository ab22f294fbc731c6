package machine

import (
	"fmt"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"
)

// Size is a number of bytes that is written as people write disks and memory:
// "480GB" (powers of 1000), "64GiB" (powers of 1024), "1.92TB".
type Size uint64

var (
	sizeForm  = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?(k|M|G|T|P)?(i)?B?$`)
	sizeUnits = []string{"k", "M", "G", "T", "P"}
)

// ParseSize reads a size.
func ParseSize(s string) (Size, error) {
	no := func() (Size, error) {
		return 0, fmt.Errorf("size %.40q: a number with a unit is expected, as 480GB, 1.92TB or 64GiB", s)
	}
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil || m[2] == "" && m[3] != "" {
		return no()
	}
	n, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return no()
	}
	base := 1000.0
	if m[3] != "" {
		base = 1024
	}
	for _, u := range sizeUnits {
		if m[2] == "" {
			break
		}
		n *= base
		if u == m[2] {
			break
		}
	}
	if n >= math.MaxInt64 {
		return no()
	}
	return Size(math.Round(n)), nil
}

// String writes the size in the largest unit that loses nothing.
func (s Size) String() string {
	for _, system := range []struct {
		base   uint64
		suffix string
	}{{1024, "iB"}, {1000, "B"}} {
		n, unit := uint64(s), ""
		for _, u := range sizeUnits {
			if n == 0 || n%system.base != 0 {
				break
			}
			n, unit = n/system.base, u
		}
		if unit != "" {
			return strconv.FormatUint(n, 10) + unit + system.suffix
		}
	}
	return strconv.FormatUint(uint64(s), 10) + "B"
}

func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s *Size) UnmarshalText(b []byte) error {
	v, err := ParseSize(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// glob compares without regard to case and to spaces around, which firmware
// pads its texts with. A pattern that is none matches nothing: the site file's
// check refuses it.
func glob(pattern, text string) bool {
	ok, err := path.Match(strings.ToLower(strings.TrimSpace(pattern)), strings.ToLower(strings.TrimSpace(text)))
	return ok && err == nil
}
