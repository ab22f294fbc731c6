package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rackseed/rackseed/kube/config"
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
	var order *wire.NodeOrder
	var lastReason string
	asked := false
	retry := backoff{first: 15 * time.Second, most: retryMost}
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
		case stepInit, stepResume:
			err := a.kubeadm(ctx, step)
			if err == nil {
				err = a.sync()
			}
			if err != nil {
				if ctx.Err() != nil {
					return nil
				}
				a.reports.Send(wire.NodeFailed, err.Error()+"; it is tried again")
				if !retry.wait(ctx) {
					return nil
				}
				continue
			}
			if err := a.host.markDone(doneMark{}); err != nil {
				return err
			}
		}
	}
	return nil
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

// kubeadm runs it for a step; its lines are the node's output.
func (a *agent) kubeadm(ctx context.Context, s step) error {
	text := "init begins the cluster"
	if s == stepResume {
		text = "init goes on where it was interrupted"
	}
	// Also before what looks like the first run: the certificates come first, and
	// alone they are no sign of a beginning.
	if err := a.clearTorn(ctx); err != nil {
		return err
	}
	a.reports.Send(wire.NodeJoining, text)
	run, cancel := context.WithTimeout(ctx, kubeadmLimit)
	defer cancel()
	var last string
	start := time.Now()
	err := a.commands.Run(run, func(l string) {
		if strings.TrimSpace(l) != "" {
			last = l
		}
		a.output.Print(l)
	}, "kubeadm", kubeadmArgs(s, a.host.path(config.KubeadmPath))...)
	a.kubeadmTook = fmt.Sprintf("it took %.0f s", time.Since(start).Seconds())
	if err != nil && ctx.Err() == nil {
		a.explain(ctx)
		return fmt.Errorf("kubeadm init: %w: %s", err, last)
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

// shareNodes lets nodes read each other, from a node that may say so.
func (a *agent) shareNodes(ctx context.Context) {
	admin := a.host.path(adminConf)
	if _, err := os.Stat(admin); err != nil {
		return // not a control plane
	}
	retry := backoff{first: 2 * time.Second, most: time.Minute}
	for {
		err := AllowNodesToReadNodes(ctx, admin)
		if err == nil || ctx.Err() != nil {
			return
		}
		a.log.Warn("the API server", "kubeconfig", filepath.Base(admin), "error", err)
		if !retry.wait(ctx) {
			return
		}
	}
}
