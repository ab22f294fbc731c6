package pid1

import (
	"fmt"
	"os"
	"strings"
)

// CommandLine is the kernel's command line, in order.
type CommandLine []Argument

// Argument is KEY=VALUE, or KEY alone.
type Argument struct {
	Key, Value string
	HasValue   bool
}

// ReadCommandLine reads /proc/cmdline.
func ReadCommandLine() (CommandLine, error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, fmt.Errorf("the kernel's command line: %w", err)
	}
	return ParseCommandLine(string(b)), nil
}

// ParseCommandLine splits as the kernel does: at white space outside of double
// quotes, which are dropped.
func ParseCommandLine(s string) CommandLine {
	var list CommandLine
	var word strings.Builder
	quoted, any := false, false
	end := func() {
		if any {
			key, value, found := strings.Cut(word.String(), "=")
			list = append(list, Argument{key, value, found})
		}
		word.Reset()
		any = false
	}
	for _, c := range []byte(s) {
		switch {
		case c == '"':
			quoted, any = !quoted, true
		case !quoted && (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == 0):
			end()
		default:
			word.WriteByte(c)
			any = true
		}
	}
	end()
	return list
}

// Get returns the last value of key, "" when it has none.
func (c CommandLine) Get(key string) string {
	for i := len(c) - 1; i >= 0; i-- {
		if c[i].Key == key && c[i].HasValue {
			return c[i].Value
		}
	}
	return ""
}

// Has says whether key stands there, with or without a value.
func (c CommandLine) Has(key string) bool {
	for _, a := range c {
		if a.Key == key {
			return true
		}
	}
	return false
}

// PartUUID returns the GUID of a value PARTUUID=…, or an error that names key.
func (c CommandLine) PartUUID(key string) (string, error) {
	uuid, ok := strings.CutPrefix(c.Get(key), "PARTUUID=")
	if !ok || uuid == "" {
		return "", fmt.Errorf("kernel command line: %s=%q: expected as %s=PARTUUID=4f68bce3-e8cd-4db1-96e7-fbcaf984b709", key, c.Get(key), key)
	}
	return uuid, nil
}
