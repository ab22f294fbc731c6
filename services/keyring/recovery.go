package keyring

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
)

// NewRecoveryKey makes a recovery key: what people keep, and what copies are
// encrypted to.
func NewRecoveryKey() (key, recipient string, err error) {
	i, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", err
	}
	return i.String(), i.Recipient().String(), nil
}

// Copy encrypts data keys so that only the recovery key opens them.
func Copy(recipient string, keys ...Key) ([]byte, error) {
	to, err := age.ParseX25519Recipient(recipient)
	if err != nil {
		return nil, fmt.Errorf("the recovery key's public part: %w", err)
	}
	plain, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err == nil {
		_, err = w.Write(plain)
	}
	if err == nil {
		err = w.Close()
	}
	return out.Bytes(), err
}

// maxCopy bounds what a copy may hold, in bytes.
const maxCopy = 1 << 20

// Recover opens a copy with the recovery key that people kept: the data keys that
// the state beside the copy is sealed under.
func Recover(key string, copy []byte) ([]Key, error) {
	if len(copy) == 0 {
		return nil, fmt.Errorf("this state has no copy of its keys for a recovery key: none was made when it was written")
	}
	i, err := age.ParseX25519Identity(strings.ToUpper(strings.TrimSpace(key)))
	if err != nil { // what is wrong with it is said without it
		return nil, errors.New("this is no recovery key: it begins with AGE-SECRET-KEY-1 and has 74 letters, of which one is wrong or missing, or there is more")
	}
	r, err := age.Decrypt(bytes.NewReader(copy), i)
	if err != nil {
		var other *age.NoIdentityMatchError
		if errors.As(err, &other) {
			return nil, errors.New("this recovery key does not fit this state: another one was in force when that was written; try those from before and after")
		}
		return nil, fmt.Errorf("the keys' copy: %w", err)
	}
	plain, err := io.ReadAll(io.LimitReader(r, maxCopy))
	if err != nil {
		return nil, fmt.Errorf("the keys' copy: %w", err)
	}
	var keys []Key
	if err := json.Unmarshal(plain, &keys); err != nil {
		return nil, fmt.Errorf("the keys' copy: %w", err)
	}
	return keys, nil
}
