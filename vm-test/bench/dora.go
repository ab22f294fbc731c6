package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/rackseed/rackseed/build/tools"
)

// The network of the two DHCP servers and of perfdhcp, which asks as a relay
// agent does: from an address, to an address.
const (
	doraServer  = "10.77.0.2" // the appliance's, and Kea's
	doraService = "10.77.0.3" // the service address
	doraClient  = "10.77.0.9"
	doraNetwork = "10.77.0.0/16"
	doraFrom    = "10.77.16.0" // the pool holds every client
	doraTo      = "10.77.255.254"

	doraRate    = 10000 // exchanges a second asked for: more than either was seen to complete
	doraSeconds = 5
	doraClients = doraRate * doraSeconds
)

// DORA compares DHCP servers: ours, which has every lease on the disk before
// it acknowledges it, and Kea with leases in a file. Both are asked for more
// than they can do; what counts is the exchanges that were completed
// (DISCOVER, OFFER, REQUEST, ACK). Each run has a new server with an empty
// folder in dir, which must be on a disk.
func DORA(ctx context.Context, dir, rackseed string, peers tools.Root, runs int, log io.Writer) (line Line, err error) {
	line = Line{
		Name: "dora-fsync", Unit: "DORA/s", Better: "more",
		Notes: []string{
			fmt.Sprintf("Exchanges that perfdhcp completed, over veth, of %d/s asked for %d s from %d clients; all three share these CPUs.", doraRate, doraSeconds, doraClients),
			"Ours: rackseed serve; each lease is committed and on the disk (fsync) before its ACK.",
			"Peer: Kea DHCPv4, memfile with persist=true, which writes each lease to its file and does not fsync it.",
		},
	}
	if err := onDisk(dir); err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	c, err := newCable(ctx, doraServer+"/16", doraClient+"/16")
	if err != nil {
		return line, fmt.Errorf("%s: %w", line.Name, err)
	}
	defer func() { err = errors.Join(err, c.close()) }()
	d := dora{cable: c, dir: dir, rackseed: rackseed, peers: peers}
	return line, line.inTurn(ctx, runs, d.ours, d.kea, log)
}

// dora is the stage of one comparison.
type dora struct {
	*cable
	dir      string
	rackseed string
	peers    tools.Root
}

const doraSite = `version: 1
name: bench
serviceAddress: ` + doraService + `
links:
  - interface: eth0
    address: ` + doraServer + `/16
    dhcp:
      from: ` + doraFrom + `
      to: ` + doraTo + `
      leaseTime: 1h
      others: true
`

func (d dora) ours(ctx context.Context) (float64, error) {
	dir, err := fresh(d.dir, "rackseed")
	if err != nil {
		return 0, err
	}
	site := filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(site, []byte(doraSite), 0o600); err != nil {
		return 0, err
	}
	serve := exec.Command(d.rackseed, "serve", "--data", filepath.Join(dir, "data"), "--site", site)
	return d.measure(ctx, "rackseed", d.server.inside(ctx, serve), filepath.Join(dir, "log"), doraService)
}

// keaConfig is Kea's configuration for the same network. Kea would write a
// line for each packet, ours does not: only warnings are kept. Its file is not
// cleaned up (lfc-interval): a run is too short for it.
func keaConfig(dir string) ([]byte, error) {
	type object = map[string]any
	return json.MarshalIndent(object{"Dhcp4": object{
		"interfaces-config": object{"interfaces": []string{"eth0"}},
		"lease-database":    object{"type": "memfile", "persist": true, "name": filepath.Join(dir, "leases.csv"), "lfc-interval": 0},
		"valid-lifetime":    3600,
		"subnet4":           []object{{"id": 1, "subnet": doraNetwork, "pools": []object{{"pool": doraFrom + " - " + doraTo}}}},
		"loggers":           []object{{"name": "kea-dhcp4", "severity": "WARN", "output-options": []object{{"output": "stdout"}}}},
	}}, "", "  ")
}

func (d dora) kea(ctx context.Context) (float64, error) {
	dir, err := fresh(d.dir, "kea")
	if err != nil {
		return 0, err
	}
	config, err := keaConfig(dir)
	if err != nil {
		return 0, err
	}
	path := filepath.Join(dir, "kea.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		return 0, err
	}
	kea, err := d.peers.Command(ctx, "kea-dhcp4", "-c", path)
	if err != nil {
		return 0, err
	}
	// Kea 2.6.3 writes into no folders but these.
	for _, variable := range []string{"KEA_PIDFILE_DIR", "KEA_LOCKFILE_DIR", "KEA_DHCP_DATA_DIR"} {
		kea.Env = append(kea.Env, variable+"="+dir)
	}
	return d.measure(ctx, "kea-dhcp4", d.server.inside(ctx, kea), filepath.Join(dir, "log"), doraServer)
}

// measure starts a server, asks it as fast as it can, and stops it.
func (d dora) measure(ctx context.Context, name string, server *exec.Cmd, log, address string) (rate float64, err error) {
	s, err := start(name, server, log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	err = s.await(ctx, func(ctx context.Context) error {
		// perfdhcp was seen to hang where nobody has the address yet.
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		e, err := d.ask(ctx, address, "-r", "10", "-p", "1", "-W", "200000")
		if err == nil && e.complete == 0 {
			err = fmt.Errorf("it does not answer DHCP at %s", address)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	e, err := d.ask(ctx, address, "-r", strconv.Itoa(doraRate), "-R", strconv.Itoa(doraClients), "-p", strconv.Itoa(doraSeconds), "-W", "1000000")
	return float64(e.complete) / doraSeconds, err
}

// ask runs perfdhcp.
func (d dora) ask(ctx context.Context, address string, args ...string) (exchanges, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	perfdhcp, err := d.peers.Command(ctx, "perfdhcp", append(append([]string{"-4", "-l", "eth0"}, args...), address)...)
	if err != nil {
		return exchanges{}, err
	}
	report, err := d.client.inside(ctx, perfdhcp).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !(errors.As(err, &exit) && exit.ExitCode() == perfdhcpDrops) {
		return exchanges{}, fmt.Errorf("perfdhcp: %w: %s", err, report)
	}
	return readPerfdhcp(string(report))
}

// perfdhcpDrops is perfdhcp's exit status where some exchanges were not
// completed (perfdhcp(8)).
const perfdhcpDrops = 3
