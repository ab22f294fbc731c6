// Package peerapi is what replicas ask of each other over services/peer: to
// commit a command, what they have, how they are, and to take in a new one.
package peerapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/rackseed/rackseed/services/blob"
	"github.com/rackseed/rackseed/services/handoff"
	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/state"
)

// Paths; all are POST with JSON both ways, but for blobs and output, which
// are read, and backups and output, which are put.
const (
	pathPropose = "/propose"
	pathStored  = "/stored"
	pathReport  = "/report"
	pathSeal    = "/seal"
	pathTry     = "/try"
	pathKeys    = "/keys"
	pathJoin    = "/join" // without a certificate
	pathBlob    = "/blob/"
	pathBackup  = "/backup/"
	pathOutput  = "/output/"
	pathImage   = "/image/"
)

// Names of the secrets that replicas' certificates are issued by.
const (
	SecretKey = "peer/ca.key" // PKCS #8, PEM
	SecretCrt = "peer/ca.crt" // PEM
)

// maxBody bounds a request and an answer, in bytes: a site file or an inventory
// is far smaller.
const maxBody = 8 << 20

// maxJoin bounds what somebody may send who has no certificate, in bytes.
const maxJoin = 16 << 10

// Store is what is asked of a replica's state.
type Store interface {
	Take(ctx context.Context, p state.Proposal) (state.Result, error)
	Propose(ctx context.Context, by string, c state.Command) (state.Result, error)
	Stored() state.Stored
	View() state.View
	Leading() (bool, <-chan struct{})
	Membership() state.Membership
}

// Server answers other replicas.
type Server struct {
	Store  Store
	Report func() (handoff.Report, error)
	// Expects says why a machine's replica is not to join now, though it was invited;
	// nil: any may.
	Expects func(of machine.ID) error
	// Seal writes on the disk that it is over for this replica, as of a handoff.
	Seal func(h machine.Handoff) error
	// Try puts the service to its trials from here, while another replica leads.
	Try func(ctx context.Context, t Trial) ([]handoff.Check, error)
	// Backup keeps a backup of the state up to an entry.
	Backup func(index uint64, from io.Reader) error
	// Fetch brings all of an image here, from other replicas.
	Fetch func(ctx context.Context, manifest blob.Digest) error
	// Output keeps machines' output.
	Output Output
	// Keys are the data keys, for a member that may have them.
	Keys func(member string) ([]keyring.Key, error)
	// Blobs are this replica's.
	Blobs interface {
		Open(d blob.Digest) (blob.File, error)
	}
}

// Trial is how another replica is to try the service that the leader gives.
type Trial struct {
	Service  netip.Addr     `json:"service"`
	Networks []netip.Prefix `json:"networks"` // where it serves DHCP
	Print    string         `json:"print"`    // fingerprint of the console's certificate
}

// Output keeps machines' output; events.Log does.
type Output interface {
	Take(ctx context.Context, of machine.ID, stream string, text []byte) error
	Kept(ctx context.Context, c machine.Chunk) ([]byte, error)
}

// problem is an answer that is no success.
type problem struct {
	Text string `json:"text"`
	// Refused: the rules' no. NotLeading: it did nothing, and another one leads,
	// at Leader if that is known.
	Refused    bool   `json:"refused,omitempty"`
	NotLeading bool   `json:"notLeading,omitempty"`
	Unwritable bool   `json:"unwritable,omitempty"`
	Leader     string `json:"leader,omitempty"`
}

// Members serves other members.
func (s *Server) Members() http.Handler {
	mux := http.NewServeMux()
	handle(mux, pathPropose, s, func(ctx context.Context, p state.Proposal) (state.Result, error) { return s.Store.Take(ctx, p) })
	handle(mux, pathStored, s, func(context.Context, struct{}) (state.Stored, error) { return s.Store.Stored(), nil })
	handle(mux, pathReport, s, func(context.Context, struct{}) (handoff.Report, error) { return s.Report() })
	handle(mux, pathSeal, s, func(ctx context.Context, h machine.Handoff) (struct{}, error) {
		if from := peer.From(ctx); from != s.Store.Membership().Leader {
			return struct{}{}, &state.Refusal{Text: "replica " + from + " does not lead, and may not end another one"}
		}
		return struct{}{}, s.Seal(h)
	})
	handle(mux, pathKeys, s, func(ctx context.Context, _ struct{}) ([]keyring.Key, error) { return s.Keys(peer.From(ctx)) })
	handle(mux, pathTry, s, func(ctx context.Context, t Trial) ([]handoff.Check, error) { return s.Try(ctx, t) })
	mux.HandleFunc("GET "+pathBlob+"{digest}", s.blob)
	mux.HandleFunc("PUT "+pathImage+"{digest}", s.image)
	mux.HandleFunc("PUT "+pathBackup+"{index}", s.backup)
	mux.HandleFunc("PUT "+pathOutput+"{machine}/{stream}", s.take)
	mux.HandleFunc("GET "+pathOutput+"{machine}/{digest}", s.kept)
	return mux
}

// imageDone ends the answer of a replica that has all of an image.
const imageDone = "done"

// image has this replica fetch an image. The answer begins at once, since it may take
// long, and its text says how it ended.
func (s *Server) image(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	err := http.NewResponseController(w).Flush()
	if err == nil {
		err = s.Fetch(r.Context(), blob.Digest(r.PathValue("digest")))
	}
	text := imageDone
	if err != nil {
		text = err.Error()
	}
	io.WriteString(w, text) //nolint // the other side sees that it broke off
}

// take keeps a chunk of a machine's output.
func (s *Server) take(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = s.Output.Take(r.Context(), machine.ID(r.PathValue("machine")), r.PathValue("stream"), text)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// kept sends a chunk of a machine's output.
func (s *Server) kept(w http.ResponseWriter, r *http.Request) {
	text, err := s.Output.Kept(r.Context(), machine.Chunk{Machine: machine.ID(r.PathValue("machine")), Digest: r.PathValue("digest")})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	default:
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Write(text) //nolint // the other side sees that it broke off
	}
}

func (s *Server) backup(w http.ResponseWriter, r *http.Request) {
	index, err := strconv.ParseUint(r.PathValue("index"), 10, 64)
	if err == nil {
		err = s.Backup(index, r.Body)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// blob sends a blob, or a part of it (RFC 9110, section 14).
func (s *Server) blob(w http.ResponseWriter, r *http.Request) {
	f, err := s.Blobs.Open(blob.Digest(r.PathValue("digest")))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}

// Resting serves other members for a replica that is sealed: it says that it is.
func Resting(now func() time.Time) http.Handler {
	mux := http.NewServeMux()
	rests := &Server{}
	handle(mux, pathReport, rests, func(context.Context, struct{}) (handoff.Report, error) {
		return handoff.Report{Sealed: true, Clock: now()}, nil
	})
	return mux
}

// Joins serves who has no certificate yet.
func (s *Server) Joins() http.Handler {
	mux := http.NewServeMux()
	handle(mux, pathJoin, s, s.join)
	return http.MaxBytesHandler(mux, maxJoin)
}

func handle[In, Out any](mux *http.ServeMux, path string, s *Server, do func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		var in In
		status, answer := http.StatusOK, any(nil)
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in)
		if err != nil {
			err = &state.Refusal{Text: fmt.Sprintf("%s: the request is not understood: %v", path, err)}
		} else {
			answer, err = do(r.Context(), in)
		}
		if err != nil {
			p := problem{Text: err.Error(), NotLeading: errors.Is(err, state.ErrNotLeading), Unwritable: errors.Is(err, state.ErrUnwritable)}
			if refusal := (*state.Refusal)(nil); errors.As(err, &refusal) {
				p.Text, p.Refused = refusal.Text, true
			}
			if p.NotLeading {
				if leader, ok := s.Store.View().Replica(s.Store.Membership().Leader); ok {
					p.Leader = leader.Endpoint
				}
			}
			status, answer = http.StatusConflict, p
		}
		b, err := json.Marshal(answer)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		w.Write(b) //nolint // the other side sees that it broke off
	})
}

// Client asks other replicas: state.Peers, and more.
type Client struct{ HTTP *http.Client }

var _ state.Peers = Client{}

// Propose implements state.Peers.
func (c Client) Propose(ctx context.Context, leader string, p state.Proposal) (state.Result, error) {
	return ask[state.Result](ctx, c.HTTP, leader, pathPropose, p)
}

// Stored implements state.Peers.
func (c Client) Stored(ctx context.Context, id string) (state.Stored, error) {
	return ask[state.Stored](ctx, c.HTTP, id, pathStored, struct{}{})
}

// Report asks a replica how it is.
func (c Client) Report(ctx context.Context, id string) (handoff.Report, error) {
	return ask[handoff.Report](ctx, c.HTTP, id, pathReport, struct{}{})
}

// Seal has a replica write that it is over for it.
func (c Client) Seal(ctx context.Context, id string, h machine.Handoff) error {
	_, err := ask[struct{}](ctx, c.HTTP, id, pathSeal, h)
	return err
}

// Keys asks a replica for the data keys that secrets are sealed under.
func (c Client) Keys(ctx context.Context, id string) ([]keyring.Key, error) {
	return ask[[]keyring.Key](ctx, c.HTTP, id, pathKeys, struct{}{})
}

// KeepImage has a replica fetch all of an image, and waits until it is on its disk.
func (c Client) KeepImage(ctx context.Context, id string, manifest blob.Digest) error {
	text, err := c.put(ctx, id, pathImage+string(manifest), nil, http.StatusOK)
	if err == nil && text != imageDone {
		err = fmt.Errorf("replica %s, image %s: %s", id, manifest, cmp.Or(text, "it broke off"))
	}
	return err
}

// Size is how many bytes a replica's blob has; fs.ErrNotExist: it has none.
func (c Client) Size(ctx context.Context, id string, digest blob.Digest) (int64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+id+pathBlob+string(digest), nil)
	if err != nil {
		return 0, err
	}
	a, err := c.HTTP.Do(r)
	if err != nil {
		return 0, err
	}
	switch err := a.Body.Close(); {
	case a.StatusCode == http.StatusNotFound:
		return 0, fmt.Errorf("blob %s: %w", digest, fs.ErrNotExist)
	case a.StatusCode != http.StatusOK || a.ContentLength < 0:
		return 0, fmt.Errorf("blob %s: status %s, %d bytes", digest, a.Status, a.ContentLength)
	default:
		return a.ContentLength, err
	}
}

// Try has a replica put the service to its trials.
func (c Client) Try(ctx context.Context, id string, t Trial) ([]handoff.Check, error) {
	return ask[[]handoff.Check](ctx, c.HTTP, id, pathTry, t)
}

// Blob opens a blob of a replica, from a byte on; fs.ErrNotExist: it has none.
func (c Client) Blob(ctx context.Context, id string, digest blob.Digest, from int64) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+id+pathBlob+string(digest), nil)
	if err != nil {
		return nil, err
	}
	want := http.StatusOK
	if from > 0 {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		want = http.StatusPartialContent
	}
	a, err := c.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	if a.StatusCode == want {
		return a.Body, nil
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, 1<<10))
	switch {
	case err != nil:
		return nil, fmt.Errorf("blob %s: %w", digest, err)
	case a.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("blob %s: %w", digest, fs.ErrNotExist)
	case a.StatusCode == http.StatusRequestedRangeNotSatisfiable: // all of it was there already
		return http.NoBody, nil
	}
	return nil, fmt.Errorf("blob %s: status %s: %s", digest, a.Status, text)
}

// Backup has a replica keep a backup of the state up to an entry.
func (c Client) Backup(ctx context.Context, id string, index uint64, from io.Reader) error {
	_, err := c.put(ctx, id, fmt.Sprint(pathBackup, index), from, http.StatusNoContent)
	return err
}

// Keep has a replica keep a chunk of a machine's output, on its disk.
func (c Client) Keep(ctx context.Context, id string, of machine.ID, stream string, text []byte) error {
	_, err := c.put(ctx, id, pathOutput+url.PathEscape(string(of))+"/"+url.PathEscape(stream), bytes.NewReader(text), http.StatusNoContent)
	return err
}

// Chunk reads a chunk of a machine's output from a replica; fs.ErrNotExist: it has
// it not.
func (c Client) Chunk(ctx context.Context, id string, chunk machine.Chunk) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+id+pathOutput+url.PathEscape(string(chunk.Machine))+"/"+url.PathEscape(chunk.Digest), nil)
	if err != nil {
		return nil, err
	}
	a, err := c.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, maxBody))
	switch {
	case err != nil:
	case a.StatusCode == http.StatusNotFound:
		err = fs.ErrNotExist
	case a.StatusCode != http.StatusOK:
		err = fmt.Errorf("status %s: %s", a.Status, text[:min(len(text), 1<<10)])
	}
	if err != nil {
		return nil, fmt.Errorf("replica %s, output %s: %w", id, chunk.Digest, err)
	}
	return text, nil
}

// put sends what is answered with a status and a few words.
func (c Client) put(ctx context.Context, id, path string, from io.Reader, want int) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, "https://"+id+path, from)
	if err != nil {
		return "", err
	}
	a, err := c.HTTP.Do(r)
	if err != nil {
		return "", err
	}
	defer a.Body.Close()
	text, err := io.ReadAll(io.LimitReader(a.Body, 1<<10))
	if err == nil && a.StatusCode != want {
		err = fmt.Errorf("status %s: %s", a.Status, text)
	}
	if err != nil {
		return "", fmt.Errorf("replica %s, %s: %w", id, path, err)
	}
	return string(text), nil
}

// Answer is what a replica has, or why it did not say so.
type Answer struct {
	Stored state.Stored
	Err    error
}

// AskAll asks replicas at once what they have, for one that does not run yet: in its
// name, at their endpoints by server ID.
func AskAll(ctx context.Context, as peer.Identity, endpoints map[string]string, logger *slog.Logger) map[string]Answer {
	network := peer.New(peer.Config{
		Identity: as, Member: func(id string) bool { return endpoints[id] != "" },
		Endpoint: func(id string) (string, error) { return endpoints[id], nil },
		Members:  http.NotFoundHandler(), Joins: http.NotFoundHandler(), Logger: logger,
	})
	defer network.Close()
	var mu sync.Mutex
	all := map[string]Answer{}
	var asking sync.WaitGroup
	for id := range endpoints {
		asking.Go(func() {
			has, err := Client{HTTP: network.Client()}.Stored(ctx, id)
			mu.Lock()
			defer mu.Unlock()
			all[id] = Answer{has, err}
		})
	}
	asking.Wait()
	return all
}

// errOther is an answer that says what is wrong.
type errOther struct {
	at string
	problem
}

func (e *errOther) Error() string { return fmt.Sprintf("replica %s: %s", e.at, e.Text) }

func (e *errOther) Unwrap() error {
	switch {
	case e.Refused:
		return &state.Refusal{Text: e.Text}
	case e.NotLeading:
		return state.ErrNotLeading
	case e.Unwritable:
		return state.ErrUnwritable
	}
	return nil
}

// ask sends one request to a replica, by its ID or by its endpoint. An error of
// the connection itself is state.ErrNotLeading too: nothing was asked then.
func ask[Out any](ctx context.Context, client *http.Client, to, path string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+to+path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	r.Header.Set("Content-Type", "application/json")
	a, err := client.Do(r)
	if err != nil {
		if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, peer.ErrNoMember) {
			err = fmt.Errorf("%w: %w", state.ErrNotLeading, err)
		}
		return out, err
	}
	defer a.Body.Close()
	b, err := io.ReadAll(io.LimitReader(a.Body, maxBody))
	if err != nil {
		return out, fmt.Errorf("replica %s, %s: %w", to, path, err)
	}
	if a.StatusCode != http.StatusOK {
		e := &errOther{at: to}
		if json.Unmarshal(b, &e.problem) != nil || e.Text == "" {
			return out, fmt.Errorf("replica %s, %s: status %s", to, path, a.Status)
		}
		return out, e
	}
	if err := json.Unmarshal(b, &out); err != nil {
		return out, fmt.Errorf("replica %s, %s: its answer is not understood (another release?): %w", to, path, err)
	}
	return out, nil
}

// JoinRequest is what a new replica says of itself.
type JoinRequest struct {
	Token    string `json:"token"`
	Public   []byte `json:"public"` // its key, SubjectPublicKeyInfo
	Endpoint string `json:"endpoint"`
	Release  string `json:"release"`
	Level    uint64 `json:"level"`
	Image    string `json:"image,omitempty"` // digest; "": it runs from none
}

// JoinReply makes it a replica, which is no member yet.
type JoinReply struct {
	ID          string            `json:"id"`
	Certificate []byte            `json:"certificate"` // PEM
	Replicas    []machine.Replica `json:"replicas"`    // where the others are
}

func hashOf(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}

// NewInvitation makes a token, and the command by which it is known.
func NewInvitation(name string, m machine.ID) (token string, c state.ReplicaInvite) {
	var b [32]byte
	rand.Read(b[:]) // never fails since Go 1.24
	token = hex.EncodeToString(b[:])
	return token, state.ReplicaInvite{TokenHash: hashOf([]byte(token)), Name: name, Machine: m}
}

// join takes a new replica in.
func (s *Server) join(ctx context.Context, q JoinRequest) (JoinReply, error) {
	if leads, _ := s.Store.Leading(); !leads {
		return JoinReply{}, state.ErrNotLeading
	}
	public, err := x509.ParsePKIXPublicKey(q.Public)
	if err != nil {
		return JoinReply{}, &state.Refusal{Text: "join: the key is none: " + err.Error()}
	}
	// Nothing is proposed for a stranger: what is proposed is in the log, also if it
	// is refused.
	of, taken, invited := s.Store.View().Invited(hashOf([]byte(q.Token)))
	if !invited {
		return JoinReply{}, &state.Refusal{Text: "the token was not issued here, or it is from another cluster: get a new one where the replica is to join"}
	}
	// One that asks again has joined.
	if !taken && s.Expects != nil {
		if err := s.Expects(of); err != nil {
			return JoinReply{}, err
		}
	}
	r, err := s.Store.Propose(ctx, "join", state.ReplicaJoin{
		TokenHash: hashOf([]byte(q.Token)), ID: peer.NewID("replica-"), Endpoint: q.Endpoint,
		Key: hashOf(q.Public), Release: q.Release, Level: q.Level, Image: q.Image,
	})
	if err != nil {
		return JoinReply{}, err
	}
	view := s.Store.View()
	crt, err := issue(view, r.Replica.ID, public)
	return JoinReply{ID: r.Replica.ID, Certificate: crt, Replicas: view.Replicas()}, err
}

// issue makes a replica's certificate by the cluster's authority.
func issue(view state.View, id string, public crypto.PublicKey) ([]byte, error) {
	cluster, _ := view.Cluster()
	key, err := view.OpenSecret(SecretKey)
	if err != nil {
		return nil, fmt.Errorf("the authority for replicas' certificates: %w", err)
	}
	crt, err := view.OpenSecret(SecretCrt)
	if err != nil {
		return nil, fmt.Errorf("the authority for replicas' certificates: %w", err)
	}
	authority, err := peer.ParseAuthority(key, crt)
	if err != nil {
		return nil, err
	}
	return authority.Issue(peer.Name{Cluster: cluster.ID, Generation: cluster.Generation, ID: id}, public)
}

// Join asks the replicas of an invitation, in turn, to take this one in; a
// follower says where the leader is. key is its own, which it wrote to its disk
// before: asked again with it, the same answer comes.
func Join(ctx context.Context, i peer.Invitation, key crypto.Signer, q JoinRequest) (JoinReply, error) {
	client, err := i.Client()
	if err != nil {
		return JoinReply{}, err
	}
	defer client.CloseIdleConnections()
	if q.Public, err = x509.MarshalPKIXPublicKey(key.Public()); err != nil {
		return JoinReply{}, err
	}
	q.Token = i.Token
	var errs []error
	asked := map[string]bool{}
	for todo := slices.Clone(i.Endpoints); len(todo) > 0; todo = todo[1:] {
		at := todo[0]
		if asked[at] {
			continue
		}
		asked[at] = true
		r, err := ask[JoinReply](ctx, client, at, pathJoin, q)
		if err == nil {
			return r, nil
		}
		var other *errOther
		if errors.As(err, &other) && other.Leader != "" {
			todo = append(todo, other.Leader)
		}
		errs = append(errs, err)
		if other != nil && other.Refused {
			break
		}
	}
	return JoinReply{}, fmt.Errorf("joining cluster %s: %w", i.Cluster, errors.Join(errs...))
}
