//go:build host

package rescue

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// OpenSSH's client logs in, runs commands with and without a terminal, and sees
// the host key whose fingerprint is on the machine's screen.
func TestOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("ssh"); err != nil {
		t.Skip("OpenSSH's client is not here: TestCommands has another")
	}
	dir := t.TempDir()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	identity := filepath.Join(dir, "key")
	if err := os.WriteFile(identity, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	s, log := newServer(t, string(ssh.MarshalAuthorizedKey(signer.PublicKey())))
	_, port, err := net.SplitHostPort(s.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(dir, "known_hosts")
	if err := os.WriteFile(known, fmt.Appendf(nil, "[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(s.host.PublicKey())), 0o600); err != nil {
		t.Fatal(err)
	}
	client := func(in string, args ...string) (string, error) {
		cmd := exec.Command("ssh", append([]string{"-F", "none", "-i", identity, "-p", port, "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes",
			"-o", "StrictHostKeyChecking=yes", "-o", "UserKnownHostsFile=" + known, "-o", "LogLevel=ERROR"}, args...)...)
		cmd.Stdin = strings.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := client("", "root@127.0.0.1", "id -u; exit 7"); !strings.HasPrefix(out, "0\n") || err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := client("a file", "root@127.0.0.1", "cat >"+filepath.Join(dir, "copy")); err != nil {
		t.Errorf("%q, %v", out, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "copy")); err != nil || string(b) != "a file" {
		t.Errorf("%q, %v", b, err)
	}
	if out, err := client("tty; echo $TERM; exit\n", "-tt", "root@127.0.0.1"); err != nil || !strings.Contains(out, "This is the rescue shell.\r\n") || !strings.Contains(out, "/dev/pts/") {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := client("", "eve@127.0.0.1", "id"); err == nil || !strings.Contains(out, "Permission denied (publickey)") {
		t.Errorf("%q, %v", out, err)
	}
	out, err := exec.Command("ssh-keygen", "-l", "-f", known).Output()
	if fields := strings.Fields(string(out)); err != nil || len(fields) < 2 || !strings.Contains(log.String(), fields[1]) {
		t.Errorf("ssh-keygen says %q, %v; the screen:\n%s", out, err, log)
	}
}
