package wire

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Headers of a signed request.
const (
	HeaderKey       = "Rackseed-Key"       // base64 of the ed25519 public key
	HeaderSignature = "Rackseed-Signature" // base64 of the signature
)

// MaxBody is the most that a signed request may carry, in bytes.
const MaxBody = 4 << 20

// ErrUnsigned is returned for a request without a valid signature.
var ErrUnsigned = errors.New("the request is not signed by the key it names")

// message is what is signed: method, path with query, and the body's digest.
//
// Requests carry no time and no nonce, so who recorded one can send it again.
// What that can do:
//
//   - a report, a line or a claim: nothing; each is numbered, or names an intent
//     with its epoch, and the state has had it. A node's report is remembered by
//     its boot: after 1,024 later boots of the same node a recorded one would be
//     taken for news, and the node shown as it was then. So is one that never
//     came in its time, until the node reports again.
//   - a session: nothing while the machine boots its own disk or is being
//     written. Otherwise the keys of the machine's last 64 sessions are known and
//     refused; an older one is opened again, which revokes an approval that was
//     not used yet. The sender has no key to go on with.
//   - an order, an Ignition, a read: the answer, which holds nothing secret that
//     is not sealed to the machine.
func message(method, uri string, body []byte) []byte {
	digest := sha256.Sum256(body)
	return fmt.Appendf(nil, "rackseed-request-v1\n%s\n%s\n%x\n", method, uri, digest)
}

// Sign signs a request whose body is body (nil for none), and sets it.
func Sign(r *http.Request, key ed25519.PrivateKey, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.ContentLength = int64(len(body))
	r.Header.Set(HeaderKey, base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
	r.Header.Set(HeaderSignature, base64.StdEncoding.EncodeToString(
		ed25519.Sign(key, message(r.Method, r.URL.RequestURI(), body))))
}

// Verify reads the request's body and returns it with the public key that
// signed it, or ErrUnsigned. Whose key it is, the caller decides.
func Verify(r *http.Request) (body []byte, key ed25519.PublicKey, err error) {
	body, err = io.ReadAll(io.LimitReader(r.Body, MaxBody+1))
	if err != nil {
		return nil, nil, fmt.Errorf("reading the request's body: %w", err)
	}
	if len(body) > MaxBody {
		return nil, nil, fmt.Errorf("the request's body is over %d bytes", MaxBody)
	}
	key, err = base64.StdEncoding.DecodeString(r.Header.Get(HeaderKey))
	if err != nil || len(key) != ed25519.PublicKeySize {
		return nil, nil, ErrUnsigned
	}
	signature, err := base64.StdEncoding.DecodeString(r.Header.Get(HeaderSignature))
	if err != nil || !ed25519.Verify(key, message(r.Method, r.URL.RequestURI(), body), signature) {
		return nil, nil, ErrUnsigned
	}
	return body, key, nil
}

// Seal encrypts plaintext for the machine whose installer session made
// sealKey. purpose is bound in: what was sealed for one intent opens for no
// other.
func Seal(sealKey []byte, purpose string, plaintext []byte) (Sealed, error) {
	public, err := ecdh.X25519().NewPublicKey(sealKey)
	if err != nil {
		return Sealed{}, fmt.Errorf("the session's sealing key: %w", err)
	}
	recipient, err := hpke.NewDHKEMPublicKey(public)
	if err != nil {
		return Sealed{}, fmt.Errorf("the session's sealing key: %w", err)
	}
	ciphertext, err := hpke.Seal(recipient, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(purpose), plaintext)
	return Sealed{Ciphertext: ciphertext}, err
}

// Open decrypts what was sealed to the public half of key for purpose.
func Open(key *ecdh.PrivateKey, purpose string, sealed Sealed) ([]byte, error) {
	recipient, err := hpke.NewDHKEMPrivateKey(key)
	if err != nil {
		return nil, err
	}
	plaintext, err := hpke.Open(recipient, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), []byte(purpose), sealed.Ciphertext)
	if err != nil {
		return nil, fmt.Errorf("it is not sealed to this machine's key for %s: %w", purpose, err)
	}
	return plaintext, nil
}

// JoinPurpose is what a JoinSecret is sealed for.
func JoinPurpose(machine string) string { return "rackseed join " + machine }

// ReplicaPurpose is what a ReplicaSecret is sealed for.
func ReplicaPurpose(machine string) string { return "rackseed replica " + machine }

// IgnitionPurpose is what a machine's Ignition is sealed for.
func IgnitionPurpose(intent string, epoch uint64) string {
	return fmt.Sprintf("rackseed ignition %s epoch %d", intent, epoch)
}

// NewKeys makes an installer session's two keys, in memory only.
func NewKeys() (ed25519.PrivateKey, *ecdh.PrivateKey, error) {
	_, sign, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	return sign, seal, err
}
