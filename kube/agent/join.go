package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

const (
	retryFirst = 5 * time.Second
	retryMost  = 5 * time.Minute
	// healthPoll is how often a node that is starting is looked at.
	healthPoll = time.Second
	// healthSilence passes before a node that does not get healthy says why.
	healthSilence = 2 * time.Minute
	// kubeadmLimit bounds one run of kubeadm; its own timeouts end it earlier,
	// also the relaxed ones of emulated machines.
	kubeadmLimit = 2 * time.Hour
	// orderWait is how long the boot service may hold an order request.
	orderWait = "25s"
	// askPause is between an answer and the next question.
	askPause = time.Second
	// syncPause is between two times that kubeadm's files go to the disk while
	// a control plane joins. Its member gets a vote some seconds after the last
	// of them was written.
	syncPause = 2 * time.Second
)

// waitHealthy waits until the network is up and containerd answers, and says
// whether the context still lives.
func (a *agent) waitHealthy(ctx context.Context) bool {
	begun, told := time.Now(), false
	for {
		err := a.healthy(ctx)
		if err == nil {
			return true
		}
		if !told && time.Since(begun) > healthSilence {
			told = true
			a.reports.Send(wire.NodeFailed, "the node is not healthy yet: "+err.Error())
		}
		if !pause(ctx, healthPoll) {
			return false
		}
	}
}

func (a *agent) healthy(ctx context.Context) error {
	b, err := os.ReadFile(a.host.path(networkState))
	if err != nil {
		return fmt.Errorf("systemd-networkd: %w", err)
	}
	if !networkUp(string(b)) {
		return errors.New("systemd-networkd: no link has a routable address yet")
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var last string
	if err := a.commands.Run(ctx, func(l string) { last = l }, "ctr", "--connect-timeout", "20s", "version"); err != nil {
		return fmt.Errorf("containerd does not answer: %w: %s", err, last)
	}
	return nil
}

// join brings the node into the cluster: asks, runs kubeadm, tells. It returns
// when the boot service knows, or the context ends.
func (a *agent) join(ctx context.Context) error {
	// An agent that was killed while it joined left its token there.
	if err := os.RemoveAll(a.host.path(joinFile)); err != nil {
		return err
	}
	var order *wire.NodeOrder
	var lastReason string
	asked := false
	retry := backoff{first: 15 * time.Second, most: retryMost}
	hold := backoff{first: retryFirst, most: time.Minute}
	for ctx.Err() == nil {
		f, err := a.host.facts()
		if err != nil {
			return err
		}
		step, reason := next(f, order)
		order = nil
		switch step {
		case stepWatch:
			close(a.joined)
			a.shareNodes(ctx)
			return nil
		case stepTell:
			select {
			case <-ctx.Done():
				return nil
			case <-a.reports.Send(wire.NodeJoined, a.kubeadmTook):
			}
			if err := a.host.markDone(doneMark{Reported: true}); err != nil {
				return err
			}
		case stepAsk:
			if reason != "" && reason != lastReason {
				lastReason = reason
				a.output.Print("rackseed: waiting: " + reason)
			}
			// An order that leads nowhere must not make a busy loop.
			if asked && !pause(ctx, askPause) {
				return nil
			}
			asked = true
			order = a.ask(ctx)
		case stepInit, stepResume, stepJoin:
			err := a.enter(ctx, step)
			var refused *statusError
			switch {
			case err != nil && ctx.Err() != nil:
				return nil
			case errors.As(err, &refused):
				// It is another's turn, or the cluster cannot be asked now.
				if refused.Text != lastReason {
					lastReason = refused.Text
					a.output.Print("rackseed: waiting: " + refused.Text)
				}
				if !hold.wait(ctx) {
					return nil
				}
			case err != nil:
				hold.reset()
				a.reports.Send(wire.NodeFailed, err.Error()+"; it is tried again")
				if !retry.wait(ctx) {
					return nil
				}
			default:
				if err := a.host.markDone(doneMark{}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// enter brings the node into the cluster, and what that wrote onto the disk. A
// *statusError says that the boot service does not let it join now.
func (a *agent) enter(ctx context.Context, s step) error {
	enter := a.initialise
	if s == stepJoin {
		enter = a.joinCluster
	}
	if err := enter(ctx, s); err != nil {
		return err
	}
	return a.sync()
}

// ask asks the boot service what to do, until it answers. It returns nil only
// when the context ends.
func (a *agent) ask(ctx context.Context) *wire.NodeOrder {
	retry := backoff{first: time.Second, most: 15 * time.Second}
	for {
		var order wire.NodeOrder
		err := a.client.call(ctx, http.MethodGet, wire.PathNodeOrder+"?wait="+orderWait, nil, &order)
		if err == nil {
			return &order
		}
		if ctx.Err() == nil {
			a.log.Warn("asking the boot service for an order", "error", err)
		}
		if !retry.wait(ctx) {
			return nil
		}
	}
}

// initialise runs kubeadm init.
func (a *agent) initialise(ctx context.Context, s step) error {
	text := "init begins the cluster"
	if s == stepResume {
		text = "init goes on where it was interrupted"
	}
	// Also before what looks like the first run: the certificates come first, and
	// alone they are no sign of a beginning.
	if err := a.clearTorn(ctx); err != nil {
		return err
	}
	return a.kubeadm(ctx, text, initArgs(s, a.host.path(config.KubeadmPath)))
}

// joinCluster runs kubeadm join with a token that the boot service makes for
// this attempt.
func (a *agent) joinCluster(ctx context.Context, _ step) error {
	secret, err := a.askSecret(ctx)
	if err != nil {
		return err
	}
	control := a.config.Role == machine.RoleControlPlane
	if control {
		if err := a.clearTorn(ctx); err != nil {
			return err
		}
	}
	left, err := a.host.left(a.config.Role)
	if err != nil {
		return fmt.Errorf("looking for what an interrupted kubeadm join left: %w", err)
	}
	plan, err := planJoin(a.config.Role, left, secret.CACertHashes)
	if err != nil {
		return err
	}
	if control {
		if err := a.members(ctx, secret); err != nil {
			return fmt.Errorf("before it joins etcd: %w", err)
		}
		// A member that has a vote must come up again after a power loss, also
		// in the middle of this: by then its kubelet's files are on the disk.
		stop := a.syncOften(ctx)
		defer stop()
	}
	if err := a.clearLeft(ctx, plan); err != nil {
		return err
	}
	if plan.Adopt {
		a.output.Print("rackseed: an earlier attempt to join had come through")
		return os.RemoveAll(a.host.path(bootstrapConf))
	}
	template, err := os.ReadFile(a.host.path(config.JoinPath))
	if err != nil {
		return err
	}
	b, err := config.Join(template, secret)
	if err != nil {
		return err
	}
	// It holds the token: for this attempt only, and in memory.
	file := a.host.path(joinFile)
	if err := writeFile(file, b, 0o600); err != nil {
		return err
	}
	err = a.kubeadm(ctx, fmt.Sprintf("joins, attempt %d", secret.Epoch), joinArgs(file, plan.Skip))
	return errors.Join(err, os.Remove(file))
}

// askSecret claims the permission to join and gets what the node joins by. The
// *statusError is the boot service's answer that it does not get it now.
func (a *agent) askSecret(ctx context.Context) (secret wire.JoinSecret, err error) {
	_, key, err := wire.NewKeys()
	if err != nil {
		return secret, err
	}
	retry := backoff{first: time.Second, most: 15 * time.Second}
	for {
		var sealed wire.Sealed
		err := a.client.call(ctx, http.MethodPost, wire.PathNodeJoin, wire.JoinRequest{SealKey: key.PublicKey().Bytes()}, &sealed)
		var refused *statusError
		switch {
		case errors.As(err, &refused):
			return secret, err
		case err != nil:
			a.log.Warn("asking the boot service for what it joins by", "error", err)
			if !retry.wait(ctx) {
				return secret, ctx.Err()
			}
			continue
		}
		b, err := wire.Open(key, wire.JoinPurpose(string(a.config.Machine)), sealed)
		if err != nil {
			return secret, fmt.Errorf("what it joins by: %w", err)
		}
		if err := json.Unmarshal(b, &secret); err != nil {
			return secret, errors.New("what it joins by cannot be read: the boot service is of another version")
		}
		return secret, nil
	}
}

// syncOften writes everything that kubeadm and the kubelet write to the disk,
// until it is stopped.
func (a *agent) syncOften(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pause(ctx, syncPause) {
			if err := a.sync(); err != nil {
				a.log.Warn("writing to the disk what kubeadm wrote", "error", err)
			}
		}
	}()
	return func() { cancel(); <-done }
}

// kubeadm runs it; its lines are the node's output, and its phases are told now
// and then.
func (a *agent) kubeadm(ctx context.Context, text string, args []string) error {
	a.reports.Send(wire.NodeJoining, text)
	run, cancel := context.WithTimeout(ctx, kubeadmLimit)
	defer cancel()
	var why complaint
	var phase phase
	stop := phase.tell(run, func(text string) { a.reports.Progress(wire.NodeJoining, text) })
	start := time.Now()
	err := a.commands.Run(run, func(l string) {
		why.read(l)
		phase.read(l)
		a.output.Print(l)
	}, "kubeadm", args...)
	stop()
	a.kubeadmTook = fmt.Sprintf("it took %.0f s", time.Since(start).Seconds())
	if err != nil && ctx.Err() == nil {
		a.explain(ctx)
		return fmt.Errorf("kubeadm %s: %w: %s", args[0], err, why)
	}
	return err
}

// explain adds the newest errors of kubelet and containerd to the node's
// output: kubeadm only knows that something did not come up.
func (a *agent) explain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for _, unit := range []string{"kubelet", "containerd"} {
		var lines []string
		err := a.commands.Run(ctx, func(l string) { lines = append(lines, l) },
			"journalctl", "--boot", "--unit", unit, "--lines", "1000", "--output", "cat", "--no-pager", "--quiet")
		if err != nil {
			a.output.Print("rackseed: the journal of " + unit + " cannot be read: " + err.Error())
			continue
		}
		for _, l := range digest(lines, 20) {
			a.output.Print(unit + ": " + l)
		}
	}
}

// shareNodes lets nodes read each other, and makes our namespace, from a node that
// may say so.
func (a *agent) shareNodes(ctx context.Context) {
	admin := a.host.path(adminConf)
	if _, err := os.Stat(admin); err != nil {
		return // not a control plane
	}
	retry := backoff{first: 2 * time.Second, most: time.Minute}
	for {
		err := errors.Join(AllowNodesToReadNodes(ctx, admin), MakeNamespace(ctx, admin))
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Warn("the API server", "kubeconfig", filepath.Base(admin), "error", err)
		if !retry.wait(ctx) {
			return
		}
	}
}
