package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/rackseed/rackseed/services/state"
)

const (
	// CookieName is the cookie that holds a browser's token.
	CookieName = "rackseed"
	// HeaderCSRF must be on every request of a browser that changes something.
	// Another site's page cannot set it without a CORS preflight, which is
	// never granted.
	HeaderCSRF = "X-Rackseed"

	loginLifetime = 7 * 24 * time.Hour
	logoutPath    = "/api/logout"
)

// public are the API's only routes that need no token.
var public = map[string]bool{
	"GET /api/health": true,
	"POST /api/setup": true,
	"POST /api/login": true,
}

// guarded are what a login that only reads does not get: this replica's state may be
// old, and with it the password that let somebody in.
var guarded = map[string]bool{"/api/kubeconfig": true, "/api/backup": true}

var (
	errNoToken  = errors.New("log in first: rackseed login, or the console's page; or send Authorization: Bearer TOKEN")
	errBadToken = errors.New("this token is not valid, or no longer: log in again")
	errReads    = errors.New("no replica leads, so nothing can be changed, and no credentials are given out; this login only reads, and ends when one leads. Root on a node has backups in /var/lib/rackseed/replica/backup, and on a control plane /etc/kubernetes/admin.conf")
	errCSRF     = errors.New("a change by cookie needs the header " + HeaderCSRF + ": 1, which the console sends")
)

// person is who asks.
type person struct {
	name    string
	hash    []byte    // SHA-256 of the token
	expires time.Time // zero for a token of the site file
	reads   bool      // logged in while nobody led: nothing can be changed
	epoch   uint64    // of the state then
}

// by is how the person is named in the log of commands.
func (p person) by() string { return "operator:" + p.name }

type personKey struct{}

// asker is the person whose request ctx belongs to.
func asker(ctx context.Context) person {
	p, _ := ctx.Value(personKey{}).(person)
	return p
}

// hashToken is the form in which tokens are kept.
func hashToken(token string) []byte {
	h := sha256.Sum256([]byte(token))
	return h[:]
}

// randomHex draws n bytes.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// newToken makes a bearer token of 256 random bits.
func newToken() string {
	var b [32]byte
	rand.Read(b[:]) // never fails since Go 1.24
	return "rs_" + base64.RawURLEncoding.EncodeToString(b[:])
}

// SetupHash is the form in which the state keeps a setup code. Codes are typed
// from a screen: case, hyphens and spaces do not matter, and the letters that
// Crockford's alphabet leaves out count as the digits they look like.
func SetupHash(code string) []byte {
	code = strings.NewReplacer("-", "", " ", "", "O", "0", "I", "1", "L", "1").Replace(strings.ToUpper(code))
	h := sha256.Sum256([]byte(code))
	return h[:]
}

// tokenOf finds the request's token. A bearer token goes before the cookie.
func tokenOf(r *http.Request) (token string, cookie bool) {
	if kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(kind, "Bearer") {
		return strings.TrimSpace(token), false
	}
	if c, err := r.Cookie(CookieName); err == nil {
		return c.Value, true
	}
	return "", false
}

// identify decides who holds the token whose hash is given: an operator of the
// site file, or somebody who logged in. It compares hashes of random tokens:
// how long that takes tells nothing about them.
func identify(view state.View, hash []byte, now time.Time) (person, bool) {
	if site, ok := view.Site(); ok {
		for _, o := range site.Operators {
			if strings.EqualFold(o.TokenSHA256, hex.EncodeToString(hash)) {
				return person{name: o.Name, hash: hash}, true
			}
		}
	}
	login, ok := view.Login(hash)
	if !ok || !now.Before(login.Expires) {
		return person{}, false
	}
	return person{name: login.User, hash: hash, expires: login.Expires}, true
}

// admit decides whether a request may go on, and as whom. status is an HTTP
// status when it may not.
func admit(r *http.Request, identify func(hash []byte) (person, bool)) (p person, status int, err error) {
	token, cookie := tokenOf(r)
	if public[r.Method+" "+r.URL.Path] {
		if safe(r.Method) && token != "" {
			p, _ = identify(hashToken(token)) // who has one may be told more
		}
		return p, 0, nil
	}
	if token == "" {
		return person{}, http.StatusUnauthorized, errNoToken
	}
	p, ok := identify(hashToken(token))
	if !ok {
		return person{}, http.StatusUnauthorized, errBadToken
	}
	if p.reads && (!safe(r.Method) || guarded[r.URL.Path]) && r.URL.Path != logoutPath {
		return person{}, http.StatusServiceUnavailable, errReads
	}
	if cookie && !safe(r.Method) && r.Header.Get(HeaderCSRF) != "1" {
		return person{}, http.StatusForbidden, errCSRF
	}
	return p, 0, nil
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions
}

// guard lets nothing through that admit does not. Every route below /api/ is
// behind it, so that one which is added needs a token without anyone thinking
// of it.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, status, err := admit(r, s.identify)
		if err != nil {
			writeProblem(w, status, err.Error())
			return
		}
		ctx := context.WithValue(r.Context(), personKey{}, p)
		next.ServeHTTP(w, r.WithContext(context.WithValue(ctx, remoteKey{}, remote(r))))
	})
}

type remoteKey struct{}

// remote is the address of the client.
func remote(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr()
}

// cookie carries a token, or with an empty one removes it.
func cookie(token string, lifetime time.Duration) string {
	c := http.Cookie{
		Name: CookieName, Value: token, Path: "/", MaxAge: int(lifetime / time.Second),
		HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode,
	}
	if token == "" {
		c.MaxAge = -1
	}
	return c.String()
}

// TokenOwner says whose token this is, for servers beside the API's.
func (s *Server) TokenOwner(token string) (name string, ok bool) {
	p, ok := identify(s.Store.View(), hashToken(token), s.Now())
	return p.name, ok
}

// CheckPassword says whether a password is the user's, for servers beside the
// API's. It is bounded as a login is; its error is one of huma's.
func (s *Server) CheckPassword(r *http.Request, name, password string) error {
	return s.checkPassword(context.WithValue(r.Context(), remoteKey{}, remote(r)), name, password)
}
