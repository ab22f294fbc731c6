package wire

import (
	"bytes"
	"crypto/ed25519"
	"net/http"
	"testing"
)

func TestAuthenticReply(t *testing.T) {
	seed := bytes.Repeat([]byte{7}, ed25519.SeedSize)
	ask := func(path, body string) *http.Request {
		r, err := http.NewRequest(http.MethodGet, "http://192.0.2.1"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		Sign(r, ed25519.NewKeyFromSeed(seed), []byte(body))
		Challenge(r)
		return r
	}
	answer := func(seed []byte, to *http.Request, status int, body string) *http.Response {
		code, err := ReplyCode(seed, to, status, []byte(body))
		if err != nil {
			t.Fatal(err)
		}
		return &http.Response{StatusCode: status, Header: http.Header{HeaderReply: {code}}}
	}
	request := ask("/a", "")
	good := answer(seed, request, 200, "run x")
	if !Authentic(seed, request, good, []byte("run x")) {
		t.Fatal("the boot service's own reply is refused")
	}
	bare, err := http.NewRequest(http.MethodGet, "http://192.0.2.1/a", nil)
	if err != nil {
		t.Fatal(err)
	}
	Sign(bare, ed25519.NewKeyFromSeed(seed), nil)
	for name, c := range map[string]struct {
		to    *http.Request
		reply *http.Response
		body  string
	}{
		"another body":         {request, good, "run y"},
		"another status":       {request, &http.Response{StatusCode: 404, Header: good.Header}, "run x"},
		"no code":              {request, &http.Response{StatusCode: 200}, "run x"},
		"another seed":         {request, answer(bytes.Repeat([]byte{8}, 32), request, 200, "run x"), "run x"},
		"recorded":             {ask("/a", ""), good, "run x"},
		"to another path":      {request, answer(seed, ask("/b", ""), 200, "run x"), "run x"},
		"to another body":      {request, answer(seed, ask("/a", "z"), 200, "run x"), "run x"},
		"nothing was asked of": {bare, answer(seed, bare, 200, "run x"), "run x"},
	} {
		if Authentic(seed, c.to, c.reply, []byte(c.body)) {
			t.Errorf("%s: taken", name)
		}
	}
}
