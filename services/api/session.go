package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"golang.org/x/crypto/bcrypt"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// tellLimit is the longest that an answer waits for its event.
const tellLimit = 2 * time.Second

// bcrypt reads no more than 72 bytes of a password.
const (
	minPassword = 10
	maxPassword = 72
)

var userName = regexp.MustCompile(`^[a-z][a-z0-9._-]{0,31}$`)

// nobody is compared with when the name is unknown, so that the time taken
// does not tell which names exist.
var nobody = []byte("$2a$10$Y3ZmXeMSDuUvSwFUBmsNhOJvBSiTGmqcmb5Y6PFgHEJ0i4OmU9T4y")

type sessionOutput struct {
	SetCookie string `header:"Set-Cookie"`
	Body      Login
}

func (s *Server) registerSession(api huma.API) {
	huma.Register(api, huma.Operation{
		OperationID: "setup", Method: http.MethodPost, Path: "/api/setup", Tags: []string{"session"},
		Summary:     "Make the first login",
		Description: "With the setup code on the appliance's screen. It works once.",
		Errors:      []int{http.StatusForbidden, http.StatusConflict, http.StatusTooManyRequests},
	}, func(ctx context.Context, in *struct{ Body SetupRequest }) (*sessionOutput, error) {
		return s.setup(ctx, in.Body)
	})
	huma.Register(api, huma.Operation{
		OperationID: "login", Method: http.MethodPost, Path: "/api/login", Tags: []string{"session"},
		Summary:     "Log in",
		Description: "Where no replica leads for 10 s, the login only reads.",
		Errors:      []int{http.StatusUnauthorized, http.StatusTooManyRequests},
	}, func(ctx context.Context, in *struct{ Body LoginRequest }) (*sessionOutput, error) {
		return s.login(ctx, in.Body)
	})
	huma.Register(api, operation("session", http.MethodGet, "/api/session", "session", "Who is logged in"),
		func(ctx context.Context, _ *struct{}) (*struct{ Body Login }, error) {
			p := asker(ctx)
			return &struct{ Body Login }{Login{Name: p.name, Expires: p.expires, Reads: p.reads}}, nil
		})
	huma.Register(api, operation("logout", http.MethodPost, logoutPath, "session", "Log out", http.StatusConflict),
		func(ctx context.Context, _ *struct{}) (*struct {
			SetCookie string `header:"Set-Cookie"`
		}, error) {
			p := asker(ctx)
			if p.expires.IsZero() {
				return nil, huma.Error409Conflict("this token stands in the site file; remove it there to end it")
			}
			s.readings.end(p.hash)
			if !p.reads {
				if _, err := s.propose(ctx, state.LoginEnd{TokenHash: p.hash}); err != nil {
					return nil, err
				}
			}
			return &struct {
				SetCookie string `header:"Set-Cookie"`
			}{cookie("", 0)}, nil
		})
	huma.Register(api, huma.Operation{
		OperationID: "health", Method: http.MethodGet, Path: "/api/health", Tags: []string{"session"},
		Summary: "Is the boot service there; with a token also how its parts are",
	}, func(ctx context.Context, _ *struct{}) (*struct{ Body Alive }, error) {
		cluster, ok := s.Store.View().Cluster()
		alive := Alive{OK: true, Setup: ok && !cluster.SetupUsed}
		if asker(ctx).name != "" {
			alive.Health = s.Status().Health
		}
		return &struct{ Body Alive }{alive}, nil
	})
}

func (s *Server) setup(ctx context.Context, in SetupRequest) (*sessionOutput, error) {
	if err := s.attempt(ctx); err != nil {
		return nil, err
	}
	cluster, ok := s.Store.View().Cluster()
	switch {
	case !ok:
		return nil, huma.Error503ServiceUnavailable("the boot service is still starting; try again in a few seconds")
	case cluster.SetupUsed:
		return nil, huma.Error409Conflict("the setup code was used already: log in")
	}
	if err := checkUser(in.Name, in.Password); err != nil {
		return nil, huma.Error422UnprocessableEntity(err.Error())
	}
	hash, err := s.bcrypt(ctx, func() ([]byte, error) {
		return bcrypt.GenerateFromPassword([]byte(in.Password), bcrypt.DefaultCost)
	})
	if err != nil {
		return nil, err
	}
	_, err = s.proposeAs(ctx, "operator:"+in.Name, state.UserPut{
		Name: in.Name, PasswordHash: hash, SetupHash: SetupHash(in.Code),
	})
	var refusal *state.Refusal
	if errors.As(err, &refusal) {
		s.tellRefused(ctx, "", "a setup was refused: "+refusal.Error())
		return nil, huma.Error403Forbidden(refusal.Error())
	}
	if err != nil {
		return nil, s.problem(ctx, err)
	}
	return s.open(ctx, in.Name, in.Cookie)
}

// checkUser says what is wrong with a new login.
func checkUser(name, password string) error {
	switch {
	case !userName.MatchString(name):
		return fmt.Errorf("name %q: up to 32 of a-z, 0-9, dot, hyphen, underscore are expected, beginning with a letter", name)
	case len(password) < minPassword || len(password) > maxPassword:
		return fmt.Errorf("password: %d to %d bytes are expected, not %d", minPassword, maxPassword, len(password))
	}
	return nil
}

func (s *Server) login(ctx context.Context, in LoginRequest) (*sessionOutput, error) {
	if err := s.checkPassword(ctx, in.Name, in.Password); err != nil {
		return nil, err
	}
	return s.open(ctx, in.Name, in.Cookie)
}

// checkPassword says whether a password is the user's. It counts as an attempt.
func (s *Server) checkPassword(ctx context.Context, name, password string) error {
	if err := s.attempt(ctx); err != nil {
		return err
	}
	user, known := s.Store.View().User(name)
	hash := nobody
	if known {
		hash = user.PasswordHash
	}
	if len(password) > maxPassword { // no password is longer, and bcrypt would refuse it at once
		password, known = password[:maxPassword], false
	}
	_, err := s.bcrypt(ctx, func() ([]byte, error) {
		return nil, bcrypt.CompareHashAndPassword(hash, []byte(password))
	})
	if err != nil && !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		return err
	}
	if err != nil || !known {
		who := ""
		if known { // what is no name here may be a password in the wrong field
			who = name
		}
		s.tellRefused(ctx, who, "a login was refused: name or password is wrong")
		return huma.Error401Unauthorized("name or password is wrong")
	}
	return nil
}

// tellRefused notes that somebody was not let in, once for a source and reason in
// a while: guesses go on for hours, and anybody can make them. It does not depend
// on the name, or the time taken would tell which there are.
func (s *Server) tellRefused(ctx context.Context, user, why string) {
	addr, _ := ctx.Value(remoteKey{}).(netip.Addr)
	source := sourceOf(addr).Addr().String()
	if !s.refused.Due(source+" "+why, s.Now()) {
		return
	}
	text := fmt.Sprintf("From %s %s", source, why)
	if user != "" {
		text += " (user " + user + ")"
	}
	note := state.Note{What: "login.refused", Severity: machine.Warning, Text: text, Data: map[string]string{"from": source, "user": user}}
	if user == "" {
		delete(note.Data, "user")
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit) // the answer waits for it
	defer cancel()
	if _, err := s.Store.Propose(ctx, "api", note); err != nil {
		s.Logger.Warn("api: an event was not committed", "kind", note.What, "error", err)
	}
}

// open begins a session of somebody who has proved who they are.
func (s *Server) open(ctx context.Context, name string, asCookie bool) (*sessionOutput, error) {
	token := newToken()
	expires := s.Now().Add(loginLifetime).UTC().Truncate(time.Second)
	_, err := s.proposeAs(ctx, "operator:"+name, state.LoginOpen{TokenHash: hashToken(token), User: name, Expires: expires})
	out, lifetime := &sessionOutput{Body: Login{Name: name, Expires: expires}}, loginLifetime
	var refusal *state.Refusal
	switch {
	case err == nil:
	case errors.As(err, &refusal), ctx.Err() != nil, s.led():
		return nil, s.problem(ctx, err)
	default:
		out.Body, lifetime = s.openReading(token, name), readingLifetime
	}
	if asCookie {
		out.SetCookie = cookie(token, lifetime)
	} else {
		out.Body.Token = token
	}
	return out, nil
}

// attempt counts a try at a secret against the client's address.
func (s *Server) attempt(ctx context.Context) error {
	addr, _ := ctx.Value(remoteKey{}).(netip.Addr)
	wait, ok := s.attempts.allow(addr, s.Now())
	if ok {
		return nil
	}
	seconds := int(wait/time.Second) + 1
	s.tellRefused(ctx, "", "more attempts at a password or setup code came than are taken from one address; others are not kept from theirs")
	return huma.ErrorWithHeaders(
		huma.Error429TooManyRequests(fmt.Sprintf("too many attempts from %s: try again in %d s", addr, seconds)),
		http.Header{"Retry-After": {strconv.Itoa(seconds)}})
}

// bcrypt runs one of at most two at a time: each takes a tenth of a second of
// a processor that DHCP needs too.
func (s *Server) bcrypt(ctx context.Context, f func() ([]byte, error)) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, proposeTimeout)
	defer cancel()
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
		return f()
	case <-ctx.Done():
		return nil, huma.Error503ServiceUnavailable("too many logins at once: try again in a few seconds")
	}
}
