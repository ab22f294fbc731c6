// Package slot marks the root slot that the node runs from as good, in GRUB's
// environment block on the ESP.
//
// GRUB sets SLOT_TRY=1 before it boots a slot, and boots the first slot of
// ORDER that has SLOT_OK=1 and SLOT_TRY=0. A slot that is never marked good is
// therefore tried once, and then the other one is booted.
package slot

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// EnvSize is the size of GRUB's environment block, in bytes; GRUB writes it in
// place and cannot make it larger (GRUB manual, "The GRUB environment block").
const EnvSize = 1024

const envHeader = "# GRUB Environment Block\n"

// Good gives the variables that mark a slot ("a" or "b") as good.
func Good(slot string) (map[string]string, error) {
	if slot != "a" && slot != "b" {
		return nil, fmt.Errorf("root slot %q on the kernel command line (rackseed.slot): expected a or b", slot)
	}
	name := strings.ToUpper(slot)
	return map[string]string{name + "_OK": "1", name + "_TRY": "0"}, nil
}

// SetEnv returns the block with the variables set; all others stay. Unset ones
// are appended in order of their names.
func SetEnv(block []byte, set map[string]string) ([]byte, error) {
	if len(block) != EnvSize || !bytes.HasPrefix(block, []byte(envHeader)) {
		return nil, fmt.Errorf("grubenv: not a GRUB environment block of %d bytes: the ESP is damaged, reinstall the node", EnvSize)
	}
	left := maps.Clone(set)
	// The block ends in a padding of # without a line feed.
	body := bytes.TrimRight(block[len(envHeader):], "#")
	if len(body) > 0 && body[len(body)-1] != '\n' {
		return nil, fmt.Errorf("grubenv: its last variable is cut off: the ESP is damaged, reinstall the node")
	}
	out := bytes.NewBufferString(envHeader)
	for line := range bytes.Lines(body) {
		name, _, isVariable := strings.Cut(strings.TrimSuffix(string(line), "\n"), "=")
		if value, found := left[name]; isVariable && found {
			fmt.Fprintf(out, "%s=%s\n", name, value)
			delete(left, name)
			continue
		}
		out.Write(line)
	}
	for _, name := range slices.Sorted(maps.Keys(left)) {
		fmt.Fprintf(out, "%s=%s\n", name, left[name])
	}
	if out.Len() > EnvSize {
		return nil, fmt.Errorf("grubenv: %d bytes of variables do not fit into %d", out.Len(), EnvSize)
	}
	out.Write(bytes.Repeat([]byte{'#'}, EnvSize-out.Len()))
	return out.Bytes(), nil
}
