// Package pki makes the Kubernetes cluster's certificate authorities and the
// kubeconfigs that they sign.
//
// The authorities are made once, with the cluster, and kept as secrets of the
// state; control planes get them by Ignition before kubeadm runs. kubeadm finds
// them in place and signs its own leaf certificates
// (https://kubernetes.io/docs/setup/best-practices/certificates/).
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

const (
	// Prefix is what every secret's name begins with; the rest is the file's
	// name below Dir.
	Prefix = "pki/"
	// Dir is where kubeadm expects the files.
	Dir = "/etc/kubernetes/pki/"

	// Backdate is how far before its making an authority is valid. kubeadm
	// gives its leaf certificates the authority's NotBefore, so this is also
	// how far a node's clock may be behind. A hardware clock that holds local
	// time is off by at most 14 hours.
	Backdate = 24 * time.Hour
	// Lifetime of the authorities. To replace one is the only act that touches
	// every node and every client at once: it outlives the hardware.
	Lifetime = 20 * 365 * 24 * time.Hour
)

// authorities are kubeadm's, with the common names that it gives them.
var authorities = []struct{ file, commonName string }{
	{"ca", "kubernetes"},
	{"front-proxy-ca", "front-proxy-ca"},
	{"etcd/ca", "etcd-ca"},
}

// Names are the secrets' names in a fixed order: the three authorities and the
// key pair that signs service account tokens.
func Names() []string {
	var names []string
	for _, a := range authorities {
		names = append(names, Prefix+a.file+".crt", Prefix+a.file+".key")
	}
	return append(names, Prefix+"sa.key", Prefix+"sa.pub")
}

// New makes all that Names lists, as PEM; now is the boot service's clock.
func New(now time.Time) (map[string][]byte, error) {
	secrets := make(map[string][]byte)
	for _, a := range authorities {
		certificate, key, err := newAuthority(a.commonName, now)
		if err != nil {
			return nil, fmt.Errorf("certificate authority %s: %w", a.commonName, err)
		}
		secrets[Prefix+a.file+".crt"], secrets[Prefix+a.file+".key"] = certificate, key
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	if secrets[Prefix+"sa.key"], err = encodeKey(signer); err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, fmt.Errorf("service account key: %w", err)
	}
	secrets[Prefix+"sa.pub"] = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})
	return secrets, nil
}

func newAuthority(commonName string, now time.Time) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		DNSNames:              []string{commonName},
		NotBefore:             now.Add(-Backdate).UTC(),
		NotAfter:              now.Add(Lifetime).UTC(),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		// An authority of ours signs leaves only.
		MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return encodeCertificate(der), key, nil
}

// newSerial is 127 random bits, positive and not zero (RFC 5280 §4.1.2.2
// allows 20 octets).
func newSerial() (*big.Int, error) {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	return n.Add(n, big.NewInt(1)), nil
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// encodeKey writes SEC 1 (RFC 5915), as kubeadm does.
func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}
