package cli

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
)

func (o *options) setup() *cobra.Command {
	var in api.SetupRequest
	c := &cobra.Command{
		Use:   "setup",
		Short: "Make the first login, with the setup code on the appliance's screen",
		Example: `  rackseed setup --server https://192.0.2.1 --fingerprint AB:CD:… --code ABCD-EFGH-JKMN-PQRS --name ann
  The password is asked for, or read from standard input.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a := newAsker(cmd)
			err := o.begin(cmd, a, "/api/setup", func() (any, error) {
				if err := a.fill(&in.Code, "Setup code"); err != nil {
					return nil, err
				}
				err := a.fill(&in.Name, "Name")
				if err != nil {
					return nil, err
				}
				in.Password, err = a.secret("New password (10 characters at least)")
				return in, err
			})
			if err != nil {
				return err
			}
			c, err := o.connect()
			if err == nil {
				err = firstRecoveryKey(cmd.Context(), c, cmd.OutOrStdout())
			}
			if err != nil { // the login is made all the same
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "No recovery key was made: %v\nMake it later, with: rackseed recovery-key\n", err)
			}
			return err
		},
	}
	c.Flags().StringVar(&in.Code, "code", "", "setup code")
	c.Flags().StringVar(&in.Name, "name", "", "login name")
	return c
}

func (o *options) login() *cobra.Command {
	var in api.LoginRequest
	c := &cobra.Command{
		Use:   "login",
		Short: "Log in and keep the login for the other commands",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a := newAsker(cmd)
			return o.begin(cmd, a, "/api/login", func() (any, error) {
				err := a.fill(&in.Name, "Name")
				if err != nil {
					return nil, err
				}
				in.Password, err = a.secret("Password")
				return in, err
			})
		},
	}
	c.Flags().StringVar(&in.Name, "name", "", "login name")
	return c
}

// begin begins a session and keeps it.
func (o *options) begin(cmd *cobra.Command, a *asker, path string, ask func() (any, error)) error {
	kept, err := load()
	if err != nil && !errors.Is(err, errNoLogin) {
		return err
	}
	who := choose(o.credentials, fromEnv(), kept)
	// The first line of a pipe is the password, or the name: no server.
	if _, person := a.terminal(); who.Server == "" && !person {
		return usageError{errors.New("--server is needed, or RACKSEED_SERVER: the boot service's URL, as https://192.0.2.1; it stands on the appliance's screen")}
	}
	if err := a.fill(&who.Server, "Boot service's URL"); err != nil {
		return err
	}
	if who.Fingerprint == "" {
		if who.Fingerprint, err = a.confirm(cmd.Context(), who.Server); err != nil {
			return err
		}
	}
	c, err := client.New(who.Server, who.Fingerprint, "")
	if err != nil {
		return usageError{err}
	}
	in, err := ask()
	if err != nil {
		return err
	}
	session, err := enter(cmd, c, path, in)
	if err != nil {
		return err
	}
	now := credentials{Server: c.Server().String(), Fingerprint: who.Fingerprint, Token: session.Token}
	if session.Reads && kept.Token != "" {
		now.Before = cmp.Or(kept.Before, &kept)
	}
	file, err := save(now)
	if err != nil {
		return fmt.Errorf("logged in, but the login cannot be kept: %w", err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "Logged in to %s as %s until %s; kept in %s\n",
		c.Server(), session.Name, session.Expires.Local().Format(time.DateTime), file)
	if err == nil && session.Reads {
		text := "No replica leads: this login only reads, at this replica alone, and ends when one leads."
		if now.Before != nil {
			text += " The one to " + now.Before.Server + " is kept: rackseed logout goes back to it."
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	}
	return err
}

// slowLogin is after what time it is said what a login waits for.
const slowLogin = 3 * time.Second

// enter logs in, and says what it waits for where that takes long.
func enter(cmd *cobra.Command, c *client.Client, path string, in any) (session api.Login, err error) {
	over := make(chan struct{})
	var told sync.WaitGroup
	told.Go(func() {
		select {
		case <-over:
		case <-time.After(slowLogin):
			fmt.Fprintln(cmd.ErrOrStderr(), "No answer yet. Where no replica leads, you are let in after 10 s, to read …")
		}
	})
	err = c.Call(cmd.Context(), http.MethodPost, path, nil, in, &session)
	close(over)
	told.Wait()
	return session, err
}

func (o *options) logout() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "logout", Short: "End the kept login", Args: cobra.NoArgs,
		Long: `End the kept login, at the boot service and here. The boot service's URL and
fingerprint stay known, so that the next rackseed login asks for name and password
alone.

--forget removes them too, and the kept login also where the boot service does
not answer; there it ends by itself when its time is over.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kept, err := load()
			if s := o.credentials.Server; s != "" && err == nil && s != kept.Server {
				return usageError{fmt.Errorf("the login that is kept is to %s, and logout ends that one: without --server", kept.Server)}
			}
			if err == nil && kept.Token != "" {
				err = end(cmd.Context(), kept)
			} else if err == nil {
				err = errNoLogin
			}
			if errors.Is(err, client.ErrInterrupted) || err != nil && !all {
				return err
			}
			text := "Logged out of " + kept.Server + "."
			if kept.Before != nil && !all {
				_, err = save(*kept.Before)
				text += " The login to " + kept.Before.Server + " is used again."
			} else if all {
				text = forgotten(kept, err)
				err = forget()
			} else {
				kept.Token = ""
				_, err = save(kept)
				text += " It stays known for the next rackseed login."
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
			return err
		},
	}
	c.Flags().BoolVar(&all, "forget", false, "forget the boot service's URL and fingerprint too")
	return c
}

// forgotten says what logout --forget did with what was kept; err is why the
// login was not ended at the boot service.
func forgotten(kept credentials, err error) string {
	switch {
	case kept.Server == "" && errors.Is(err, errNoLogin):
		return "Nothing was known of a boot service."
	case kept.Server == "":
		return fmt.Sprintf("What was kept is forgotten; it could not be read: %v.", err)
	case errors.Is(err, errNoLogin):
		return kept.Server + " is forgotten."
	case err != nil:
		return fmt.Sprintf("%s and the login are forgotten here. It was not told, so the login ends there when its time is over: %v", kept.Server, err)
	}
	return "Logged out of " + kept.Server + ", and it is forgotten."
}

// end ends a session at the boot service.
func end(ctx context.Context, login credentials) error {
	c, err := client.New(login.Server, login.Fingerprint, login.Token)
	if err != nil {
		return err
	}
	err = c.Call(ctx, http.MethodPost, "/api/logout", nil, nil, nil)
	var answer *client.AnswerError
	if errors.As(err, &answer) && answer.Status == http.StatusUnauthorized {
		return nil // it is over already
	}
	return err
}

// asker asks the person at the terminal for what flags did not say. Without a
// terminal it reads lines from standard input, so that scripts can answer.
type asker struct {
	in   io.Reader
	line *bufio.Reader
	out  io.Writer
}

func newAsker(cmd *cobra.Command) *asker {
	return &asker{in: cmd.InOrStdin(), line: bufio.NewReader(newInput(cmd)), out: cmd.ErrOrStderr()}
}

// terminal is the file descriptor of the terminal, if there is one.
func (a *asker) terminal() (int, bool) {
	f, ok := a.in.(*os.File)
	if !ok {
		return 0, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// fill asks for v unless it is set.
func (a *asker) fill(v *string, what string) error {
	if *v != "" {
		return nil
	}
	_, person := a.terminal()
	if person {
		fmt.Fprint(a.out, what+": ")
	}
	line, err := a.line.ReadString('\n')
	if errors.Is(err, errInterrupted) {
		if person {
			fmt.Fprintln(a.out) // ends the question's line
		}
		return err
	}
	if *v = strings.TrimSpace(line); *v == "" {
		return unanswered(what, err)
	}
	return nil
}

func unanswered(what string, err error) error {
	return fmt.Errorf("nothing was done, since nothing was answered to %q; a script gives it as a flag or on standard input%s", what, said(err))
}

// said is why no line could be read; an empty line has no reason.
func said(err error) string {
	if err == nil || errors.Is(err, io.EOF) {
		return ""
	}
	return ": " + err.Error()
}

// secret asks for a secret without showing it.
func (a *asker) secret(what string) (string, error) {
	fd, ok := a.terminal()
	if !ok {
		var s string
		return s, a.fill(&s, what)
	}
	show, err := hide(fd)
	if err != nil {
		return "", fmt.Errorf("what is typed cannot be hidden: %w", err)
	}
	fmt.Fprint(a.out, what+": ")
	line, err := a.line.ReadString('\n')
	fmt.Fprintln(a.out)
	if err = errors.Join(err, show()); errors.Is(err, errInterrupted) {
		return "", err
	}
	secret := strings.TrimRight(line, "\r\n")
	if secret == "" {
		return "", unanswered(what, err)
	}
	return secret, nil
}

// hide has a terminal not show what is typed, until show is called.
func hide(fd int) (show func() error, err error) {
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, err
	}
	silent := *before
	silent.Lflag = silent.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	silent.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, err
	}
	return func() error { return unix.IoctlSetTermios(fd, unix.TCSETS, before) }, nil
}

// confirm shows the server's fingerprint and asks whether it is the right one.
// Without a person who can compare, it must be given.
func (a *asker) confirm(ctx context.Context, server string) (string, error) {
	if _, ok := a.terminal(); !ok {
		return "", usageError{errors.New("--fingerprint is needed: the SHA-256 of the server's certificate, on the appliance's screen")}
	}
	u, err := client.ParseServer(server)
	if err != nil {
		return "", usageError{err}
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	dialer := tls.Dialer{
		NetDialer: &net.Dialer{Timeout: 10 * time.Second},
		Config:    &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}, // only to show what it presents
	}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if errors.Is(err, context.Canceled) {
		return "", errInterrupted
	}
	if err != nil {
		return "", fmt.Errorf("%s: no answer: %w; is the address the one on the appliance's screen?", server, err)
	}
	sum := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	if err := conn.Close(); err != nil {
		return "", err
	}
	fmt.Fprintf(a.out, "Fingerprint of %s:\n  %s\n", server, client.Colons(sum[:]))
	var answer string
	if err := a.fill(&answer, "Is it the one on the appliance's screen? (yes/no)"); err != nil {
		return "", err
	}
	if answer != "yes" {
		return "", errors.New("not connected: the fingerprint was not confirmed; somebody may be in between")
	}
	return client.Colons(sum[:]), nil
}
