// Package support makes support bundles: what somebody who helps from afar needs
// to know of a boot service, in one file, and no secret.
package support

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/state"
)

// Source is what a bundle is made from.
type Source struct {
	View   state.View
	Now    time.Time
	Status any     // how the boot service is, as JSON
	Log    *Ring   // the replica's log; nil: none is kept
	Images []Image // published images
}

// Image is a published image, and why it is not whole.
type Image struct {
	machine.Image
	Size    int64  `json:"size"`
	Problem string `json:"problem,omitempty"`
}

// intents are those of one machine that are not over, or ended last.
type intents struct {
	Machine machine.ID      `json:"machine"`
	Install *machine.Intent `json:"install,omitempty"`
	Join    *machine.Intent `json:"join,omitempty"`
	Rescue  *machine.Intent `json:"rescue,omitempty"`
	Boot    state.Boot      `json:"boot"`
}

// page is how many events are held at once.
const page = 1000

const readme = `This is a support bundle of a Rackseed boot service.

status.json    how each part of the boot service is
versions.json  what runs, and how much of it there is
site.json      the site file in force, without tokens and Ignition
cluster.json   the cluster's identity, and the order to start it
machines.json  machines with their inventory
intents.json   the newest orders of each machine, and what it was told to boot
leases.json    DHCP leases
images.json    published images
events.jsonl   the event log, one event a line, oldest first
log.txt        the newest lines of the boot service's own log

It holds no password, token, key, kubeconfig or Ignition. It does hold names,
addresses and serial numbers of machines, and names of people.
`

// Write writes a bundle as a gzipped tar archive. Its memory does not grow with
// the state: what is long is made twice, once to know its length.
func Write(w io.Writer, s Source) (err error) {
	z := gzip.NewWriter(w)
	t := tar.NewWriter(z)
	defer func() {
		if err == nil {
			err = errors.Join(t.Close(), z.Close())
		}
	}()
	folder := "rackseed-support-" + s.Now.UTC().Format("20060102T150405Z") + "/"
	for _, f := range s.files() {
		var n counter
		if err := f.write(&n); err != nil {
			return fmt.Errorf("support bundle: %s: %w", f.name, err)
		}
		header := &tar.Header{Name: folder + f.name, Mode: 0o600, Size: int64(n), ModTime: s.Now, Format: tar.FormatPAX}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		if err := f.write(t); err != nil {
			return fmt.Errorf("support bundle: %s: %w", f.name, err)
		}
	}
	return nil
}

// counter counts what is written to it.
type counter int64

func (n *counter) Write(p []byte) (int, error) {
	*n += counter(len(p))
	return len(p), nil
}

// file is one file of a bundle. write writes the same each time.
type file struct {
	name  string
	write func(io.Writer) error
}

func (s Source) files() []file {
	site, _ := s.View.Site()
	cluster, _ := s.View.Cluster()
	versions := s.versions()
	log := s.Log.Bytes()
	return []file{
		{"README.txt", func(w io.Writer) error { _, err := io.WriteString(w, readme); return err }},
		{"status.json", encode(s.Status)},
		{"versions.json", encode(versions)},
		{"site.json", encode(Public(site))},
		{"cluster.json", encode(map[string]any{"cluster": cluster, "bootstrap": s.View.Bootstrap()})},
		{"machines.json", encode(some(s.View.Machines()))},
		{"intents.json", encode(s.intents())},
		{"leases.json", encode(some(s.View.Leases()))},
		{"images.json", encode(some(s.Images))},
		{"events.jsonl", s.events},
		{"log.txt", func(w io.Writer) error { _, err := w.Write(log); return err }},
	}
}

func encode(v any) func(io.Writer) error {
	return func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
}

// some is a list that is never null.
func some[T any](list []T) []T { return append([]T{}, list...) }

// Public is a site without what gives power to whoever reads it: the hashes of
// tokens, and Ignition, in which passwords and keys are common.
func Public(site machine.Site) machine.Site {
	operators := make([]machine.SiteOperator, len(site.Operators))
	for i, o := range site.Operators {
		operators[i] = machine.SiteOperator{Name: o.Name}
	}
	profiles := make([]machine.Profile, len(site.Profiles))
	for i, p := range site.Profiles {
		if p.Ignition != "" {
			p.Ignition = fmt.Sprintf("(%d bytes, left out)", len(p.Ignition))
		}
		profiles[i] = p
	}
	site.Operators, site.Profiles = operators, profiles
	return site
}

func (s Source) intents() []intents {
	list := []intents{}
	for _, m := range s.View.Machines() {
		list = append(list, intents{m.ID, s.View.InstallIntent(m.ID), s.View.JoinIntent(m.ID), s.View.RescueIntent(m.ID), s.View.Boot(m.ID)})
	}
	return list
}

func (s Source) events(w io.Writer) error {
	e := json.NewEncoder(w)
	for after := uint64(0); ; {
		list := s.View.Events(after, "", page)
		for _, event := range list {
			if err := e.Encode(event); err != nil {
				return err
			}
			after = event.Seq
		}
		if len(list) < page {
			return nil
		}
	}
}

// versions are what runs and figures of it, taken once.
func (s Source) versions() map[string]any {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return map[string]any{
		"time": s.Now.UTC(), "program": ThisProgram(), "processors": runtime.NumCPU(), "goroutines": runtime.NumGoroutine(),
		"memoryBytes": memory.Sys, "heapBytes": memory.HeapAlloc,
		"logIndex": s.View.Index(), "lastEvent": s.View.LastEvent(),
	}
}
