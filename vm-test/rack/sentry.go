package rack

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"sync"
)

// Sentry reads along on the wire and keeps where it saw a secret in the clear.
// It is an io.Writer for the switch's recording.
type Sentry struct {
	mu    sync.Mutex
	bytes int64
	seen  []string
}

// secrets are what a machine's Ignition carries, as it would look unsealed:
// keys in data URLs, and the node's key. (The word PRIVATE KEY alone is in
// every program that can read one, and so in the image.)
var secrets = map[string][]byte{
	"a private key in a data URL":    base64Of("-----BEGIN PRIVATE KEY"),
	"an EC private key in a URL":     base64Of("-----BEGIN EC PRIVATE KEY"),
	"a private key in JSON":          []byte(`"-----BEGIN PRIVATE KEY-----\n`),
	"an EC private key in JSON":      []byte(`"-----BEGIN EC PRIVATE KEY-----\n`),
	"the node's key":                 []byte(`"keySeed":"`),
	"what a node joins by":           []byte(`"caCertHashes":`),
	"the node's key in a data URL":   base64Of(`"keySeed":`)[2:],
	"the node's key in a data URL 2": base64Of(` "keySeed":`)[4:],
	"the node's key in a data URL 3": base64Of(`  "keySeed":`)[4:],
}

// base64Of is s in base64 without the last group, which depends on what
// follows.
func base64Of(s string) []byte {
	return []byte(base64.StdEncoding.EncodeToString([]byte(s[:len(s)/3*3])))
}

// Write reads one recorded frame.
func (s *Sentry) Write(frame []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for what, secret := range secrets {
		if len(s.seen) < 20 && bytes.Contains(frame, secret) {
			s.seen = append(s.seen, fmt.Sprintf("%s, %d bytes into the recording", what, s.bytes))
		}
	}
	s.bytes += int64(len(frame))
	return len(frame), nil
}

// Seen are the secrets that went by, and how many bytes were looked at.
func (s *Sentry) Seen() (secrets []string, looked int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen, s.bytes
}
