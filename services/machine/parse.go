package machine

import (
	"fmt"
	"net"
	"strings"
	"time"
)

// ParseMAC reads an Ethernet hardware address in any usual notation.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(strings.TrimSpace(s))
	if err != nil || len(hw) != 6 {
		return "", fmt.Errorf("hardware address %q: six hex octets are expected, as 52:54:00:12:34:56", s)
	}
	return MAC(hw.String()), nil
}

// UnmarshalText canonicalises, so that a MAC that was decoded can be compared.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = ""
		return nil
	}
	v, err := ParseMAC(string(b))
	if err != nil {
		return err
	}
	*m = v
	return nil
}

// MarshalText makes MAC usable as a map key and in JSON.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m), nil }

// Duration is a time.Duration that is written "1h30m".
type Duration time.Duration

func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("duration %q: expected as 90s, 30m or 1h30m", b)
	}
	*d = Duration(v)
	return nil
}
