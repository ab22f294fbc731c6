package endpoint

import (
	"cmp"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"
)

// kind is what a server is to this node.
type kind int

const (
	own     kind = iota // the API server of this node
	member              // of another control plane of the cluster
	service             // the service address, which leads to API servers
	gone                // of a control plane that the cluster no longer has
)

// health is what is known of a server.
type health struct {
	known   bool
	failed  int       // attempts in a row that failed, to connect or to ask
	checked time.Time // when it was asked last
}

type server struct {
	address netip.AddrPort
	kind    kind
	health
	open int // connections that lead to it
}

// maxMembers bounds the list of API servers: more control planes are of no use to
// etcd (https://etcd.io/docs/v3.6/faq/: seven members at most).
const maxMembers = 16

// servers is the list of those that may be asked. ownServer is not valid on a
// worker.
func servers(ownServer, serviceAddress netip.AddrPort, members []netip.AddrPort) []server {
	var list []server
	add := func(a netip.AddrPort, k kind) {
		if a.IsValid() && !slices.ContainsFunc(list, func(s server) bool { return s.address == a }) {
			list = append(list, server{address: a, kind: k})
		}
	}
	add(ownServer, own)
	for _, a := range members {
		add(a, member)
	}
	add(serviceAddress, service)
	return list
}

// learn is the list of members after the cluster named some. None is no news:
// the node must not forget whom to ask.
func learn(named []netip.AddrPort) (members []netip.AddrPort, news bool) {
	for _, a := range named {
		if a.IsValid() && !a.Addr().IsUnspecified() && !a.Addr().IsMulticast() {
			members = append(members, a)
		}
	}
	slices.SortFunc(members, netip.AddrPort.Compare)
	members = slices.Compact(members)
	return members[:min(len(members), maxMembers)], len(members) > 0
}

// order is how they are tried for a new connection: those that said that they are
// ready, then those not asked yet, then those that failed, of which nobody knows
// whether they still do. Among alike the node's own comes first; others in an
// order of this node's own, so that workers spread over them; the service address
// last: it may go with the boot service.
func order(node string, list []server) []server {
	list = slices.DeleteFunc(slices.Clone(list), func(s server) bool { return s.kind == gone })
	slices.SortStableFunc(list, func(a, b server) int {
		return cmp.Or(
			cmp.Compare(a.standing(), b.standing()),
			cmp.Compare(a.kind, b.kind),
			cmp.Compare(rank(node, a.address), rank(node, b.address)),
		)
	})
	return list
}

func (s server) standing() int {
	switch {
	case s.known && s.failed == 0:
		return 0
	case !s.known:
		return 1
	}
	return 2
}

// rank is rendezvous hashing: a server that goes or comes moves no other node's
// choice but its own.
func rank(node string, a netip.AddrPort) uint64 {
	h := fnv.New64a()
	h.Write([]byte(node + " " + a.String())) // never fails, by its contract
	return h.Sum64()
}

// failures in a row after which a server's connections are cut.
const failures = 2

// cut are the servers whose connections are closed: their clients would wait for
// minutes. Only while another one is ready: where none is, a slow answer is better
// than none.
func cut(list []server) (targets []netip.AddrPort) {
	ready := func(s server) bool { return s.kind != gone && s.standing() == 0 }
	if !slices.ContainsFunc(list, ready) {
		return nil
	}
	for _, s := range list {
		if s.open > 0 && (s.kind == gone || s.failed >= failures) {
			targets = append(targets, s.address)
		}
	}
	return targets
}

// idle is how many periods pass between questions to a server that is not used.
const idle = 10

// due are those to be asked now: the one in use and the node's own in each period,
// others seldom, since each node asks them; all at once when one in use fails.
func due(list []server, now time.Time, period time.Duration) (targets []netip.AddrPort) {
	urgent := slices.ContainsFunc(list, server.failing)
	for _, s := range list {
		wait := period
		switch {
		case s.kind == gone:
			continue
		case !s.known || urgent:
			wait = 0
		case s.open == 0 && s.kind != own:
			wait = idle * period
		}
		if now.Sub(s.checked) >= wait {
			targets = append(targets, s.address)
		}
	}
	return targets
}

// failing says that clients are led to a server that does not answer.
func (s server) failing() bool { return s.open > 0 && s.failed > 0 }

// again is after what time it is looked again: at once where one in use failed,
// whose clients wait.
func again(list []server, period time.Duration) time.Duration {
	for _, s := range list {
		if s.failing() && s.failed < failures {
			return period / 10
		}
	}
	return period
}
