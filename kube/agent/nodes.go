package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/core"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
)

// watchBackoff between attempts to reach the API server. client-go's own goes
// up to 30 s, by which a node would be Ready that much later: the pod network
// waits for the node's pod subnet.
var watchBackoff = wait.Backoff{Duration: time.Second, Factor: 1.5, Jitter: 0.3, Steps: 6, Cap: 5 * time.Second}

// userAgent is how API servers know the agent.
const userAgent = "rackseed-node"

// watchNodes follows the node of that name and all nodes, by the kubelet's
// kubeconfig, until the context ends. own gets the node (nil when there is
// none), all gets every node; each at every change, one call at a time.
//
// They are two watches, since Kubernetes lets a node read its own Node from the
// first moment, but others only once AllowNodesToReadNodes took effect.
func watchNodes(ctx context.Context, kubeconfig, name string, own func(*corev1.Node), all func([]*corev1.Node), log *slog.Logger) {
	for ctx.Err() == nil {
		stamp, ok := waitFile(ctx, kubeconfig)
		if !ok {
			return
		}
		client, err := core.FromFile(kubeconfig, userAgent)
		if err != nil {
			// It is written in place by kubeadm: half of it may be there.
			log.Warn("the kubelet's kubeconfig cannot be read yet", "error", err)
			if !pause(ctx, time.Second) {
				return
			}
			continue
		}
		watch, cancel := context.WithCancel(ctx)
		ownDone, allDone := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(ownDone)
			reflect(watch, client, "own node", fields.OneTermEqualSelector(metav1.ObjectNameField, name), func(nodes []*corev1.Node) {
				if len(nodes) == 0 {
					own(nil)
					return
				}
				own(nodes[0])
			})
		}()
		go func() {
			defer close(allDone)
			reflect(watch, client, "nodes", fields.Everything(), all)
		}()
		// kubeadm replaces the certificate in it at the end of init.
		waitChange(ctx, kubeconfig, stamp)
		cancel()
		<-ownDone
		<-allDone
	}
}

func reflect(ctx context.Context, client cache.Getter, what string, selector fields.Selector, changed func([]*corev1.Node)) {
	backoff := watchBackoff
	store := &notifyingStore{Store: cache.NewStore(cache.MetaNamespaceKeyFunc), changed: changed}
	cache.NewReflectorWithOptions(cache.NewListWatchFromClient(client, "nodes", metav1.NamespaceAll, selector),
		&corev1.Node{}, store, cache.ReflectorOptions{Name: what, Backoff: &backoff}).RunWithContext(ctx)
}

// notifyingStore tells of every change. The reflector calls it from one
// goroutine.
type notifyingStore struct {
	cache.Store
	changed func([]*corev1.Node)
}

func (s *notifyingStore) notify(err error) error {
	if err != nil {
		return err
	}
	var nodes []*corev1.Node
	for _, o := range s.List() {
		if n, ok := o.(*corev1.Node); ok {
			nodes = append(nodes, n)
		}
	}
	s.changed(nodes)
	return nil
}

func (s *notifyingStore) Add(o any) error    { return s.notify(s.Store.Add(o)) }
func (s *notifyingStore) Update(o any) error { return s.notify(s.Store.Update(o)) }
func (s *notifyingStore) Delete(o any) error { return s.notify(s.Store.Delete(o)) }
func (s *notifyingStore) Replace(list []any, version string) error {
	return s.notify(s.Store.Replace(list, version))
}

// pollFile is how often a file is looked at that another program writes.
const pollFile = time.Second

type fileStamp struct {
	modified time.Time
	size     int64
}

func stampOf(file string) (fileStamp, bool) {
	info, err := os.Stat(file)
	if err != nil {
		return fileStamp{}, false
	}
	return fileStamp{info.ModTime(), info.Size()}, true
}

func waitFile(ctx context.Context, file string) (fileStamp, bool) {
	for {
		if s, ok := stampOf(file); ok {
			return s, true
		}
		if !pause(ctx, pollFile) {
			return fileStamp{}, false
		}
	}
}

func waitChange(ctx context.Context, file string, old fileStamp) {
	for pause(ctx, pollFile) {
		if s, ok := stampOf(file); ok && s != old {
			return
		}
	}
}

// pause waits, and says whether the context still lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// nodeReader is the role by which nodes read each other.
const nodeReader = "rackseed:node-reader"

// AllowNodesToReadNodes lets every node read all Nodes, for the routes of the
// pod network. By itself the Node authorizer shows a node its own Node only
// (KEP-4601). Applied again it changes nothing.
func AllowNodesToReadNodes(ctx context.Context, kubeconfig string) error {
	client, err := core.FromFile(kubeconfig, userAgent)
	if err != nil {
		return err
	}
	meta := metav1.ObjectMeta{Name: nodeReader}
	kind := func(k string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: k}
	}
	for resource, object := range map[string]any{
		"clusterroles": rbacv1.ClusterRole{
			TypeMeta: kind("ClusterRole"), ObjectMeta: meta,
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"get", "list", "watch"}}},
		},
		"clusterrolebindings": rbacv1.ClusterRoleBinding{
			TypeMeta: kind("ClusterRoleBinding"), ObjectMeta: meta,
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "system:nodes"}},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: nodeReader},
		},
	} {
		b, err := json.Marshal(object)
		if err != nil {
			return err
		}
		err = client.Patch(types.ApplyPatchType).AbsPath("/apis", rbacv1.GroupName, "v1", resource, nodeReader).
			Param("fieldManager", "rackseed").Param("force", "true").
			Timeout(30 * time.Second).Body(b).Do(ctx).Error()
		if err != nil {
			return fmt.Errorf("letting nodes read nodes: %s %s: %w", resource, nodeReader, err)
		}
	}
	return nil
}

// MakeNamespace makes the namespace in which the boot service shows: a static pod
// runs without it, but nobody would see it. Applied again it changes nothing.
func MakeNamespace(ctx context.Context, kubeconfig string) error {
	client, err := core.FromFile(kubeconfig, userAgent)
	if err != nil {
		return err
	}
	b, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": config.ServiceNamespace}})
	if err != nil {
		return err
	}
	err = client.Patch(types.ApplyPatchType).AbsPath("/api/v1/namespaces", config.ServiceNamespace).
		Param("fieldManager", "rackseed").Param("force", "true").
		Timeout(30 * time.Second).Body(b).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("namespace %s: %w", config.ServiceNamespace, err)
	}
	return nil
}
