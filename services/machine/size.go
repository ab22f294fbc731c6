package machine

import (
	"fmt"
	"math/big"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Size is a number of bytes that is written as people write disks and memory:
// "480GB" (powers of 1000), "64GiB" (powers of 1024), "1.92TB".
type Size uint64

var (
	sizeForm  = regexp.MustCompile(`(?i)^([0-9]{1,19})(\.[0-9]{1,9})? ?(?:([kMGTP])(i)?B?|B)$`)
	sizeUnits = []string{"k", "M", "G", "T", "P"}
)

// ParseSize reads a size. It needs a unit: without one it would be bytes, which
// nobody means.
func ParseSize(s string) (Size, error) {
	no := func() (Size, error) {
		return 0, fmt.Errorf("size %.40q: a number with a unit is expected, as 480GB, 1.92TB or 64GiB", s)
	}
	m := sizeForm.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return no()
	}
	n, ok := new(big.Rat).SetString(m[1] + m[2])
	if !ok {
		return no()
	}
	base := int64(1000)
	if m[4] != "" {
		base = 1024
	}
	power := 1 + slices.IndexFunc(sizeUnits, func(u string) bool { return strings.EqualFold(u, m[3]) })
	n.Mul(n, new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(int64(power)), nil)))
	bytes := new(big.Int).Quo(n.Num(), n.Denom())
	if !bytes.IsInt64() {
		return no()
	}
	return Size(bytes.Int64()), nil
}

// String writes the size in the unit, of both systems, that makes the smallest
// number of it and loses nothing.
func (s Size) String() string {
	best, suffix := uint64(s), "B"
	for _, system := range []struct {
		base   uint64
		suffix string
	}{{1000, "B"}, {1024, "iB"}} {
		n := uint64(s)
		for _, u := range sizeUnits {
			if n == 0 || n%system.base != 0 {
				break
			}
			if n /= system.base; n < best {
				best, suffix = n, u+system.suffix
			}
		}
	}
	if suffix == "kiB" {
		suffix = "KiB" // IEC 80000-13 writes it so
	}
	return strconv.FormatUint(best, 10) + suffix
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
// pads its texts with. A slash is a letter like others. A pattern that is none
// matches nothing: the site file's check refuses it.
func glob(pattern, text string) bool {
	ok, err := path.Match(globText(pattern), globText(text))
	return ok && err == nil
}

// globText is what path.Match takes in place of a text: without the slashes,
// at which its stars end.
func globText(s string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimSpace(s)), "/", "\x00")
}
