package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Invitation is what a new replica joins by. It holds a secret: the token,
// which is taken once.
type Invitation struct {
	Cluster    string   `json:"cluster"`
	Generation uint64   `json:"generation"`
	Authority  []byte   `json:"authority"` // the certificate, PEM
	Endpoints  []string `json:"endpoints"` // host:port of replicas, any of which will do
	Token      string   `json:"token"`
}

// JSON is the invitation as it is handed over.
func (i Invitation) JSON() []byte {
	b, err := json.Marshal(i)
	if err != nil {
		panic(err) // it has only strings and numbers
	}
	return b
}

// Check says what is wrong with an invitation.
func (i Invitation) Check() error {
	_, err := i.roots()
	switch {
	case err != nil:
		return fmt.Errorf("invitation: %w", err)
	case i.Cluster == "", i.Token == "":
		return errors.New("invitation: the cluster or the token is missing")
	case len(i.Endpoints) == 0:
		return errors.New("invitation: it names no replica to ask")
	}
	return nil
}

func (i Invitation) roots() (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(i.Authority) {
		return nil, errors.New("the authority's certificate is none")
	}
	return roots, nil
}

// Client sends requests, to https://ENDPOINT/…, to replicas of the cluster that
// the invitation names and to nobody else. It has no certificate.
func (i Invitation) Client() (*http.Client, error) {
	roots, err := i.roots()
	if err != nil {
		return nil, err
	}
	// A replica is named by its ID, which who joins does not know: the authority
	// and the generation are what is compared.
	verify := func(s tls.ConnectionState) error {
		if s.NegotiatedProtocol != protocolJoin {
			return errors.New("it does not speak " + protocolJoin + ": another release, or another program on that port")
		}
		leaf := s.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots}); err != nil {
			return fmt.Errorf("it is no replica of cluster %s: %w", i.Cluster, err)
		}
		name, err := nameOf(leaf)
		if err == nil && (name.Cluster != i.Cluster || name.Generation != i.Generation) {
			err = fmt.Errorf("%s is not of cluster %s, generation %d", name, i.Cluster, i.Generation)
		}
		return err
	}
	return &http.Client{Transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			plain, err := (&net.Dialer{}).DialContext(ctx, network, address)
			if err != nil {
				return nil, err
			}
			secure := tls.Client(plain, &tls.Config{
				MinVersion: tls.VersionTLS13, NextProtos: []string{protocolJoin},
				InsecureSkipVerify: true, VerifyConnection: verify, // which is called all the same
			})
			ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
			defer cancel()
			if err := secure.HandshakeContext(ctx); err != nil {
				return nil, fmt.Errorf("%s: %w", address, errors.Join(err, plain.Close()))
			}
			return secure, nil
		},
		ResponseHeaderTimeout: time.Minute, DisableKeepAlives: true,
	}}, nil
}

// NameAt is the name of the replica that answers at an endpoint (HOST:PORT), as its
// certificate says. Nothing proves it: it is for who would rather do nothing while
// somebody is there.
func NameAt(ctx context.Context, endpoint string) (Name, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeLimit)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{protocolJoin}, InsecureSkipVerify: true}}
	c, err := d.DialContext(ctx, "tcp", endpoint)
	if err != nil {
		return Name{}, err
	}
	name, err := nameOf(c.(*tls.Conn).ConnectionState().PeerCertificates[0])
	return name, errors.Join(err, c.Close())
}
