package replica

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/state"
)

// Names of the console's secrets in the state.
const (
	secretConsoleKey = "console.key" // PKCS #8, PEM
	secretConsoleCrt = "console.crt" // PEM
)

const (
	consoleLifetime = 10 * 365 * 24 * time.Hour
	// consoleBackdate lets a browser whose clock is behind, or a stick whose
	// clock stood at the build date and was set back, still accept it.
	consoleBackdate = 48 * time.Hour
)

// newConsoleCertificate makes the console's key and its self-signed
// certificate. People check it by its fingerprint on the appliance's screen,
// so it stays the same for the cluster's life; names only spare them one of
// the browser's warnings.
func newConsoleCertificate(now time.Time, names []string, addresses []net.IP) (key, crt []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Rackseed"},
		NotBefore:    now.Add(-consoleBackdate),
		NotAfter:     now.Add(consoleLifetime),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     names, IPAddresses: addresses,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}

// consoleCertificate reads the console's certificate from the state, with its
// fingerprint as people compare it.
func consoleCertificate(view state.View) (tls.Certificate, string, error) {
	key, err := view.OpenSecret(secretConsoleKey)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("the console's certificate: %w", err)
	}
	crt, err := view.OpenSecret(secretConsoleCrt)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("the console's certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		return tls.Certificate{}, "", fmt.Errorf("the console's certificate: %w", err)
	}
	return pair, fingerprint(pair.Certificate[0]), nil
}

// fingerprint is a certificate's SHA-256, as browsers show it.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	parts := make([]string, len(sum))
	for i, b := range sum {
		parts[i] = fmt.Sprintf("%02X", b)
	}
	return strings.Join(parts, ":")
}

// Crockford's alphabet: no I, L, O, U, so that nothing on a screen looks like
// something else.
const crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// newSetupCode makes a code of 80 random bits as four groups of four. The
// state keeps a plain SHA-256 of it: 80 bits are more than anyone who stole
// that can try.
func newSetupCode() string {
	var raw [16]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	var b strings.Builder
	for i, r := range raw {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(crockford[r%32])
	}
	return b.String()
}

// oneLine reads a small file of one line, or makes it 0600 with what fresh
// returns. It is complete on disk before oneLine returns, or not there at all.
func oneLine(path string, fresh func() string) (string, error) {
	content, err := os.ReadFile(path)
	if err == nil {
		if line := strings.TrimSpace(string(content)); line != "" {
			return line, nil
		}
		return "", fmt.Errorf("%s is empty: it was damaged; restore it, or remove the folder to begin anew", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	line := fresh()
	return line, durable.WriteFile(path, []byte(line+"\n"), 0o600)
}
