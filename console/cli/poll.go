package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
)

// pollPause is between two questions of who follows a plan. Tests are less patient.
var pollPause = 2 * time.Second

// pollLimit is how long one of these questions may take: meanwhile the service
// address moves, and whoever had it cannot say so.
const pollLimit = 5 * time.Second

// read asks what is at a path, once.
func read[T any](ctx context.Context, c *client.Client, path string) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, pollLimit)
	defer cancel()
	return answer, c.Call(ctx, http.MethodGet, path, nil, nil, &answer)
}

// poll asks what is at a path until look says that it is over. While the lead goes
// from one replica to another there is no answer, for seconds: that is said once, and
// it is asked on. goesOn is said to who interrupts it.
func poll[T any](cmd *cobra.Command, c *client.Client, path, goesOn string, look func(T) (over bool, err error)) error {
	silent := false
	for {
		answer, err := read[T](cmd.Context(), c, path)
		var silence *client.NoAnswerError
		var refusal *client.AnswerError
		switch {
		case cmd.Context().Err() != nil:
			return fmt.Errorf("%w: %s", client.ErrInterrupted, goesOn)
		case errors.As(err, &silence), errors.As(err, &refusal) && refusal.Status == http.StatusServiceUnavailable:
			if !silent {
				fmt.Fprintf(cmd.ErrOrStderr(), "%v; asking again\n", err)
			}
			silent = true
		case err != nil:
			return err
		default:
			silent = false
			if over, err := look(answer); over || err != nil {
				return err
			}
		}
		timer := time.NewTimer(pollPause)
		select {
		case <-timer.C:
		case <-cmd.Context().Done():
			timer.Stop()
		}
	}
}
