package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

const (
	// AdminGroup is bound to cluster-admin by a ClusterRoleBinding that kubeadm
	// init makes. system:masters needs no binding, and so nobody could take it
	// away again from a stolen certificate; here deleting one binding does.
	AdminGroup = "kubeadm:cluster-admins"
	// AdminLifetime of an administrator's certificate. Kubernetes has no
	// revocation of client certificates, and a new one is a click away.
	AdminLifetime = 30 * 24 * time.Hour
)

// Client is whom a kubeconfig is for.
type Client struct {
	Cluster  string   // the cluster's name in the file
	Server   string   // https://ADDRESS:6443
	User     string   // the certificate's common name: Kubernetes' user name
	Groups   []string // its organizations: Kubernetes' groups
	Lifetime time.Duration
}

// Admin makes a kubeconfig for an administrator, from the cluster's secrets.
// operator is who asked for it: the API server's audit log names them.
func Admin(secret func(name string) ([]byte, bool), cluster, server, operator string, now time.Time) ([]byte, error) {
	ca, found := secret(Prefix + "ca.crt")
	key, foundKey := secret(Prefix + "ca.key")
	if !found || !foundKey {
		return nil, errors.New("kubeconfig: this boot service has no certificate authority for the cluster: it is made when the boot service first starts")
	}
	return Kubeconfig(ca, key, now, Client{
		Cluster: cluster, Server: server,
		User: "rackseed:" + operator, Groups: []string{AdminGroup}, Lifetime: AdminLifetime,
	})
}

// Kubeconfig signs a client certificate with a new key and renders it with the
// authority's certificate as a kubeconfig. ca and caKey are PEM.
func Kubeconfig(ca, caKey []byte, now time.Time, c Client) ([]byte, error) {
	if u, err := url.Parse(c.Server); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("kubeconfig: server %q: expected as https://10.77.0.1:6443", c.Server)
	}
	if c.User == "" || c.Lifetime <= 0 {
		return nil, fmt.Errorf("kubeconfig for user %q: a user name and a lifetime above 0 are needed", c.User)
	}
	certificate, key, err := ClientCertificate(ca, caKey, now, c)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig for %s: %w", c.User, err)
	}
	context := c.User + "@" + c.Cluster
	b, err := clientcmd.Write(api.Config{
		Clusters:       map[string]*api.Cluster{c.Cluster: {Server: c.Server, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*api.AuthInfo{c.User: {ClientCertificateData: certificate, ClientKeyData: key}},
		Contexts:       map[string]*api.Context{context: {Cluster: c.Cluster, AuthInfo: c.User}},
		CurrentContext: context,
	})
	if err != nil {
		return nil, fmt.Errorf("kubeconfig for %s: %w", c.User, err)
	}
	return b, nil
}

// ClientCertificate signs a client certificate with a new key, both PEM; of c
// it takes User, Groups and Lifetime. ca and caKey are an authority's, PEM.
func ClientCertificate(ca, caKey []byte, now time.Time, c Client) (certificate, key []byte, err error) {
	authority, err := parseCertificate(ca)
	if err != nil {
		return nil, nil, fmt.Errorf("the authority's certificate: %w", err)
	}
	signer, err := parseKey(caKey)
	if err != nil {
		return nil, nil, fmt.Errorf("the authority's key: %w", err)
	}
	if !signer.PublicKey.Equal(authority.PublicKey) {
		return nil, nil, errors.New("the authority's key is not the one of its certificate")
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, nil, err
	}
	// Never beyond the authority: a chain is valid only while all of it is.
	notBefore, notAfter := now.Add(-Backdate), now.Add(c.Lifetime)
	if notBefore.Before(authority.NotBefore) {
		notBefore = authority.NotBefore
	}
	if notAfter.After(authority.NotAfter) {
		notAfter = authority.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: c.User, Organization: c.Groups},
		NotBefore:             notBefore.UTC(),
		NotAfter:              notAfter.UTC(),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, authority, private.Public(), signer)
	if err != nil {
		return nil, nil, err
	}
	if key, err = encodeKey(private); err != nil {
		return nil, nil, err
	}
	return encodeCertificate(der), key, nil
}

// CertHash names an authority as kubeadm's discovery does: "sha256:" and the
// hex digest of its Subject Public Key Info (RFC 5280 section 4.1.2.7). ca is
// PEM.
func CertHash(ca []byte) (string, error) {
	c, err := parseCertificate(ca)
	if err != nil {
		return "", fmt.Errorf("the authority's certificate: %w", err)
	}
	return fmt.Sprintf("sha256:%x", sha256.Sum256(c.RawSubjectPublicKeyInfo)), nil
}

func parseCertificate(b []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is not a certificate in PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "EC PRIVATE KEY" {
		return nil, errors.New("it is not an EC private key in PEM")
	}
	return x509.ParseECPrivateKey(block.Bytes)
}
