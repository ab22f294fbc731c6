package machine

import (
	"crypto/rand"
	"encoding/hex"
	"regexp"
)

var hostName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// IsHostName says whether a node may have the name: one label of RFC 1123
// section 2.1, in lower case as Kubernetes wants names.
func IsHostName(s string) bool { return hostName.MatchString(s) }

// NewID draws a machine's ID. Whether it is taken, only the state knows.
func NewID() ID {
	b := make([]byte, 4)
	rand.Read(b) // never fails, by its contract
	return ID("m-" + hex.EncodeToString(b))
}
