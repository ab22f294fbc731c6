package state

import (
	"context"
	"io"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// toSlog hands Raft's log lines to slog.
type toSlog struct{ log *slog.Logger }

// newRaftLogger makes the logger that Raft and its stores want.
func newRaftLogger(log *slog.Logger) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: "raft", Level: hclog.Debug, Output: io.Discard})
	l.RegisterSink(toSlog{log})
	return l
}

// Accept implements hclog.SinkAdapter. What Raft tells as information (each
// election, each snapshot) is detail to an operator.
func (t toSlog) Accept(name string, level hclog.Level, msg string, args ...any) {
	to := slog.LevelDebug
	switch {
	case level >= hclog.Error:
		to = slog.LevelError
	case level == hclog.Warn:
		to = slog.LevelWarn
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok { // not meant to be printed as it is
			args[i] = []any(f)
		}
	}
	t.log.Log(context.Background(), to, msg, append([]any{"part", name}, args...)...)
}
