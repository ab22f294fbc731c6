package registry

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/rackseed/rackseed/services/state"
)

// Clients log in as Docker's do
// (https://distribution.github.io/distribution/spec/auth/token/): what is
// refused names tokenPath, where a name and a password, or a name and an API
// token, are exchanged for a bearer token. Name and password may also come with
// each request (Basic, RFC 7617), as may an API token (Bearer).
const (
	tokenPath = Path + "token"
	service   = "rackseed"
	// anonymous is the bearer token of those who come without credentials,
	// because clients insist on one. It gives nothing.
	anonymous = "anonymous"

	sessionLifetime = time.Hour
	maxSessions     = 256
)

// sessions remember who proved a password, so that a push of many requests
// costs it once. A session is named by a keyed hash of name and password, which
// is also its bearer token: nobody who lacks the password can make it up. It
// ends with the user's password, with the process, or when its time is over;
// when the table is full, the one that would end first goes.
type sessions struct {
	key [32]byte

	mu   sync.Mutex
	open map[string]session
}

type session struct {
	name     string
	password []byte // the user's PasswordHash when it was opened
	expires  time.Time
}

func newSessions() *sessions {
	s := &sessions{open: map[string]session{}}
	rand.Read(s.key[:]) // never fails since Go 1.24
	return s
}

// token names the session of a name and a password.
func (s *sessions) token(name, password string) string {
	h := hmac.New(sha256.New, s.key[:])
	fmt.Fprintf(h, "%d:%s%s", len(name), name, password)
	return hex.EncodeToString(h.Sum(nil))
}

// owner says whose session a token is.
func (s *sessions) owner(view state.View, token string, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.open[token]
	if !ok {
		return "", false
	}
	user, known := view.User(one.name)
	if !known || !slices.Equal(user.PasswordHash, one.password) || !now.Before(one.expires) {
		delete(s.open, token)
		return "", false
	}
	return one.name, true
}

func (s *sessions) add(token string, one session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.open[token]; !known && len(s.open) >= maxSessions {
		var first string
		for t, o := range s.open {
			if first == "" || o.expires.Before(s.open[first].expires) {
				first = t
			}
		}
		delete(s.open, first)
	}
	s.open[token] = one
}

// person is who asks; the zero value is anybody. token is a bearer token that
// proves it again.
type person struct{ name, token string }

// by is how a person is named in the log of commands.
func (p person) by() string { return "operator:" + p.name }

// errNobody is the error of credentials that are nobody's.
type errNobody struct{ error }

// identify finds out who asks.
func (g *Registry) identify(r *http.Request) (person, error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return person{}, nil
	}
	kind, token, _ := strings.Cut(header, " ")
	switch token = strings.TrimSpace(token); {
	case strings.EqualFold(kind, "Bearer"):
		return g.bearer(token)
	case strings.EqualFold(kind, "Basic"):
		name, secret, ok := r.BasicAuth()
		if !ok {
			return person{}, errNobody{errors.New("the credentials are not in the form of RFC 7617")}
		}
		return g.basic(r, name, secret)
	}
	return person{}, errNobody{fmt.Errorf("authorization %.20q: Basic or Bearer is expected", kind)}
}

func (g *Registry) bearer(token string) (person, error) {
	if token == anonymous {
		return person{}, nil
	}
	if name, ok := g.TokenOwner(token); ok {
		return person{name, token}, nil
	}
	if name, ok := g.sessions.owner(g.Store.View(), token, g.Now()); ok {
		return person{name, token}, nil
	}
	return person{}, errNobody{errors.New("this token is not valid, or no longer: log in again")}
}

func (g *Registry) basic(r *http.Request, name, secret string) (person, error) {
	if name == "" && secret == "" { // how some clients say that they have none
		return person{}, nil
	}
	if owner, ok := g.TokenOwner(secret); ok {
		if owner != name {
			return person{}, errNobody{fmt.Errorf("this token is not of %.40q: give the name of its owner", name)}
		}
		return person{name, secret}, nil
	}
	token := g.sessions.token(name, secret)
	view := g.Store.View()
	if _, ok := g.sessions.owner(view, token, g.Now()); ok {
		return person{name, token}, nil
	}
	if err := g.CheckPassword(r, name, secret); err != nil {
		return person{}, err
	}
	user, ok := view.User(name)
	if !ok {
		return person{}, errNobody{errors.New("name or password is wrong")}
	}
	g.sessions.add(token, session{name, user.PasswordHash, g.Now().Add(sessionLifetime)})
	return person{name, token}, nil
}

// admit says whether who asks may do what is asked. What is not a change may be
// done by anybody, except to ask whether one is known.
func admit(r *http.Request, who person) error {
	if who.name != "" {
		return nil
	}
	if safe := r.Method == http.MethodGet || r.Method == http.MethodHead; safe && r.URL.Path != Path {
		return nil
	}
	return errNobody{errors.New("pushing needs an operator: log in with a user's name and password, or with a name and an API token")}
}

// challenge answers a request that may not go on, and says where to log in.
func (g *Registry) challenge(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusInternalServerError
	var known interface{ GetStatus() int } // of the people's API
	var nobody errNobody
	switch {
	case errors.As(err, &nobody):
		status = http.StatusUnauthorized
	case errors.As(err, &known):
		status = known.GetStatus()
	}
	var more interface{ GetHeaders() http.Header }
	if errors.As(err, &more) {
		for name, values := range more.GetHeaders() {
			w.Header()[name] = values
		}
	}
	code := map[int]string{
		http.StatusUnauthorized:    ociregistry.ErrUnauthorized.Code(),
		http.StatusTooManyRequests: ociregistry.ErrTooManyRequests.Code(),
	}[status]
	if code == "" {
		code = codeUnavailable
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", challengeOf(r))
	}
	g.writeError(w, r, &refusal{status, code, err.Error()})
}

// challengeOf is what a 401 asks for (RFC 6750 §3).
func challengeOf(r *http.Request) string {
	if r.URL.Path == tokenPath {
		return "Basic realm=" + strconv.Quote(service)
	}
	scheme := "https"
	if r.TLS == nil {
		scheme = "http"
	}
	c := "Bearer realm=" + strconv.Quote(scheme+"://"+r.Host+tokenPath) + ",service=" + strconv.Quote(service)
	if repo := repositoryOf(r.URL.Path); repo != "" {
		c += ",scope=" + strconv.Quote("repository:"+repo+":pull,push")
	}
	switch r.Header.Get("Authorization") {
	case "":
	case "Bearer " + anonymous:
		c += `,error="insufficient_scope"`
	default:
		c += `,error="invalid_token"`
	}
	return c
}

// serveToken exchanges a name and a password, or an API token, for a bearer
// token. Which scopes are asked for does not matter: an operator may do all.
func (g *Registry) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", http.MethodGet)
		g.writeError(w, r, refuse(http.StatusMethodNotAllowed, ociregistry.ErrUnsupported, "%s: only GET is answered here", tokenPath))
		return
	}
	who, err := g.identify(r)
	if err != nil {
		g.challenge(w, r, err)
		return
	}
	if who.token == "" {
		who.token = anonymous
	}
	body, err := json.Marshal(map[string]any{
		"token": who.token, "access_token": who.token,
		"expires_in": int(sessionLifetime / time.Second), "issued_at": g.Now().UTC().Format(time.RFC3339),
	})
	if err != nil {
		g.writeError(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // that the client went away concerns nobody
}
