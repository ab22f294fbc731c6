package wire

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"testing"
)

func TestSignedRequest(t *testing.T) {
	sign, _, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"number":1}`)
	r := httptest.NewRequest("POST", PathReport+"?a=b", nil)
	Sign(r, sign, body)
	got, key, err := Verify(r)
	if err != nil || !bytes.Equal(got, body) || !key.Equal(sign.Public()) {
		t.Fatalf("a signed request: body %q, error %v", got, err)
	}
	Sign(r, sign, body)
	r.Body = io.NopCloser(bytes.NewReader([]byte(`{"number":2}`)))
	if _, _, err := Verify(r); !errors.Is(err, ErrUnsigned) {
		t.Errorf("another body under the same signature: %v", err)
	}
	Sign(r, sign, body)
	r.URL.RawQuery = "a=c"
	if _, _, err := Verify(r); !errors.Is(err, ErrUnsigned) {
		t.Errorf("another path under the same signature: %v", err)
	}
	if _, _, err := Verify(httptest.NewRequest("GET", PathOrder, nil)); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no signature: %v", err)
	}
}

func TestSeal(t *testing.T) {
	_, key, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal(key.PublicKey().Bytes(), IgnitionPurpose("i-1", 1), []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed.Ciphertext, []byte("secret")) {
		t.Error("the plaintext is in the ciphertext")
	}
	if got, err := Open(key, IgnitionPurpose("i-1", 1), sealed); err != nil || string(got) != "secret" {
		t.Errorf("open: %q, %v", got, err)
	}
	if _, err := Open(key, IgnitionPurpose("i-1", 2), sealed); err == nil {
		t.Error("what was sealed for epoch 1 opened for epoch 2")
	}
	_, other, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, IgnitionPurpose("i-1", 1), sealed); err == nil {
		t.Error("another machine's key opened it")
	}
}
