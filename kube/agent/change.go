package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/durable"
	"github.com/rackseed/rackseed/services/ignition"
)

const (
	pullLimit = 10 * time.Minute // for a replica's image
	// A changed manifest is believed in once the boot service answers for so long
	// after it: by then the kubelet ended what ran before, which answered, too.
	changeSettles = 2 * time.Minute
	// It is undone once nobody answers for so long: this node's replica may be the
	// only one, and then nobody else can order it back.
	changeSilence = 10 * time.Minute
)

// verdict is what a changed manifest turned out to be.
type verdict string

const (
	changeWaits   verdict = "waits"
	changeGood    verdict = "good"
	changeRefused verdict = "refused"
)

// judgeChange decides it: age is since the manifest was changed, silence since the
// boot service answered last, answers whether it does now.
func judgeChange(age, silence time.Duration, answers bool) verdict {
	switch {
	case answers && age >= changeSettles:
		return changeGood
	case !answers && min(age, silence) >= changeSilence:
		return changeRefused
	}
	return changeWaits
}

// changeReplica has the node's replica run another image. It is pulled before: the
// replica may be the one that serves it.
func (a *agent) changeReplica(ctx context.Context, before, manifest []byte, image string) error {
	if err := a.pull(ctx, image); err != nil {
		return err
	}
	a.output.Print("rackseed: this node's replica of the boot service is started anew, with " + image)
	if err := writeFile(a.host.path(config.ServiceBefore), before, 0o600); err != nil {
		return err
	}
	return writeFile(a.host.path(config.ServiceManifest), manifest, 0o600)
}

// pull has an image in containerd's store, where the kubelet finds it. Only the boot
// service's own registry is asked, whose certificate this node knows.
func (a *agent) pull(ctx context.Context, image string) error {
	if !strings.HasPrefix(image, ignition.RegistryHost+"/") {
		return fmt.Errorf("image %.200q is not from %s, and is not run here", image, ignition.RegistryHost)
	}
	ctx, cancel := context.WithTimeout(ctx, pullLimit)
	defer cancel()
	complete, err := a.ctr(ctx, "images", "check", "--quiet", "name=="+image)
	if err != nil {
		return err
	}
	if slices.Contains(complete, image) {
		return nil
	}
	if _, err = a.ctr(ctx, "images", "pull", "--hosts-dir", config.CertsDir, image); err != nil {
		return fmt.Errorf("the replica's new image: %w", err)
	}
	return nil
}

// judgeChange forgets what ran before once its successor answers, or has it run again.
func (a *agent) judgeChange(answers bool, heard time.Time) error {
	file := a.host.path(config.ServiceBefore)
	info, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch judgeChange(time.Since(info.ModTime()), time.Since(heard), answers) {
	case changeGood:
		return durable.Remove(file)
	case changeRefused:
		return a.undoChange(file)
	}
	return nil
}

// undoChange has a replica run what it ran before. What did not answer is not run
// again until something else is ordered.
func (a *agent) undoChange(file string) error {
	before, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	now, err := os.ReadFile(a.host.path(config.ServiceManifest))
	if err != nil {
		return err
	}
	if bytes.Equal(before, now) { // it was undone, and the power went before that was noted
		return durable.Remove(file)
	}
	a.output.Print(fmt.Sprintf("rackseed: nobody answered for %v after this node's replica was changed: it runs %s again", changeSilence, config.PodImage(before)))
	err = writeFile(a.host.path(config.ServiceRefused), []byte(config.PodImage(now)+"\n"), 0o644)
	if err == nil {
		err = writeFile(a.host.path(config.ServiceManifest), before, 0o600)
	}
	if err != nil {
		return err
	}
	return durable.Remove(file)
}
