package wire

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
)

// Headers by which a node knows that a reply is the boot service's.
const (
	HeaderNonce = "Rackseed-Nonce" // of the request: base64 of random bytes
	HeaderReply = "Rackseed-Reply" // of the reply: base64 of its authentication code
)

// Challenge has a signed request ask for a reply that is authenticated.
func Challenge(r *http.Request) {
	var nonce [16]byte
	rand.Read(nonce[:]) // never fails since Go 1.24
	r.Header.Set(HeaderNonce, base64.StdEncoding.EncodeToString(nonce[:]))
}

// ReplyCode authenticates a reply to a signed request that asks for it: HMAC-SHA256
// under a key that only the node and the boot service can make, from the seed of the
// node's key (HKDF-SHA256, RFC 5869). It binds the request, by its signature, and this
// very asking of it, by its nonce: a recorded reply is none to another request.
//
// A node runs what it is ordered to as root, and what it joins by says which cluster:
// without this, whoever answers at the service address is root on it.
func ReplyCode(seed []byte, r *http.Request, status int, body []byte) (string, error) {
	key, err := hkdf.Key(sha256.New, seed, nil, "rackseed reply v1", sha256.Size)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "rackseed-reply-v1\n%s\n%s\n%d\n%x\n", r.Header.Get(HeaderSignature), r.Header.Get(HeaderNonce), status, sha256.Sum256(body))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// Authentic says whether a reply to a request is the boot service's.
func Authentic(seed []byte, r *http.Request, reply *http.Response, body []byte) bool {
	want, err := ReplyCode(seed, r, reply.StatusCode, body)
	return err == nil && r.Header.Get(HeaderNonce) != "" && hmac.Equal([]byte(want), []byte(reply.Header.Get(HeaderReply)))
}
