//go:build host

package moving

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rackseed/rackseed/build/oci"
	"github.com/rackseed/rackseed/services/api"
)

// newerRelease is the other release's name.
const newerRelease = "2027-03-01T00:00:00Z"

// rollouts rolls a newer release out to the three replicas, the old and the new one
// beside each other, while people write; and then one that ends at once.
func (r *room) rollouts() {
	r.t.Helper()
	newer := filepath.Join(r.dir, "newer")
	if out, err := exec.Command("go", "build", "-ldflags", "-X github.com/rackseed/rackseed/images/pid1.BuildDate="+newerRelease, "-o", newer, "../..").CombinedOutput(); err != nil {
		r.t.Fatalf("building a newer rackseed: %v\n%s", err, out)
	}
	broken := filepath.Join(r.dir, "broken")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		r.t.Fatal(err)
	}
	r.settled() // building took the processors
	ctx, stop := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	var acked []string
	good, bad := r.push("newer"), r.push("broken")
	name := func(digest string) string { return "rackseed.local/rackseed/service@" + digest }
	r.programs = map[string]string{name(good): newer, name(bad): broken}
	all.Go(func() { r.carry(ctx) })
	all.Go(func() { acked = r.writes(ctx) })

	r.push("newer") // the one that is published now
	if out, err := r.cli("service", "upgrade", "--yes", "--within", "2m"); err != nil {
		r.t.Fatalf("the upgrade: %v\n%s", err, out)
	}
	var now api.Service
	r.read("/api/service", nil, &now)
	for _, x := range now.Replicas {
		if x.Release != newerRelease || x.Image != good || x.Back == "" || !x.Voter {
			r.t.Errorf("after the upgrade: %+v", x)
		}
	}
	if told := r.told(); len(told) != 3 {
		r.t.Errorf("told %v: not each of three", told)
	}

	r.push("broken")
	out, err := r.cli("service", "upgrade", "--yes", "--within", "15s")
	if ended := (*exec.ExitError)(nil); !errors.As(err, &ended) || ended.ExitCode() != 1 || !strings.Contains(out, "the upgrade was stopped: replica node-") {
		r.t.Fatalf("a release that ends at once: %v\n%s", err, out)
	}
	if told := r.told(); len(told) != 4 {
		r.t.Errorf("told %v: more than one runs what ends at once", told)
	}
	r.until("all run what they ran before", time.Minute, func() error {
		now, err := r.service()
		if err != nil {
			return err
		}
		for _, x := range now.Replicas {
			if x.Image != good || x.Ordered != "" {
				return fmt.Errorf("%+v", x)
			}
			for _, h := range r.nodes {
				if s, err := h.status(); h.name == x.Name && (err != nil || len(s.Machines) == 0) {
					return fmt.Errorf("%s: %+v, %v", h.name, s, err)
				}
			}
		}
		return nil
	})
	stop()
	all.Wait()
	times := map[string]int{}
	for _, e := range r.events() {
		times[e.Data["until"]]++
	}
	for _, until := range acked {
		if times[until] != 1 {
			r.t.Errorf("acknowledged, and %d times in the log: the discovery window until %s", times[until], until)
		}
	}
	if len(acked) < 20 {
		r.t.Errorf("only %d writes were acknowledged", len(acked))
	}
}

// push publishes an image of that release as the boot service's, from a folder that
// is like the ISO's, and answers its digest.
func (r *room) push(release string) string {
	r.t.Helper()
	dir := filepath.Join(r.dir, "images-"+release)
	if _, err := os.Stat(dir); err != nil {
		layer := filepath.Join(r.dir, release+".tar")
		f, err := os.Create(layer)
		if err == nil {
			t := tar.NewWriter(f)
			err = errors.Join(t.WriteHeader(&tar.Header{Name: "release", Size: int64(len(release)), Mode: 0o644}))
			_, w := t.Write([]byte(release))
			err = errors.Join(err, w, t.Close(), f.Close())
		}
		if err == nil {
			other := oci.Artifact{Ref: "ipxe", Type: oci.TypeFirmware, Files: map[string]string{"undionly.kpxe": layer}}
			err = oci.Write(dir, other, oci.Image{Ref: "service", Layers: []string{layer}, Entrypoint: []string{"/usr/local/bin/rackseed"}, Created: time.Unix(1, 0)})
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	out, err := r.cli("image", "push", dir, "rackseed/service")
	digest := regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(out)
	if err != nil || digest == "" {
		r.t.Fatalf("image push: %v\n%s", err, out)
	}
	disks := 0
	for _, n := range r.nodes[:3] {
		if file, err := os.Stat(filepath.Join(n.data(), "blobs", "blobs", "sha256", digest[len("sha256:"):])); err == nil && file.Mode().IsRegular() {
			disks++
		}
	}
	if disks < 2 {
		r.t.Errorf("the push of %s was acknowledged with %d disks that have it", digest, disks)
	}
	return digest
}

// cli runs the command line as an operator.
func (r *room) cli(args ...string) (string, error) {
	c := exec.CommandContext(r.t.Context(), r.program, args...)
	c.Env = append(os.Environ(), "RACKSEED_SERVER=https://"+service, "RACKSEED_FINGERPRINT="+r.fingerprint, "RACKSEED_TOKEN="+token)
	out, err := c.CombinedOutput()
	return string(out), err
}

// service is which releases run, as the console says.
func (r *room) service() (s api.Service, err error) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
	defer cancel()
	return s, r.client.Call(ctx, http.MethodGet, "/api/service", nil, nil, &s)
}

// told are the replicas whose turn came, in order, which is by their nodes' names, the
// one that leads last: it hands the lead over first.
func (r *room) told() (names []string) {
	r.t.Helper()
	var now api.Service
	r.read("/api/service", nil, &now)
	leads, rollout := "", ""
	var left []api.ServiceReplica // whose turn is still to come in this rollout
	for _, e := range r.events() {
		switch e.Kind {
		case "epoch.begun":
			leads = e.Data["leader"]
		case "rollout.told":
			if e.Data["rollout"] != rollout {
				rollout, left = e.Data["rollout"], slices.SortedFunc(slices.Values(now.Replicas), func(a, b api.ServiceReplica) int { return strings.Compare(a.Name, b.Name) })
			}
			i := slices.IndexFunc(left, func(x api.ServiceReplica) bool { return x.ID != leads })
			if i < 0 || left[i].ID != e.Data["replica"] {
				r.t.Fatalf("event %d: %s, while %s led and these were left: %+v", e.Seq, e.Text, leads, left)
			}
			names = append(names, left[i].Name)
			left = slices.Delete(left, i, i+1)
		}
	}
	return names
}

// writes opens the discovery window again and again until ctx ends, each time for
// another time, and answers until when, of what was acknowledged.
func (r *room) writes(ctx context.Context) (acked []string) {
	for n := 1; ctx.Err() == nil; n++ {
		var now api.Discovery
		one, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := r.client.Call(one, http.MethodPost, "/api/discovery/open", nil, map[string]string{"for": fmt.Sprintf("%ds", 1000*n)}, &now)
		cancel()
		if err == nil {
			acked = append(acked, now.Until.UTC().Format(time.RFC3339))
		}
		select {
		case <-ctx.Done():
		case <-time.After(250 * time.Millisecond):
		}
	}
	return acked
}
