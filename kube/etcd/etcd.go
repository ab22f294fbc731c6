// Package etcd keeps etcd's list of members in order while control planes join.
// It speaks to etcd's JSON gateway (https://etcd.io/docs/latest/dev-guide/api_grpc_gateway/):
// two calls are no reason to carry etcd's client.
package etcd

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

const (
	clientPort, peerPort = "2379", "2380"
	// requestTimeout is above etcd's own limit for what needs its majority.
	requestTimeout = 10 * time.Second
	maxReply       = 1 << 20
)

// PeerURL is by which kubeadm adds the member of a node.
func PeerURL(node netip.Addr) string { return "https://" + net.JoinHostPort(node.String(), peerPort) }

// ClientURL is where the member of a node answers.
func ClientURL(node netip.Addr) string {
	return "https://" + net.JoinHostPort(node.String(), clientPort)
}

// Member is one of etcd's members, as etcd lists it.
type Member struct {
	ID       uint64   `json:"ID,string"`
	Name     string   `json:"name"` // empty until it has begun
	PeerURLs []string `json:"peerURLs"`
	Learner  bool     `json:"isLearner"` // it has no vote yet
}

func (m Member) String() string { return fmt.Sprintf("%x at %s", m.ID, m.PeerURLs) }

// Plan is what has to happen before a control plane joins.
type Plan struct {
	Remove []Member // from the list
	// Wipe: what is in the node's data folder is no member's, and keeps etcd
	// from beginning anew. Only once Remove is done.
	Wipe bool
	// Keep: the node's member has a vote. etcd's majority counts on its data.
	Keep bool
}

// Before decides it, for the node whose member has the peer URL own. data says
// that its data folder is not empty. Control planes join one at a time.
//
// A member without a vote, a learner, is never missed: one that is not the
// node's is left of a node that broke off, and etcd takes one learner at a
// time. The node's own is only kept where kubeadm goes on with it: before it
// has begun. A member that has a vote is kept with its data, by which it comes
// up again; without the data it cannot.
func Before(members []Member, own string, data bool) Plan {
	var p Plan
	kept := false
	for _, m := range members {
		mine := slices.Contains(m.PeerURLs, own)
		switch {
		case mine && !m.Learner && data:
			p.Keep, kept = true, true
		case mine && m.Name == "" && !data:
			kept = true
		case mine || m.Learner:
			p.Remove = append(p.Remove, m)
		}
	}
	p.Wipe = data && !kept
	return p
}

// Client asks etcd's members.
type Client struct {
	Endpoints []string // client URLs; the first that answers is asked
	TLS       *tls.Config
}

// Members lists the members, by their majority.
func (c Client) Members(ctx context.Context) ([]Member, error) {
	var reply struct {
		Members []Member `json:"members"`
	}
	err := c.call(ctx, "list", map[string]any{"linearizable": true}, &reply)
	return reply.Members, err
}

// Remove removes a member for ever: it never comes back under this ID. One that
// is not listed any more is no error.
func (c Client) Remove(ctx context.Context, m Member) error {
	err := c.call(ctx, "remove", map[string]any{"ID": fmt.Sprint(m.ID)}, &struct{}{})
	var refused *refusal
	if errors.As(err, &refused) && refused.Code == notFound {
		return nil
	}
	return err
}

// notFound is gRPC's code of that name.
const notFound = 5

// refusal is the gateway's answer to what etcd does not do.
type refusal struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (r *refusal) Error() string { return r.Message }

func (c Client) call(ctx context.Context, what string, in, out any) error {
	if len(c.Endpoints) == 0 {
		return errors.New("etcd: no control plane is known that runs it")
	}
	client := &http.Client{
		Timeout:   requestTimeout,
		Transport: &http.Transport{TLSClientConfig: c.TLS, DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext},
	}
	var failed []error
	for _, e := range c.Endpoints {
		err := post(ctx, client, e+"/v3/cluster/member/"+what, in, out)
		var refused *refusal
		if err == nil || errors.As(err, &refused) && refused.Code == notFound {
			return err
		}
		failed = append(failed, fmt.Errorf("etcd at %s: member %s: %w", e, what, err))
	}
	return errors.Join(failed...)
}

func post(ctx context.Context, client *http.Client, url string, in, out any) (err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	reply, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, reply.Body.Close()) }()
	b, err := io.ReadAll(io.LimitReader(reply.Body, maxReply))
	if err != nil {
		return err
	}
	if reply.StatusCode != http.StatusOK {
		r := &refusal{}
		if json.Unmarshal(b, r) != nil || r.Message == "" {
			return fmt.Errorf("it answered %s", reply.Status)
		}
		return r
	}
	return json.Unmarshal(b, out)
}
