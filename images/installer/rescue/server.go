// Package rescue is the shell that operators get on a machine whose own system
// is broken: by SSH, as root, with the site's keys and no other.
//
// It is golang.org/x/crypto/ssh itself: gliderlabs/ssh changes what full-screen
// programs write, and a Debian sshd or dropbear would bring its own files, users
// and keys into an initramfs that every machine in a storm downloads.
//
// There is no shell on the machine's own screen: who stands there owns the
// machine anyway, but not before having taken out its disks.
package rescue

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/images/pid1"
	"golang.org/x/crypto/ssh"
)

const (
	// maxConnections bounds who is connected at a time; more are turned away.
	maxConnections = 16
	// maxSessions bounds the shells and commands of one connection.
	maxSessions = 16
	// handshakeLimit bounds the time until a client has logged in.
	handshakeLimit = 30 * time.Second
)

// Server is the rescue shell.
type Server struct {
	Log      *slog.Logger
	Children *pid1.Children
	Listen   string        // address; "" is port 22 of all
	Address  func() string // under which the machine is reached, for people
	Shell    []string      // program and arguments that make it a login shell
	Greeting string        // what a login shell begins with

	mu       sync.Mutex
	keys     []key
	given    []string // as they came
	listener net.Listener
	host     ssh.Signer
	open     int
	refused  int // log-ins without a right key
	sessions sync.WaitGroup
}

// Serve lets these keys log in, and no others, from now on. The first time it
// opens the port, with a host key that exists in memory only. Without a key it
// says so, and opens nothing.
func (s *Server) Serve(keys []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given != nil && slices.Equal(s.given, keys) && (s.listener != nil || len(s.keys) == 0) {
		return nil
	}
	parsed, refused := parseKeys(keys)
	s.keys, s.given = parsed, append([]string{}, keys...)
	for _, err := range refused {
		s.Log.Warn("a key is left out", "error", err)
	}
	if len(parsed) == 0 {
		s.Log.Error("the rescue shell stays shut: the site has no SSH key that could log in; give sshKeys in the site file or in the console's settings, and it opens")
		return nil
	}
	if s.listener == nil {
		if err := s.listen(); err != nil {
			return err
		}
	}
	s.Log.Info("rescue shell: log in with: ssh root@"+s.Address(), "hostKey", ssh.FingerprintSHA256(s.host.PublicKey()))
	for _, k := range parsed {
		s.Log.Info("may log in", "key", k.name())
	}
	return nil
}

func (s *Server) listen() error {
	if s.host == nil {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		if s.host, err = ssh.NewSignerFromKey(private); err != nil {
			return err
		}
	}
	address := s.Listen
	if address == "" {
		address = ":22"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("the rescue shell: %w", err)
	}
	s.listener = l
	go s.accept(l)
	return nil
}

// Drain takes no more log-ins, and waits until the last shell has ended: nobody
// is cut off in the middle of a repair.
func (s *Server) Drain() {
	s.mu.Lock()
	l := s.listener
	s.listener, s.keys, s.given = nil, nil, nil
	s.mu.Unlock()
	if l != nil {
		// It accepts nothing any more either way.
		_ = l.Close()
	}
	s.sessions.Wait()
}

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.Log.Warn("the rescue shell", "error", err)
			time.Sleep(time.Second)
			continue
		case !s.enter():
			_ = c.Close() // turned away: there is nothing to tell it
			continue
		}
		go func() {
			defer s.leave()
			defer s.guard()
			s.connection(c)
		}()
	}
}

// guard keeps a fault of ours in one connection from ending PID 1, and with it
// the machine.
func (s *Server) guard() {
	if p := recover(); p != nil {
		s.Log.Error("a fault of the rescue shell", "fault", p)
	}
}

func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open >= maxConnections {
		return false
	}
	s.open++
	return true
}

func (s *Server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
}

const keyExtension = "key"

// connection is one client's, from its first byte on.
func (s *Server) connection(c net.Conn) {
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return
	}
	s.mu.Lock()
	host := s.host
	s.mu.Unlock()
	config := &ssh.ServerConfig{
		ServerVersion: "SSH-2.0-Rackseed",
		PublicKeyCallback: func(who ssh.ConnMetadata, offered ssh.PublicKey) (*ssh.Permissions, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			k, ok := find(s.keys, offered)
			if !ok || who.User() != "root" {
				return nil, errors.New("only root logs in, with one of the site's keys")
			}
			return &ssh.Permissions{Extensions: map[string]string{keyExtension: k.name()}}, nil
		},
	}
	config.AddHostKey(host)
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		s.refuse(c.RemoteAddr(), err)
		return
	}
	defer conn.Close()
	if err := c.SetDeadline(time.Time{}); err != nil {
		return
	}
	from, by := conn.RemoteAddr().String(), conn.Permissions.Extensions[keyExtension]
	s.Log.Info("rescue shell: logged in", "from", from, "key", by)
	go ssh.DiscardRequests(requests)
	running := make(chan struct{}, maxSessions)
	for channel := range channels {
		if channel.ChannelType() != "session" {
			s.reject(channel, ssh.Prohibited, "only shells and commands: no forwarding")
			continue
		}
		select {
		case running <- struct{}{}:
		default:
			s.reject(channel, ssh.ResourceShortage, fmt.Sprintf("%d shells are open on this connection", maxSessions))
			continue
		}
		if !s.begin() {
			<-running
			s.reject(channel, ssh.Prohibited, "the rescue shell has ended")
			continue
		}
		accepted, asked, err := channel.Accept()
		if err != nil {
			<-running
			s.sessions.Done()
			continue
		}
		go func() {
			defer func() { <-running; s.sessions.Done() }()
			defer s.guard()
			(&session{Server: s, channel: accepted, from: from}).serve(asked)
		}()
	}
	s.Log.Info("rescue shell: logged out", "from", from)
}

// begin counts a session, unless there are to be no more.
func (s *Server) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listener == nil {
		return false
	}
	s.sessions.Add(1)
	return true
}

func (s *Server) reject(c ssh.NewChannel, why ssh.RejectionReason, text string) {
	// A client that is gone needs no answer.
	_ = c.Reject(why, text)
}

// refuse tells of log-ins that did not succeed: the first, then at each power of
// two, so that a scanner does not fill the log.
func (s *Server) refuse(from net.Addr, err error) {
	s.mu.Lock()
	s.refused++
	n := s.refused
	s.mu.Unlock()
	if n&(n-1) == 0 {
		s.Log.Warn("rescue shell: a log-in was refused", "from", from, "so far", n, "error", firstLine(err))
	}
}

// firstLine bounds what a stranger can have logged.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return string(bytes.ToValidUTF8([]byte(line[:min(len(line), 200)]), nil))
}
