package rescue

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"testing"

	"github.com/rackseed/rackseed/images/pid1"
	"golang.org/x/crypto/ssh"
)

// lines are what was logged.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

type keyPair struct {
	signer ssh.Signer
	line   string // of authorized_keys
}

func newKey(t *testing.T, comment string) keyPair {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{signer, strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))) + " " + comment}
}

func newServer(t *testing.T, keys ...string) (*Server, *lines) {
	t.Helper()
	log := &lines{}
	s := &Server{
		Log: slog.New(slog.NewTextHandler(log, nil)), Children: &pid1.Children{}, Listen: "127.0.0.1:0", Address: func() string { return "127.0.0.1" },
		Shell: []string{"/bin/sh"}, Greeting: "This is the rescue shell.\n",
	}
	if err := s.Serve(keys); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Drain)
	return s, log
}

func (s *Server) dial(t *testing.T, user string, auth ...ssh.AuthMethod) (*ssh.Client, error) {
	t.Helper()
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return nil, net.ErrClosed
	}
	return ssh.Dial("tcp", l.Addr().String(), &ssh.ClientConfig{User: user, Auth: auth, HostKeyCallback: ssh.FixedHostKey(s.host.PublicKey())})
}

func (s *Server) client(t *testing.T, k keyPair) *ssh.Client {
	t.Helper()
	c, err := s.dial(t, "root", ssh.PublicKeys(k.signer))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // some are closed already
	return c
}

func run(t *testing.T, c *ssh.Client, command string, in io.Reader) (string, string, error) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out, trouble bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = in, &out, &trouble
	err = s.Run(command)
	return out.String(), trouble.String(), err
}

func TestOnlyGivenKeysLogIn(t *testing.T) {
	ann, bob, eve := newKey(t, "ann@laptop"), newKey(t, "bob"), newKey(t, "eve")
	s, log := newServer(t, ann.line, "", "# a comment", bob.line, `from="10.0.0.1" `+eve.line, "ssh-ed25519 rubbish")
	for name, c := range map[string]struct {
		user string
		auth []ssh.AuthMethod
		may  bool
	}{
		"ann":                        {"root", []ssh.AuthMethod{ssh.PublicKeys(ann.signer)}, true},
		"bob":                        {"root", []ssh.AuthMethod{ssh.PublicKeys(bob.signer)}, true},
		"eve, whose key has options": {"root", []ssh.AuthMethod{ssh.PublicKeys(eve.signer)}, false},
		"eve, and then ann's":        {"root", []ssh.AuthMethod{ssh.PublicKeys(eve.signer, ann.signer)}, true},
		"ann under another name":     {"ann", []ssh.AuthMethod{ssh.PublicKeys(ann.signer)}, false},
		"by password":                {"root", []ssh.AuthMethod{ssh.Password("root")}, false},
		"by no password":             {"root", []ssh.AuthMethod{ssh.Password("")}, false},
		"by nothing":                 {"root", nil, false},
		"by answers": {"root", []ssh.AuthMethod{ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) {
			return []string{""}, nil
		})}, false},
	} {
		client, err := s.dial(t, c.user, c.auth...)
		if (err == nil) != c.may {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			_ = client.Close()
		}
	}
	for _, want := range []string{
		"rescue shell: log in with: ssh root@127.0.0.1\" hostKey=" + ssh.FingerprintSHA256(s.host.PublicKey()),
		ssh.FingerprintSHA256(ann.signer.PublicKey()) + " ann@laptop", "it has options (from=", "rubbish", "a log-in was refused",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

func TestWithoutKeysNothingIsOpened(t *testing.T) {
	s, log := newServer(t)
	if s.listener != nil || !strings.Contains(log.String(), "the site has no SSH key that could log in") {
		t.Errorf("%v\n%s", s.listener, log)
	}
	if err := s.Serve(nil); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "stays shut"); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	ann, bob := newKey(t, "ann"), newKey(t, "bob")
	if err := s.Serve([]string{ann.line}); err != nil {
		t.Fatal(err)
	}
	s.client(t, ann)
	host := s.host
	if err := s.Serve([]string{bob.line}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.dial(t, "root", ssh.PublicKeys(ann.signer)); err == nil {
		t.Error("a key that was taken back logs in")
	}
	s.client(t, bob)
	if s.host != host {
		t.Error("the host key is another one")
	}
}

func TestCommands(t *testing.T) {
	ann := newKey(t, "ann")
	s, _ := newServer(t, ann.line)
	c := s.client(t, ann)
	out, trouble, err := run(t, c, `echo "$USER $HOME $((6*7))"; echo no >&2; exit 3`, nil)
	var exit *ssh.ExitError
	if out != "root /root 42\n" || trouble != "no\n" || !errors.As(err, &exit) || exit.ExitStatus() != 3 {
		t.Errorf("%q, %q, %v", out, trouble, err)
	}
	big := strings.Repeat("a file that is copied over\n", 20000)
	if out, _, err := run(t, c, "cat", strings.NewReader(big)); err != nil || out != big {
		t.Errorf("%d of %d bytes came back, %v", len(out), len(big), err)
	}
	if out, _, err := run(t, c, `kill -TERM $$`, nil); !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("%q, %v", out, err)
	}
	// What is left in the background does not keep the client.
	if out, _, err := run(t, c, `sleep 1000 & echo $!`, nil); err != nil {
		t.Errorf("%q, %v", out, err)
	} else if _, _, err := run(t, c, "kill "+out, nil); err != nil {
		t.Error(err)
	}
}

func TestShellOnATerminal(t *testing.T) {
	// A job in the background ignores Ctrl-C, and so would what it starts: with a
	// handler here, children begin with the default.
	handled := make(chan os.Signal, 1)
	signal.Notify(handled, os.Interrupt)
	defer signal.Stop(handled)
	ann := newKey(t, "ann")
	s, _ := newServer(t, ann.line)
	session, err := s.client(t, ann).NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestPty("xterm-256color", 40, 132, ssh.TerminalModes{}); err != nil {
		t.Fatal(err)
	}
	in, err := session.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Shell(); err != nil {
		t.Fatal(err)
	}
	var seen strings.Builder
	times := func(n int, want string) {
		t.Helper()
		b := make([]byte, 1024)
		for strings.Count(seen.String(), want) < n {
			n, err := out.Read(b)
			seen.Write(b[:n])
			if err != nil {
				t.Fatalf("%q did not come: %q, %v", want, seen.String(), err)
			}
		}
	}
	until := func(want string) {
		t.Helper()
		times(1, want)
	}
	send := func(line string) {
		t.Helper()
		if _, err := io.WriteString(in, line); err != nil {
			t.Fatal(err)
		}
	}
	until("This is the rescue shell.\r\n")
	send("stty size; echo $TERM; tty\n")
	until("40 132\r\n")
	until("xterm-256color\r\n")
	until("/dev/pts/")
	if err := session.WindowChange(50, 100); err != nil {
		t.Fatal(err)
	}
	send("stty size\n")
	until("50 100\r\n")
	send("cat\n")
	send("a line\n")
	times(2, "a line\r\n") // the terminal's echo, and cat's
	prompts := strings.Count(seen.String(), "rescue:")
	send("\x03")                // Ctrl-C ends cat, and the shell goes on
	times(prompts+1, "rescue:") // what was typed ahead of it would be lost
	send("echo still $((40+2))\n")
	until("still 42")
	send("exit 5\n")
	var exit *ssh.ExitError
	if err := session.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 5 {
		t.Errorf("%v", err)
	}
}

// Nothing but shells and commands is to be had.
func TestNoForwarding(t *testing.T) {
	ann := newKey(t, "ann")
	s, _ := newServer(t, ann.line)
	c := s.client(t, ann)
	if conn, err := c.Dial("tcp", "127.0.0.1:22"); err == nil {
		t.Error("a connection was forwarded")
		_ = conn.Close()
	}
	if l, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a port was opened for a client")
		_ = l.Close()
	}
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.RequestSubsystem("sftp"); err == nil {
		t.Error("a subsystem was opened")
	}
	if err := session.Setenv("LD_PRELOAD", "/tmp/x.so"); err == nil {
		t.Error("a variable of the loader's was taken")
	}
}

// A client that is gone takes its shell with it, also one that does not listen to
// a hang-up, as whatever was started by nohup.
func TestHangUp(t *testing.T) {
	for _, command := range []string{"echo ready; sleep 100000", "trap '' HUP; echo ready; sleep 100000"} {
		ann := newKey(t, "ann")
		s, _ := newServer(t, ann.line)
		c := s.client(t, ann)
		session, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		out, err := session.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := session.RequestPty("xterm", 24, 80, ssh.TerminalModes{}); err != nil {
			t.Fatal(err)
		}
		if err := session.Start(command); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, len("ready"))); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		s.Drain() // returns once it has ended
	}
}

func TestConnectionsHaveABound(t *testing.T) {
	ann := newKey(t, "ann")
	s, _ := newServer(t, ann.line)
	for range maxConnections {
		s.client(t, ann)
	}
	if c, err := s.dial(t, "root", ssh.PublicKeys(ann.signer)); err == nil {
		t.Error("one more was let in")
		_ = c.Close()
	}
}
