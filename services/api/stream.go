package api

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/websocket"

	"github.com/rackseed/rackseed/services/state"
)

// maxStreams is how many streams are open at once; more are refused with 503.
const maxStreams = 256

// timing of a stream.
type timing struct {
	write   time.Duration // a message that takes longer to send ends the stream
	ping    time.Duration // between pings
	pong    time.Duration // silence after which the peer is gone; several pings
	spacing time.Duration // between two looks at the state: what changes often is sent once
}

var defaultTiming = timing{write: 10 * time.Second, ping: 20 * time.Second, pong: 60 * time.Second, spacing: 50 * time.Millisecond}

// Why a stream was ended by the server, as close codes (RFC 6455 §7.4.1).
var (
	errLoggedOut = &websocket.CloseError{Code: websocket.ClosePolicyViolation, Text: "the session is over: log in again"}
	errShutdown  = &websocket.CloseError{Code: websocket.CloseGoingAway, Text: "the boot service stops or moves: connect again"}
	errForgotten = &websocket.CloseError{Code: websocket.CloseNormalClosure, Text: "the machine was forgotten"}
)

// feed is what one stream sends. It keeps what the peer has got.
//
// There is no queue between the state and a peer: the state is the queue. A
// feed sends what a view has beyond what it sent; a slow peer holds up its own
// stream alone, until the write deadline cuts it, and it resumes by number.
type feed interface {
	// send sends everything that is new in view.
	send(ctx context.Context, view state.View, write func(any) error) error
	// tables name what must change for there to be something new.
	tables() []string
}

func (s *Server) registerStreams(api huma.API, mux *http.ServeMux) {
	route := func(id, path, summary string, params []*huma.Param, messages []any, begin func(*http.Request, uint64) (feed, error)) {
		op := operation(id, http.MethodGet, path, "streams", summary, http.StatusServiceUnavailable)
		after := &huma.Param{Name: "after", In: "query", Schema: &huma.Schema{Type: "integer", Format: "int64"},
			Description: "Number after which to begin; what came last, to resume."}
		op.Parameters = append(params, after)
		union := &huma.Schema{}
		for _, m := range messages {
			union.OneOf = append(union.OneOf, api.OpenAPI().Components.Schemas.Schema(typeOf(m), true, ""))
		}
		op.Responses = map[string]*huma.Response{"101": {
			Description: "A websocket; each text message from the server is one of these.",
			Content:     map[string]*huma.MediaType{"application/json": {Schema: union}},
		}}
		api.OpenAPI().AddOperation(&op)
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { s.serveStream(w, r, begin) })
	}
	route("stream", "/api/stream", "Events and machines as they happen", nil,
		[]any{StreamHello{}, StreamEvent{}, StreamGap{}, StreamMachine{}, StreamExpected{}, StreamForgotten{}, StreamDiscovery{}},
		func(_ *http.Request, after uint64) (feed, error) { return &siteFeed{now: s.Now, after: after}, nil })
	id := &huma.Param{Name: "id", In: "path", Required: true, Schema: &huma.Schema{Type: "string"}}
	route("output-stream", "/api/machines/{id}/output/stream", "A machine's output as it happens", []*huma.Param{id},
		[]any{StreamLines{}},
		func(r *http.Request, after uint64) (feed, error) {
			m, err := s.Store.View().FindMachine(r.PathValue("id"))
			if err != nil {
				return nil, err
			}
			return &outputFeed{server: s, machine: m.ID, after: after}, nil
		})
}

// serveStream upgrades a request and feeds it until one side ends it.
func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, begin func(*http.Request, uint64) (feed, error)) {
	var after uint64
	if text := r.URL.Query().Get("after"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			writeProblem(w, http.StatusUnprocessableEntity, "after="+text+": expected a number")
			return
		}
		after = n
	}
	f, err := begin(r, after)
	if err != nil {
		writeProblem(w, http.StatusNotFound, err.Error())
		return
	}
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		writeProblem(w, http.StatusServiceUnavailable, strconv.Itoa(maxStreams)+" streams are open, no more are served; close another page")
		return
	}
	// The default check of the origin: absent, or this very host.
	upgrader := websocket.Upgrader{HandshakeTimeout: s.timing.write, ReadBufferSize: 1 << 10, WriteBufferSize: 16 << 10}
	conn, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // the upgrader has answered
	}
	defer conn.Close()
	ctx, gone := context.WithCancelCause(r.Context())
	defer gone(nil)
	go s.listen(conn, gone)
	err = s.feed(ctx, conn, asker(r.Context()), f)
	var end *websocket.CloseError
	if errors.As(err, &end) {
		message := websocket.FormatCloseMessage(end.Code, end.Text)
		err = conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(s.timing.write))
	}
	if err != nil {
		s.Logger.Debug("api: stream ended", "path", r.URL.Path, "who", asker(r.Context()).name, "cause", err)
	}
}

var errPeerGone = errors.New("the peer is gone")

// listen reads what the peer sends, which is pongs and the end, and nothing
// else that counts.
func (s *Server) listen(conn *websocket.Conn, gone context.CancelCauseFunc) {
	conn.SetReadLimit(1 << 10)
	alive := func(string) error { return conn.SetReadDeadline(time.Now().Add(s.timing.pong)) }
	conn.SetPongHandler(alive)
	err := alive("")
	for err == nil {
		_, _, err = conn.ReadMessage()
	}
	gone(errPeerGone)
}

// feed is the connection's one writer.
func (s *Server) feed(ctx context.Context, conn *websocket.Conn, who person, f feed) error {
	write := func(message any) error {
		if err := ctx.Err(); err != nil {
			return s.ended(ctx)
		}
		if err := conn.SetWriteDeadline(time.Now().Add(s.timing.write)); err != nil {
			return err
		}
		return conn.WriteJSON(message)
	}
	ping := time.NewTicker(s.timing.ping)
	defer ping.Stop()
	tables := append([]string{"logins", "site"}, f.tables()...)
	for {
		view := s.Store.View()
		changed := view.Changed(tables...)
		if _, ok := s.identify(who.hash); !ok {
			return errLoggedOut
		}
		if err := f.send(ctx, view, write); err != nil {
			return err
		}
		if err := s.rest(ctx, conn, changed, ping.C); err != nil {
			return err
		}
	}
}

// rest waits until there may be something to send, and pings meanwhile. It
// returns after each ping, so that a login that ran out is noticed.
func (s *Server) rest(ctx context.Context, conn *websocket.Conn, changed <-chan struct{}, ping <-chan time.Time) error {
	spacing := time.NewTimer(s.timing.spacing)
	defer spacing.Stop()
	select {
	case <-spacing.C:
	case <-ctx.Done():
		return s.ended(ctx)
	}
	select {
	case <-changed:
		return nil
	case <-ping:
		return conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(s.timing.write))
	case <-ctx.Done():
		return s.ended(ctx)
	}
}

// ended says why a stream's context ended: the peer, or this server.
func (s *Server) ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errPeerGone) {
		return errPeerGone
	}
	return errShutdown
}
