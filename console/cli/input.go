package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
)

var errInterrupted = fmt.Errorf("%w, nothing was done", client.ErrInterrupted)

// input is standard input that can be interrupted: a read ends when ctx does,
// even where nobody types. What is typed later is lost with it.
type input struct {
	ctx context.Context
	in  io.Reader
}

func newInput(cmd *cobra.Command) input { return input{cmd.Context(), cmd.InOrStdin()} }

func (i input) Read(p []byte) (int, error) {
	if i.ctx.Err() != nil {
		return 0, errInterrupted
	}
	type result struct {
		n   int
		err error
	}
	own, got := make([]byte, len(p)), make(chan result, 1)
	go func() {
		n, err := i.in.Read(own)
		got <- result{n, err}
	}()
	select {
	case r := <-got:
		return copy(p, own[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, errInterrupted
	}
}
