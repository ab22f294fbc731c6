package simulate

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/images/installer/client"
	"github.com/rackseed/rackseed/images/installer/journal"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	orderWait = 25 * time.Second // how long the boot service may hold a question
	nodeReply = orderWait + 20*time.Second
	// askOrder is between an answer to wait and the next question.
	askOrder = time.Second
	// joinPause is between a refusal to join and the next try.
	joinPause = 5 * time.Second
	// farewell bounds the wait for the log's last lines.
	farewell = 30 * time.Second
)

// node is one boot of the installed system.
type node struct {
	*Machine
	config  wire.NodeConfig
	service *client.Client // for output, retries
	key     ed25519.PrivateKey
	http    *http.Client
	journal *journal.Journal
	bootID  string
	reports uint64
}

// runNode is what the node agent says from booting to Ready.
func (m *Machine) runNode(ctx context.Context) error {
	c := m.installed.Node
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	id := make([]byte, 16)
	rand.Read(id) // never fails, by its contract
	n := &node{
		Machine: m, config: c, key: ed25519.NewKeyFromSeed(c.KeySeed), journal: journal.New(journal.Limit),
		http:   &http.Client{Timeout: nodeReply},
		bootID: fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:]),
	}
	defer n.http.CloseIdleConnections()
	if m.Transport != nil {
		n.http.Transport = m.Transport
	}
	n.service = m.service(c.URL, n.key, m.Log)
	go n.journal.Send(ctx, "node-"+n.bootID, n.service.Output, slog.New(slog.DiscardHandler))
	if err := n.live(ctx); err != nil {
		return fmt.Errorf("node %s: %w", c.Name, err)
	}
	end, done := context.WithTimeout(ctx, farewell)
	defer done()
	n.journal.Flush(end)
	return context.Cause(end)
}

func (n *node) live(ctx context.Context) error {
	if err := n.print(ctx, bootLines(n.config)); err != nil {
		return err
	}
	if err := n.report(ctx, wire.NodeBooted, "root slot a"); err != nil {
		return err
	}
	if !n.installed.Joined {
		if err := n.join(ctx); err != nil {
			return err
		}
	}
	if !n.installed.Told {
		if err := n.report(ctx, wire.NodeJoined, "simulated"); err != nil {
			return err
		}
		n.installed.Told = true
		if err := n.writeDisk(); err != nil {
			return err
		}
	}
	if err := n.print(ctx, readyLines(n.config)); err != nil {
		return err
	}
	return n.report(ctx, wire.NodeReady, "kubelet "+version)
}

// join is marked on the disk before it is told, as the node agent does: killed
// in between, it tells after its restart.
func (n *node) join(ctx context.Context) error {
	order, err := n.enter(ctx)
	if err != nil {
		return err
	}
	if err := n.report(ctx, wire.NodeJoining, string(order.Kind)+" begins"); err != nil {
		return err
	}
	if err := n.print(ctx, kubeadmLines(n.config, order.Kind)); err != nil {
		return err
	}
	n.installed.Joined = true
	return n.writeDisk()
}

// enter asks until the node may run kubeadm, and knows by what it joins.
func (n *node) enter(ctx context.Context) (wire.NodeOrder, error) {
	for {
		order, err := n.order(ctx)
		if err != nil || order.Kind != wire.NodeJoin || !n.Joins {
			return order, err
		}
		err = n.secret(ctx)
		var refused *client.StatusError
		if err == nil || !errors.As(err, &refused) {
			return order, err
		}
		// It is another's turn, or the cluster cannot be asked now.
		n.say("rackseed: waiting: " + refused.Text)
		if err := rest(ctx, joinPause); err != nil {
			return order, err
		}
	}
}

// secret asks for what the node joins by, and opens it.
func (n *node) secret(ctx context.Context) error {
	seal, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	var sealed wire.Sealed
	err = n.service.Retry(ctx, "what it joins by", client.Permanent, func(ctx context.Context) error {
		return n.call(ctx, http.MethodPost, wire.PathNodeJoin, wire.JoinRequest{SealKey: seal.PublicKey().Bytes()}, &sealed)
	})
	if err != nil {
		return err
	}
	_, err = wire.Open(seal, wire.JoinPurpose(string(n.config.Machine)), sealed)
	return err
}

// say adds a line to the log.
func (n *node) say(line string) {
	n.said(n.bootID, line)
	n.journal.Append(line)
}

func (n *node) print(ctx context.Context, lines []string) error {
	for _, l := range lines {
		n.say(l)
		if err := rest(ctx, n.Pace/8); err != nil {
			return err
		}
	}
	return nil
}

// order asks until the node may go on.
func (n *node) order(ctx context.Context) (wire.NodeOrder, error) {
	reason := ""
	for {
		var o wire.NodeOrder
		err := n.service.Retry(ctx, "the node's order", client.Permanent, func(ctx context.Context) error {
			return n.call(ctx, http.MethodGet, wire.PathNodeOrder+"?wait="+orderWait.String(), nil, &o)
		})
		switch {
		case err != nil:
			return o, err
		case o.Kind == wire.NodeInit, o.Kind == wire.NodeJoin:
			return o, nil
		case o.Kind != wire.NodeWait:
			return o, fmt.Errorf("there is no order %q", o.Kind)
		}
		if o.Reason != reason {
			reason = o.Reason
			n.say("rackseed: waiting: " + reason)
			n.Log.Info("the node waits", "name", n.config.Name, "reason", reason)
		}
		if err := rest(ctx, max(n.Pace, askOrder)); err != nil {
			return o, err
		}
	}
}

func (n *node) report(ctx context.Context, event wire.NodeEvent, text string) error {
	n.reports++
	r := wire.NodeReport{BootID: n.bootID, Number: n.reports, Event: event, Text: text, Slot: "a"}
	err := n.service.Retry(ctx, "reporting "+string(event), client.Permanent, func(ctx context.Context) error {
		return n.call(ctx, http.MethodPost, wire.PathNodeReport, r, nil)
	})
	if err != nil {
		return err
	}
	return rest(ctx, n.Pace)
}

// call makes one request, signed by the node's key.
func (n *node) call(ctx context.Context, method, path string, in, out any) (err error) {
	var body []byte
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, n.config.URL+path, nil)
	if err != nil {
		return err
	}
	wire.Sign(r, n.key, body)
	wire.Challenge(r)
	resp, err := n.http.Do(r)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &client.StatusError{Status: resp.StatusCode, Text: string(bytes.TrimSpace(reply))}
	}
	if !wire.Authentic(n.key.Seed(), r, resp, reply) {
		return fmt.Errorf("%s %s: the reply is not authenticated by this node's key", method, path)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(reply, out)
}
