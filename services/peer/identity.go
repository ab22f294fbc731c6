// Package peer is how the replicas of one boot service reach each other: one
// port, mutual TLS by certificates of the cluster's own authority, and only
// while Raft's configuration names the other side. Raft itself checks none of
// it (hashicorp/raft 1.8.0 takes AppendEntries from whoever sends it).
//
// A replica is known by its server ID, never by an address: an ID is issued
// once, and an address may be another's tomorrow.
package peer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Name is who a replica's certificate says it is.
type Name struct {
	Cluster    string
	Generation uint64 // a recovery begins a new one, which older certificates cannot join
	ID         string // Raft's server ID
}

// scheme is of the certificate's one URI: rackseed-replica://CLUSTER/GENERATION/ID.
const scheme = "rackseed-replica"

// word is what a cluster's ID and a server ID look like; a server ID is a DNS
// name too, by which TLS finds the certificate.
var word = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$`)

func (n Name) String() string {
	return fmt.Sprintf("replica %s (cluster %s, generation %d)", n.ID, n.Cluster, n.Generation)
}

func (n Name) check() error {
	if !word.MatchString(n.ID) || !word.MatchString(n.Cluster) {
		return fmt.Errorf("%q of cluster %q: a server ID and a cluster's ID are made of a-z, 0-9 and -, 63 at most", n.ID, n.Cluster)
	}
	return nil
}

func (n Name) url() *url.URL {
	return &url.URL{Scheme: scheme, Host: n.Cluster, Path: fmt.Sprintf("/%d/%s", n.Generation, n.ID)}
}

// nameOf reads the name in a certificate.
func nameOf(c *x509.Certificate) (Name, error) {
	if len(c.URIs) != 1 || c.URIs[0].Scheme != scheme {
		return Name{}, fmt.Errorf("certificate of %q: it is no replica's", c.Subject.CommonName)
	}
	u := c.URIs[0]
	generation, id, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	g, err := strconv.ParseUint(generation, 10, 64)
	n := Name{u.Host, g, id}
	if err == nil {
		err = n.check()
	}
	if err == nil && n.url().String() != u.String() {
		err = errors.New("it is not written as it should be")
	}
	if err != nil {
		return Name{}, fmt.Errorf("certificate for %s: %w", u, err)
	}
	return n, nil
}

// Certificates are valid for ever, as far as clocks go (RFC 5280 §4.1.2.5): a
// machine whose clock stands at 1970, or in 2099 because its battery died, must
// not be locked out of its own cluster. A replica is turned away by Raft's
// configuration and by the generation, never by a date.
var (
	notBefore = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	notAfter  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)
)

// Authority issues the certificates of one generation's replicas.
type Authority struct {
	crt *x509.Certificate
	key crypto.Signer
}

// NewAuthority makes an authority: its key (PKCS #8) and its certificate, both
// as PEM.
func NewAuthority(cluster string, generation uint64) (key, crt []byte, err error) {
	private, key, err := NewKey()
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: fmt.Sprintf("Rackseed replicas of %s, generation %d", cluster, generation)},
		NotBefore:    notBefore, NotAfter: notAfter,
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// NewKey makes a replica's key, and writes it as PEM (PKCS #8).
func NewKey() (crypto.Signer, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// ParseKey reads what NewKey wrote.
func ParseKey(text []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is no key in PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a %T cannot sign", key)
	}
	return signer, nil
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// ParseAuthority reads what NewAuthority made.
func ParseAuthority(key, crt []byte) (*Authority, error) {
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return nil, fmt.Errorf("the replicas' authority: %w", err)
	}
	signer, ok := pair.PrivateKey.(crypto.Signer)
	if !ok || !pair.Leaf.IsCA {
		return nil, errors.New("the replicas' authority: its certificate is no authority's")
	}
	return &Authority{pair.Leaf, signer}, nil
}

// Issue makes a replica's certificate for its public key, as PEM.
func (a *Authority) Issue(name Name, public crypto.PublicKey) ([]byte, error) {
	if err := name.check(); err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name.ID},
		NotBefore:    notBefore, NotAfter: notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{name.ID}, URIs: []*url.URL{name.url()},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.crt, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate of %s: %w", name, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// NewID makes an identifier that was never used: a cluster's ("c-"), or a
// replica's server ID ("replica-").
func NewID(prefix string) string {
	var b [4]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return prefix + hex.EncodeToString(b[:])
}

// Identity is a replica with what proves it.
type Identity struct {
	Name
	pair  tls.Certificate
	roots *x509.CertPool
}

// Public is the replica's key, as SubjectPublicKeyInfo (RFC 5280).
func (i Identity) Public() []byte { return i.pair.Leaf.RawSubjectPublicKeyInfo }

// ParseIdentity reads a replica's key and certificate and its authority's, all
// PEM, and compares them with each other.
func ParseIdentity(key, crt, authority []byte) (Identity, error) {
	failed := func(err error) (Identity, error) {
		return Identity{}, fmt.Errorf("this replica's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return failed(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		return failed(errors.New("its authority's certificate is none"))
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return failed(err)
	}
	name, err := nameOf(pair.Leaf)
	if err != nil {
		return failed(err)
	}
	return Identity{name, pair, roots}, nil
}
