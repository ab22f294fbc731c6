package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

func (s *Server) registerCluster(api huma.API) {
	huma.Register(api, operation("cluster", http.MethodGet, "/api/cluster", "cluster", "The cluster, and how far it is on its way"),
		func(context.Context, *struct{}) (*body[ClusterStart], error) {
			return &body[ClusterStart]{s.clusterStart(s.Store.View())}, nil
		})
	huma.Register(api, operation("kubeconfig", http.MethodGet, "/api/kubeconfig", "cluster",
		"An administrator's kubeconfig for the cluster", http.StatusConflict, http.StatusUnprocessableEntity),
		func(ctx context.Context, in *struct {
			Server string `query:"server" maxLength:"256" doc:"URL of the API server, where the service address is not reachable."`
		}) (*kubeconfigOutput, error) {
			return s.kubeconfig(ctx, in.Server)
		})
	huma.Register(api, operation("cluster-abandon", http.MethodPost, "/api/cluster/abandon", "cluster",
		"Give up a cluster whose first machine is lost: new keys are made, and the next control plane that is approved starts it anew", http.StatusConflict),
		func(ctx context.Context, in *struct{ Body AbandonRequest }) (*body[ClusterStart], error) {
			return s.abandon(ctx, in.Body)
		})
}

// started says how far the start of the cluster is; "": it is started.
func started(view state.View, b *machine.Intent, starter machine.Machine) string {
	switch {
	case b == nil:
		return machine.NoStart(view.EndedBootstrap(), func(id machine.ID) string {
			m, _ := view.Machine(id) // it may be forgotten
			m.ID = id
			return called(m)
		})
	case b.Status == machine.IntentDone:
		return ""
	case b.Status == machine.IntentClaimed:
		return "machine " + called(starter) + " is starting it"
	}
	text := "machine " + called(starter) + " will start it, and is " + string(starter.Phase)
	if starter.Reason != "" {
		text += " (" + starter.Reason + ")"
	}
	return text
}

// called is a machine's name, or its ID while it has none.
func called(m machine.Machine) string {
	if m.Name != "" {
		return m.Name
	}
	return string(m.ID)
}

func clusterOf(view state.View) Cluster {
	c, _ := view.Cluster()
	return Cluster{ID: c.ID, Generation: c.Generation, Epoch: c.Epoch, FeatureLevel: c.FeatureLevel}
}

// reference names a machine that may be forgotten.
func reference(view state.View, id machine.ID) *MachineRef {
	if id == "" {
		return nil
	}
	m, _ := view.Machine(id)
	return &MachineRef{ID: id, Name: m.Name}
}

func (s *Server) clusterStart(view state.View) ClusterStart {
	b := view.Bootstrap()
	c := ClusterStart{Cluster: clusterOf(view), Bootstrap: b, Joining: reference(view, view.Joining(s.Now()))}
	starter := machine.Machine{}
	if b != nil {
		c.Starter = reference(view, b.Machine)
		starter, _ = view.Machine(b.Machine)
		starter.ID = b.Machine
	}
	if c.NoKubeconfig = started(view, b, starter); c.NoKubeconfig != "" {
		c.NoKubeconfig = "there is no cluster yet: " + c.NoKubeconfig
	}
	c.NoAbandon = view.NoAbandon()
	if c.NoAbandon == "" && s.NewPKI == nil {
		c.NoAbandon = "this boot service was built without Kubernetes"
	}
	if c.NoAbandon == "" && b.Status == machine.IntentDone {
		c.Orphans = orphans(view)
	}
	return c
}

// orphans counts what a cluster that was started consists of, as far as it is
// known here.
func orphans(view state.View) *Orphans {
	site, _ := view.Site()
	o := &Orphans{Cluster: site.ClusterName()}
	for _, m := range view.Machines() {
		if i := view.InstallIntent(m.ID); i == nil || i.Status != machine.IntentDone {
			continue
		}
		o.Machines++
		if m.Phase == machine.PhaseReady {
			o.Ready++
		}
	}
	return o
}

func (s *Server) abandon(ctx context.Context, in AbandonRequest) (*body[ClusterStart], error) {
	view := s.Store.View()
	c := s.clusterStart(view)
	if c.NoAbandon != "" {
		return nil, huma.Error409Conflict(c.NoAbandon)
	}
	// A forgotten machine has no name any more.
	if want := called(machine.Machine{ID: c.Starter.ID, Name: c.Starter.Name}); in.Confirm != want {
		return nil, huma.Error409Conflict(fmt.Sprintf("confirm is %q, and the machine that is given up is called %q: what it began is lost for good, so name it", in.Confirm, want))
	}
	if o := c.Orphans; o != nil && in.Cluster != o.Cluster {
		return nil, huma.Error409Conflict(fmt.Sprintf("cluster is %q, and the one that is given up is called %q: it is started, and all in it are left behind (Ready nodes: %d, installed machines: %d); so name it",
			in.Cluster, o.Cluster, o.Ready, o.Machines))
	}
	secrets, err := s.NewPKI(s.Now())
	if err != nil {
		s.Logger.Error("api: new keys for the cluster", "error", err)
		return nil, huma.Error500InternalServerError("the new cluster's keys could not be made: " + err.Error())
	}
	sealed := map[string]keyring.Sealed{}
	for name, secret := range secrets {
		if sealed[name], err = view.SealSecret(name, secret); err != nil {
			return nil, huma.Error409Conflict("the new cluster's keys: " + err.Error())
		}
	}
	if _, err := s.propose(ctx, state.BootstrapAbandon{Intent: c.Bootstrap.ID, Reason: in.Reason, Secrets: sealed}); err != nil {
		return nil, err
	}
	return &body[ClusterStart]{s.clusterStart(s.Store.View())}, nil
}

type kubeconfigOutput struct {
	ContentType string `header:"Content-Type"`
	Disposition string `header:"Content-Disposition"`
	NoStore     string `header:"Cache-Control"`
	Body        []byte
}

// kubeconfig makes credentials, so that it is told in the events.
func (s *Server) kubeconfig(ctx context.Context, server string) (*kubeconfigOutput, error) {
	view := s.Store.View()
	site, applied := view.Site()
	if !applied {
		return nil, huma.Error409Conflict("there is no cluster yet: the site file was never applied; /api/status says why")
	}
	if why := s.clusterStart(view).NoKubeconfig; why != "" {
		return nil, huma.Error409Conflict(why)
	}
	if server == "" {
		server = "https://" + net.JoinHostPort(site.ServiceAddress.String(), "6443")
	}
	if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, huma.Error422UnprocessableEntity(fmt.Sprintf("server %q: expected a URL as https://192.0.2.10:6443", server))
	}
	who := asker(ctx).name
	config, err := s.Kubeconfig(view, who, server)
	if err != nil {
		return nil, huma.Error409Conflict("kubeconfig: " + err.Error())
	}
	if _, err := s.propose(ctx, state.Note{
		What: "kubeconfig.made", Severity: machine.Info,
		Text: "Kubeconfig made for operator " + who,
	}); err != nil {
		return nil, err
	}
	return &kubeconfigOutput{
		ContentType: "application/yaml", Disposition: `attachment; filename="kubeconfig"`, NoStore: "no-store", Body: config,
	}, nil
}
