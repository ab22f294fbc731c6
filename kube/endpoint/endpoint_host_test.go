//go:build host

package endpoint

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/internal/control"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// seen are the nodes of which a client-go watch told.
type seen struct {
	cache.Store
	mu    sync.Mutex
	names []string
}

func (s *seen) tell() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names = s.ListKeys()
}

func (s *seen) Add(o any) error    { defer s.tell(); return s.Store.Add(o) }
func (s *seen) Update(o any) error { defer s.tell(); return s.Store.Update(o) }
func (s *seen) Delete(o any) error { defer s.tell(); return s.Store.Delete(o) }
func (s *seen) Replace(list []any, version string) error {
	defer s.tell()
	return s.Store.Replace(list, version)
}

func (s *seen) until(t *testing.T, name string) {
	t.Helper()
	control.Eventually(t, "the watch tells of "+name, func(context.Context) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if slices.Contains(s.names, name) {
			return nil
		}
		return fmt.Errorf("it knows %v", s.names)
	})
}

// TestARealWatchGoesOn: a client-go watch by the endpoint of two real API servers
// goes on while one hangs without a word, as a host without power does, and while
// the other one is killed; and after a restart by what is on the disk alone.
func TestARealWatchGoesOn(t *testing.T) {
	// client-go itself would give a silent connection up after 45 s; not here.
	t.Setenv("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "600")
	p := control.New(t)
	firstAt, secondAt := p.Address, "127.0.0.1:"+control.FreePort(t)
	first, second := p.APIAt(firstAt), p.APIAt(secondAt)
	config := Config{
		Listen: "127.0.0.1:" + control.FreePort(t), Node: "node-1", Own: netip.MustParseAddrPort(firstAt),
		File: filepath.Join(t.TempDir(), "api-servers.json"), CA: p.PKI("ca.crt"), Log: quiet(),
	}
	run := func(c Config) (*Endpoint, func()) {
		e := New(c)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		return e, sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
	e, stop := run(config)
	defer stop()
	if err := e.Learn([]netip.AddrPort{netip.MustParseAddrPort(firstAt), netip.MustParseAddrPort(secondAt)}); err != nil {
		t.Fatal(err)
	}
	ready := func(context.Context) error {
		if got := e.Order(); !e.allReady() || got[0] != firstAt {
			return fmt.Errorf("known: %v", e.list())
		}
		return nil
	}
	control.Eventually(t, "both API servers are ready, and the node's own comes first", ready)
	served := func(e *Endpoint, by string) {
		t.Helper()
		control.Eventually(t, "served by "+by, func(context.Context) error {
			if open := e.forwarder.Open(); open[by] == 0 || len(open) != 1 {
				return fmt.Errorf("connections: %v", open)
			}
			return nil
		})
	}
	create := func(client rest.Interface, name string) {
		t.Helper()
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		control.Eventually(t, name, func(ctx context.Context) error {
			return client.Post().Resource("nodes").Body(node).Do(ctx).Error()
		})
	}
	byFirst := p.ClientAt("https://"+firstAt, "root", "system:masters")
	bySecond := p.ClientAt("https://"+secondAt, "root", "system:masters")

	known := &seen{Store: cache.NewStore(cache.MetaNamespaceKeyFunc)}
	reflector := cache.NewReflectorWithOptions(
		cache.NewListWatchFromClient(p.ClientAt(e.URL(), "watcher", "system:masters"), "nodes", metav1.NamespaceAll, fields.Everything()),
		&corev1.Node{}, known, cache.ReflectorOptions{Name: "nodes"})
	watching, ended := context.WithCancel(context.Background())
	var watch sync.WaitGroup
	watch.Go(func() { reflector.RunWithContext(watching) })
	defer func() { ended(); watch.Wait() }()

	create(byFirst, "node-1")
	known.until(t, "node-1")
	type server struct {
		*control.Process
		at     string
		client rest.Interface
	}
	used, other := server{first, firstAt, byFirst}, server{second, secondAt, bySecond}
	if e.forwarder.Open()[firstAt] == 0 { // it was slow to say that it is ready, just then
		used, other = other, used
	}
	served(e, used.at)

	used.Signal(syscall.SIGSTOP)
	create(other.client, "node-2")
	begun := time.Now()
	known.until(t, "node-2")
	t.Logf("after one hung, the watch went on within %.1f s", time.Since(begun).Seconds())
	served(e, other.at)

	used.Signal(syscall.SIGCONT)
	control.Eventually(t, "both are ready again, and the node's own comes first", ready)
	other.Stop()
	create(used.client, "node-3")
	begun = time.Now()
	known.until(t, "node-3")
	t.Logf("after one was killed, within %.1f s", time.Since(begun).Seconds())
	served(e, used.at)

	// As after a power cut: nobody tells where the API servers are.
	stop()
	config.Own = netip.AddrPort{}
	e, stop = run(config)
	defer stop()
	create(used.client, "node-4")
	known.until(t, "node-4")
}
