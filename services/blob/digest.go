package blob

import (
	"fmt"
	"regexp"
)

// Digest names a blob by the SHA-256 of its bytes: "sha256:" and 64 lower-case
// hex digits. Only Parse and the store make one; anything else that was cast
// to it is checked again before it becomes a path.
type Digest string

var shape = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// Parse reads a digest. Other algorithms are refused: one blob has one name.
func Parse(s string) (Digest, error) {
	if !shape.MatchString(s) {
		return "", fmt.Errorf("digest %.80q: sha256: and 64 lower-case hex digits are expected", s)
	}
	return Digest(s), nil
}

// hex is the digest without its algorithm: the file's name.
func (d Digest) hex() (string, error) {
	checked, err := Parse(string(d))
	if err != nil {
		return "", err
	}
	return string(checked[len("sha256:"):]), nil
}
