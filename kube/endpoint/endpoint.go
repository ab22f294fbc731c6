// Package endpoint is a node's own endpoint of the Kubernetes API: a forwarder on
// loopback, to whichever API server is ready. The kubelet, kube-proxy, kubectl and
// the node agent go by it, so that neither the boot service nor any one control
// plane takes the API from a node.
//
// It starts by what is on the disk, and needs nothing else. It looks into no
// connection: its clients verify the API server that they reach, by the cluster's
// authority.
//
// Whom to ask next is decided by pure functions in decide.go.
package endpoint

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/rackseed/rackseed/services/address"
	"github.com/rackseed/rackseed/services/durable"
)

// limit is how many connections are open at once; one more is closed at once. A
// node's own programs have about ten.
const limit = 512

const (
	period   = 3 * time.Second // between questions to the server in use
	patience = 2 * time.Second // for its answer
)

// Config is what an Endpoint is made from.
type Config struct {
	Listen  string         // host:port on loopback
	Node    string         // the node's name
	Own     netip.AddrPort // the API server of this node; not valid on a worker
	Service netip.AddrPort // the service address's
	File    string         // keeps the list of the other API servers
	CA      string         // the cluster's authority, PEM; it may come later
	Slower  int            // multiplies the times; 0 is 1
	Log     *slog.Logger
}

// Endpoint is one node's.
type Endpoint struct {
	Config
	forwarder *address.Forwarder
	asking    *http.Client
	look      chan struct{} // asks for a look at once

	period, patience time.Duration

	mu      sync.Mutex
	members []netip.AddrPort
	unkept  bool // members is not what is on the disk
	health  map[netip.AddrPort]health
}

// New makes an Endpoint, by the list that is on the disk. One that cannot be read
// is made anew from what the cluster says.
func New(c Config) *Endpoint {
	slower := time.Duration(max(c.Slower, 1))
	e := &Endpoint{
		Config: c, health: map[netip.AddrPort]health{}, look: make(chan struct{}, 1),
		period: slower * period, patience: slower * patience,
	}
	e.forwarder = address.NewForwarder(c.Listen, limit, e)
	e.asking = asking(c.CA)
	var l list
	b, err := os.ReadFile(c.File)
	if err == nil {
		err = json.Unmarshal(b, &l)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("the list of API servers cannot be read: it is made anew", "file", c.File, "error", err)
	}
	e.members, _ = learn(l.Servers)
	return e
}

// list is what File holds.
type list struct {
	Servers []netip.AddrPort `json:"servers"` // as 10.77.0.11:6443
}

// URL is what a kubeconfig names as its server.
func (e *Endpoint) URL() string { return "https://" + e.Listen }

// Run forwards until ctx ends; then it returns nil. It fails if it cannot listen.
func (e *Endpoint) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() { e.watch(ctx) })
	err := e.forwarder.Run(ctx)
	cancel()
	watching.Wait()
	e.asking.CloseIdleConnections()
	return err
}

// Learn takes the API servers of all control planes, as the cluster names them,
// and keeps them on the disk.
func (e *Endpoint) Learn(named []netip.AddrPort) error {
	members, news := learn(named)
	e.mu.Lock()
	defer e.mu.Unlock()
	if !news || !e.unkept && slices.Equal(members, e.members) {
		return nil
	}
	e.Log.Info("the cluster's API servers", "servers", members)
	e.members, e.unkept = members, true
	e.lookNow()
	b, err := json.Marshal(list{members})
	if err == nil {
		err = os.MkdirAll(filepath.Dir(e.File), 0o755)
	}
	if err == nil {
		err = durable.WriteFile(e.File, append(b, '\n'), 0o644)
	}
	if err != nil {
		return fmt.Errorf("keeping the list of API servers: %w; it is tried again when the cluster names them next", err)
	}
	e.unkept = false
	return nil
}

// list is what is known now, with those that are used though the cluster no
// longer has them.
func (e *Endpoint) list() []server {
	open := e.forwarder.Open()
	e.mu.Lock()
	defer e.mu.Unlock()
	list := servers(e.Own, e.Service, e.members)
	for i := range list {
		s := &list[i]
		s.health, s.open = e.health[s.address], open[s.address.String()]
		delete(open, s.address.String())
	}
	for target, n := range open {
		if a, err := netip.ParseAddrPort(target); err == nil {
			list = append(list, server{address: a, kind: gone, open: n})
		}
	}
	return list
}

// Order gives the servers as they are tried for one client (address.Chooser).
func (e *Endpoint) Order() (targets []string) {
	for _, s := range order(e.Node, e.list()) {
		targets = append(targets, s.address.String())
	}
	return targets
}

// Note takes what became of an attempt to connect (address.Chooser). That it
// succeeded says nothing: one that starts or stops listens, too.
func (e *Endpoint) Note(target string, err error) {
	a, broken := netip.ParseAddrPort(target)
	if err == nil || broken != nil {
		return
	}
	e.note(a, err)
	e.lookNow()
}

// note keeps what became of an attempt.
func (e *Endpoint) note(a netip.AddrPort, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	h := e.health[a]
	switch {
	case err == nil && (!h.known || h.failed > 0):
		e.Log.Info("the API server is ready", "server", a)
	case err != nil && (!h.known || h.failed == 0):
		e.Log.Warn("the API server is not ready", "server", a, "error", err)
	}
	h.known, h.checked = true, time.Now()
	if err == nil {
		h.failed = 0
	} else {
		h.failed++
	}
	e.health[a] = h
}

func (e *Endpoint) lookNow() {
	select {
	case e.look <- struct{}{}:
	default: // it is asked for already
	}
}

// watch asks the servers whether they are ready, and cuts connections that lead to
// those that are not, until ctx ends.
func (e *Endpoint) watch(ctx context.Context) {
	for ctx.Err() == nil {
		e.askAll(ctx, due(e.list(), time.Now(), e.period))
		list := e.list()
		for _, a := range cut(list) {
			e.Log.Warn("clients of an API server that is not ready are led to another one", "server", a)
			e.forwarder.Cut(a.String())
		}
		e.forget(list)
		least := time.NewTimer(e.period / 10) // a flood of clients is no reason to ask more often
		most := time.NewTimer(again(list, e.period))
		select {
		case <-most.C:
		case <-e.look:
			select {
			case <-least.C:
			case <-ctx.Done():
			}
		case <-ctx.Done():
		}
		least.Stop()
		most.Stop()
	}
}

// askAll asks servers, all at once.
func (e *Endpoint) askAll(ctx context.Context, targets []netip.AddrPort) {
	var asked sync.WaitGroup
	for _, a := range targets {
		asked.Go(func() {
			err := ask(ctx, e.asking, a, e.patience)
			if ctx.Err() == nil {
				e.note(a, err)
			}
		})
	}
	asked.Wait()
}

// forget drops what is known of servers that are no more.
func (e *Endpoint) forget(list []server) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for a := range e.health {
		if !slices.ContainsFunc(list, func(s server) bool { return s.address == a }) {
			delete(e.health, a)
		}
	}
}
