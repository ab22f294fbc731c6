package rescue

import (
	"crypto/subtle"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// key is one that may log in.
type key struct {
	wire    []byte
	comment string
}

// parseKeys reads public keys as authorized_keys(5) has them, but without
// options: what they would forbid is not kept here, so a key with options is
// refused, as is what is no key. The refused are told, by their beginning.
func parseKeys(lines []string) (keys []key, refused []error) {
	for _, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		public, comment, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
		switch {
		case err != nil:
			refused = append(refused, fmt.Errorf("SSH key %.30q: %w", line, err))
		case len(options) > 0:
			refused = append(refused, fmt.Errorf("SSH key %s: it has options (%.60s), which the rescue shell does not keep; give one without", ssh.FingerprintSHA256(public), strings.Join(options, ",")))
		case len(rest) > 0:
			refused = append(refused, fmt.Errorf("SSH key %s: something follows it", ssh.FingerprintSHA256(public)))
		default:
			if _, certificate := public.(*ssh.Certificate); certificate {
				refused = append(refused, fmt.Errorf("SSH key %s: it is a certificate; give the key itself", ssh.FingerprintSHA256(public)))
				continue
			}
			keys = append(keys, key{public.Marshal(), comment})
		}
	}
	return keys, refused
}

// find returns the key that a client offers.
func find(keys []key, offered ssh.PublicKey) (key, bool) {
	wire := offered.Marshal()
	for _, k := range keys {
		if subtle.ConstantTimeCompare(k.wire, wire) == 1 {
			return k, true
		}
	}
	return key{}, false
}

// name tells a key to people: by its fingerprint, and what its owner called it.
func (k key) name() string {
	public, err := ssh.ParsePublicKey(k.wire)
	if err != nil {
		return "an unreadable key"
	}
	return strings.TrimSpace(ssh.FingerprintSHA256(public) + " " + k.comment)
}
