package endpoint

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"
)

// reached is the name by which clients know who answers: they connect with
// loopback.
const reached = "127.0.0.1"

// asking makes the client that asks API servers whether they are ready, without
// credentials. It verifies them as clients do, so that whoever has a control
// plane's old address is not ready; before there is an authority (a worker gets it
// when it joins), whoever answers is.
func asking(authority string) *http.Client {
	verify := func(c tls.ConnectionState) error {
		b, err := os.ReadFile(authority)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(b) {
			return nil // it is being written
		}
		between := x509.NewCertPool()
		for _, c := range c.PeerCertificates[1:] {
			between.AddCert(c)
		}
		_, err = c.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, DNSName: reached})
		return err
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:       nil, // they are on the nodes' own network
		DialContext: (&net.Dialer{}).DialContext,
		TLSClientConfig: &tls.Config{
			MinVersion: tls.VersionTLS12, ServerName: reached,
			InsecureSkipVerify: true, // VerifyConnection does it
			VerifyConnection:   verify,
		},
		// HTTP/1.1: a question without an answer ends its connection. One of
		// HTTP/2 would be asked by again.
		MaxIdleConnsPerHost: 1,
	}}
}

// ask asks an API server whether it is ready
// (https://kubernetes.io/docs/reference/using-api/health-checks/). One that tells
// nobody without credentials is taken to be.
func ask(ctx context.Context, client *http.Client, a netip.AddrPort, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+a.String()+"/readyz", nil)
	if err != nil {
		return err
	}
	reply, err := client.Do(request)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(reply.Body, 1<<16))
	if err := errors.Join(err, reply.Body.Close()); err != nil {
		return err
	}
	switch reply.StatusCode {
	case http.StatusOK, http.StatusUnauthorized, http.StatusForbidden:
		return nil
	}
	return fmt.Errorf("/readyz says %s", reply.Status)
}
