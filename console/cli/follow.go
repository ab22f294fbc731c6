package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/console/client"
	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/machine"
)

// pageSize is how many events or chunks are asked for at once.
const pageSize = 200

func (o *options) events() *cobra.Command {
	var follow bool
	var since since
	var of string
	c := &cobra.Command{
		Use: "events", Short: "Show what happened; -f goes on as it happens", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := o.connect()
			if err != nil {
				return err
			}
			names := map[machine.ID]string{}
			if o.plain() { // elsewhere an event is as it is
				if names, err = machineNames(cmd.Context(), c); err != nil {
					return err
				}
			}
			write := func(e machine.Event) error {
				if e.Time.Before(since.when) {
					return nil
				}
				return o.writeEvent(cmd.OutOrStdout(), e, names)
			}
			after, err := pastEvents(cmd.Context(), c, max(since.seq, 1)-1, of, write)
			if err == nil && follow {
				err = followEvents(cmd, c, after, of, names, write)
			}
			if follow {
				err = unlessInterrupted(cmd.Context(), err)
			}
			return err
		},
	}
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it happens")
	c.Flags().Var(&since, "since", "begin so long ago (1h), at a time (2026-01-31T15:04:05Z, or as events are listed), or with a sequence number")
	c.Flags().StringVar(&of, "machine", "", "only of this machine: ID, name, MAC, UUID or serial number")
	completeWith(c, "machine", o.machineNames)
	return c
}

// since is where a list of events begins: at a sequence number, or a time.
type since struct {
	seq  uint64
	when time.Time
	text string
}

func (s *since) String() string { return s.text }
func (s *since) Type() string   { return "time" }

func (s *since) Set(text string) (err error) {
	*s, err = parseSince(text, time.Now())
	return err
}

// parseSince reads a sequence number, a duration before now, a time (RFC 3339),
// or one as events are listed with, here.
func parseSince(text string, now time.Time) (since, error) {
	if seq, err := strconv.ParseUint(text, 10, 64); err == nil {
		return since{seq: seq, text: text}, nil
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return since{when: now.Add(-ago), text: text}, nil
	}
	if when, err := time.Parse(time.RFC3339, text); err == nil {
		return since{when: when, text: text}, nil
	}
	if when, err := time.ParseInLocation(time.DateTime, text, time.Local); err == nil {
		return since{when: when, text: text}, nil
	}
	return since{}, errors.New("expected how long ago, as 1h, a time, as 2026-01-31T15:04:05Z, or an event's sequence number")
}

// unlessInterrupted is the error of something that follows: none if the person
// who follows ended it.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// machineNames are what machines are called, by ID.
func machineNames(ctx context.Context, c *client.Client) (map[machine.ID]string, error) {
	var list api.MachineList
	if err := c.Call(ctx, "GET", "/api/machines", nil, nil, &list); err != nil {
		return nil, err
	}
	names := map[machine.ID]string{}
	for _, m := range list.Items {
		names[m.ID] = m.Name
	}
	return names, nil
}

// followEvents writes events after a number as they happen, and keeps names as
// they are then.
func followEvents(cmd *cobra.Command, c *client.Client, after uint64, of string, names map[machine.ID]string, write func(machine.Event) error) error {
	id, err := machineID(cmd.Context(), c, of)
	if err != nil {
		return err
	}
	return resume(cmd.Context(), cmd.ErrOrStderr(), func(ctx context.Context, live func()) error {
		return c.Stream(ctx, "/api/stream", number("after", after), func(message []byte) error {
			live()
			var m struct {
				Type    string        `json:"type"`
				Event   machine.Event `json:"event"`
				Machine struct {
					ID   machine.ID `json:"id"`
					Name string     `json:"name"`
				} `json:"machine"`
				From uint64 `json:"from"`
				To   uint64 `json:"to"`
			}
			if err := json.Unmarshal(message, &m); err != nil {
				return err
			}
			switch m.Type {
			case "gap":
				fmt.Fprintf(cmd.ErrOrStderr(), "events %d to %d are no longer kept\n", m.From, m.To)
				after = m.To
			case "machine": // comes before the events that changed it
				names[m.Machine.ID] = m.Machine.Name
			case "event":
				after = m.Event.Seq
				if id == "" || m.Event.Machine == id {
					return write(m.Event)
				}
			}
			return nil
		})
	})
}

// pastEvents writes every event there is after a number and returns the last
// number that was looked at.
func pastEvents(ctx context.Context, c *client.Client, after uint64, of string, write func(machine.Event) error) (uint64, error) {
	for {
		q := number("after", after)
		q.Set("limit", strconv.Itoa(pageSize))
		if of != "" {
			q.Set("machine", of)
		}
		var list api.EventList
		if err := c.Call(ctx, "GET", "/api/events", q, nil, &list); err != nil {
			return after, err
		}
		for _, e := range list.Items {
			if err := write(e); err != nil {
				return after, err
			}
			after = e.Seq
		}
		if len(list.Items) < pageSize {
			return max(after, list.Last), nil
		}
	}
}

// writeEvent writes an event with what its machine is called; one that was
// forgotten, or has no name, by its ID.
func (o *options) writeEvent(w io.Writer, e machine.Event, names map[machine.ID]string) error {
	if !o.plain() {
		return o.renderItem(w, e)
	}
	mark := map[machine.Severity]string{machine.Warning: "warning: ", machine.Error: "error: "}[e.Severity]
	_, err := fmt.Fprintf(w, "%6d  %s  %-10s  %s%s\n", e.Seq, at(e.Time), clean(cmp.Or(names[e.Machine], string(e.Machine), "-")), mark, clean(e.Text))
	return err
}

// machineID finds the ID of what a person calls a machine; "" is none.
func machineID(ctx context.Context, c *client.Client, word string) (machine.ID, error) {
	if word == "" {
		return "", nil
	}
	var m api.Machine
	err := c.Call(ctx, "GET", machinePath(word, ""), nil, nil, &m)
	return m.ID, err
}

func (o *options) log() *cobra.Command {
	var follow bool
	var after uint64
	c := o.onMachine("log", "Show a machine's output; -f goes on as it happens", func(cmd *cobra.Command, name string) error {
		c, err := o.connect()
		if err != nil {
			return err
		}
		head := ""
		write := func(l api.Lines) error {
			after = l.Seq
			if now := linesHead(l); o.plain() && now != head {
				head = now
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), clean(head)); err != nil {
					return err
				}
			}
			return o.writeLines(cmd.OutOrStdout(), l)
		}
		if follow {
			return resume(cmd.Context(), cmd.ErrOrStderr(), func(ctx context.Context, live func()) error {
				return c.Stream(ctx, machinePath(name, "/output/stream"), number("after", after), func(message []byte) error {
					live()
					var l api.StreamLines
					if err := json.Unmarshal(message, &l); err != nil {
						return err
					}
					return write(l.Lines)
				})
			})
		}
		for {
			q := number("after", after)
			q.Set("limit", strconv.Itoa(pageSize))
			var list api.List[api.Lines]
			if err := c.Call(cmd.Context(), "GET", machinePath(name, "/output"), q, nil, &list); err != nil {
				return err
			}
			for _, l := range list.Items {
				if err := write(l); err != nil {
					return err
				}
			}
			if len(list.Items) < pageSize {
				return nil
			}
		}
	})
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it happens")
	c.Flags().Uint64Var(&after, "after", 0, "begin after this chunk (seq, in -o json)")
	return c
}

// linesHead stands where another run of a machine begins in its output, a session of
// its installer or a boot of its installed system, or another day.
func linesHead(l api.Lines) string {
	run := "installer session " + l.Stream
	if boot, ok := strings.CutPrefix(l.Stream, "node-"); ok {
		run = "installed system, boot " + boot
	}
	return fmt.Sprintf("── %s, %s ──", run, l.Time.Local().Format(time.DateOnly))
}

// writeLines writes lines with the time of day at which the boot service took them.
func (o *options) writeLines(w io.Writer, l api.Lines) error {
	if !o.plain() {
		return o.renderItem(w, l)
	}
	for _, line := range l.Lines {
		if _, err := fmt.Fprintf(w, "%s  %s\n", l.Time.Local().Format(time.TimeOnly), clean(line)); err != nil {
			return err
		}
	}
	return nil
}

func number(name string, n uint64) url.Values {
	return url.Values{name: {strconv.FormatUint(n, 10)}}
}

// Pauses between attempts to connect again.
const (
	againFirst = time.Second
	againMost  = 15 * time.Second
)

// resume runs a stream again when its connection was lost, until ctx ends or
// something else goes wrong. run calls live when it got something.
func resume(ctx context.Context, w io.Writer, run func(ctx context.Context, live func()) error) error {
	wait := againFirst
	for {
		err := run(ctx, func() { wait = againFirst })
		var lost *client.LostError
		if !errors.As(err, &lost) || ctx.Err() != nil {
			return unlessInterrupted(ctx, err)
		}
		fmt.Fprintf(w, "%v; connecting again in %v\n", err, wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		wait = min(2*wait, againMost)
	}
}
