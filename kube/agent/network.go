package agent

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/rackseed/rackseed/kube/podnet"
	corev1 "k8s.io/api/core/v1"
)

type podSubnet = netip.Prefix

// ownNode returns what is called at each change of this node's Node: it writes
// the CNI configuration once the node has a pod subnet, and reports when it
// becomes ready or ceases to be.
func (a *agent) ownNode(ctx context.Context) func(*corev1.Node) {
	var mu sync.Mutex
	var latest readiness
	last := a.reports.Last()
	tell := func() {
		mu.Lock()
		defer mu.Unlock()
		if event, news := transition(last, latest); news {
			last = event
			a.reports.Send(event, latest.Text)
		}
	}
	// The node may be ready before kubeadm ends; the timeline says joined first.
	go func() {
		select {
		case <-ctx.Done():
		case <-a.joined:
			tell()
		}
	}()
	return func(n *corev1.Node) {
		if n != nil {
			a.writeCNI(podnetNode(n).PodCIDR)
		}
		mu.Lock()
		latest = readinessOf(n, a.bootID)
		mu.Unlock()
		select {
		case <-a.joined:
			tell()
		default:
		}
	}
}

// writeCNI writes the network configuration where it differs. It is not removed
// when the Node goes: pods that run keep their network.
func (a *agent) writeCNI(pods netip.Prefix) {
	if !pods.IsValid() {
		return
	}
	want, err := podnet.CNI(pods)
	if err != nil {
		a.log.Error("the pod network", "error", err)
		return
	}
	file := a.host.path(podnet.CNIPath)
	if have, err := os.ReadFile(file); err == nil && bytes.Equal(have, want) {
		return
	}
	if err := writeFile(file, want, 0o644); err != nil {
		a.log.Error("the pod network", "error", err)
		a.output.Print("rackseed: the pod network: " + err.Error())
		return
	}
	a.output.Print("rackseed: this node's pods are in " + pods.String())
}

// allNodes tells the node's endpoint of the API servers, and hands the routes that
// shall be to keepRoutes; only the newest count.
func (a *agent) allNodes(nodes []*corev1.Node) {
	if err := a.endpoint.Learn(apiServers(nodes)); err != nil {
		a.log.Error("the node's endpoint of the Kubernetes API", "error", err)
	}
	list := make([]podnet.Node, 0, len(nodes))
	for _, n := range nodes {
		list = append(list, podnetNode(n))
	}
	routes := podnet.Routes(a.config.Name, a.config.PodSubnet, list)
	for {
		select {
		case a.routes <- routes:
			return
		default:
		}
		select {
		case <-a.routes:
		default:
		}
	}
}

// keepRoutes puts the newest routes into the kernel, and tries again what it
// refused: a link may be down for a while.
func (a *agent) keepRoutes(ctx context.Context) {
	var routes []podnet.Route
	var again <-chan time.Time
	retry := backoff{first: retryFirst, most: retryMost}
	for {
		select {
		case <-ctx.Done():
			return
		case routes = <-a.routes:
			retry.reset()
		case <-again:
		}
		again = nil
		if err := a.setRoutes(routes); err != nil {
			a.log.Warn("the pod network's routes", "error", err)
			again = time.After(retry.delay())
		}
	}
}
