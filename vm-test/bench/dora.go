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

// perfdhcp asks as a relay agent does: from an address, to an address.
const (
	doraRate    = 10000 // exchanges a second asked for: more than any was seen to complete
	doraSeconds = 5
	doraClients = doraRate * doraSeconds // the pool has an address for each
)

// DORA compares DHCP servers: ours, which has every lease on the disk before
// it acknowledges it, with Kea and with dnsmasq, both with leases in a file.
// All are asked for more than they can do; what counts is the exchanges that
// were completed (DISCOVER, OFFER, REQUEST, ACK). Each run has a new server with
// an empty folder in dir, which must be on a disk.
func DORA(ctx context.Context, dir, rackseed string, peers tools.Root, runs int, log io.Writer) (lines []Line, err error) {
	asked := fmt.Sprintf("Exchanges that perfdhcp completed, over veth, of %d/s asked for %d s from %d clients; all three share these CPUs.", doraRate, doraSeconds, doraClients)
	const ours = "Ours: rackseed serve; each lease is committed and on the disk (fsync) before its ACK."
	kea := Line{Name: "dora-fsync", Unit: "DORA/s", Better: "more", Notes: []string{
		asked, ours,
		"Peer: Kea DHCPv4, memfile with persist=true, which writes each lease to its file and does not fsync it.",
	}}
	dnsmasq := Line{Name: "dora-dnsmasq", Unit: "DORA/s", Better: "more", Notes: []string{
		asked, ours + " The same runs as in dora-fsync.",
		"Peer: dnsmasq, --no-ping, which after each lease writes its file of all leases anew and does fsync it.",
	}}
	defer func() {
		if err != nil {
			err = fmt.Errorf("DHCP: %w", err)
		}
	}()
	if err := onDisk(dir); err != nil {
		return nil, err
	}
	s, err := newStage(ctx, dir, rackseed, peers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	d := dora{s}
	err = inTurn(ctx, runs, d.ours, []rival{{&kea, d.kea}, {&dnsmasq, d.dnsmasq}}, log)
	return []Line{kea, dnsmasq}, err
}

// dora are the servers of one comparison.
type dora struct{ stage }

func (d dora) ours(ctx context.Context) (float64, error) {
	dir, err := fresh(d.dir, "rackseed")
	if err != nil {
		return 0, err
	}
	s, err := d.serve(ctx, dir)
	if err != nil {
		return 0, err
	}
	return d.measure(ctx, s, serviceAddress)
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
		"subnet4":           []object{{"id": 1, "subnet": network, "pools": []object{{"pool": poolFrom + " - " + poolTo}}}},
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
	s, err := start("kea-dhcp4", d.server.inside(ctx, kea), filepath.Join(dir, "log"))
	if err != nil {
		return 0, err
	}
	return d.measure(ctx, s, peerAddress)
}

// dnsmasqArgs are dnsmasq's for the same network. It would keep 1000 leases,
// ask by ICMP whether an address is free, as ours and Kea do not, and write a
// line for each packet.
func dnsmasqArgs(dir string) []string {
	return []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--user=root", "--pid-file=", "--log-facility=-",
		"--interface=eth0", "--bind-interfaces", "--no-ping", "--quiet-dhcp",
		"--dhcp-range=" + poolFrom + "," + poolTo + "," + networkMask + ",1h",
		"--dhcp-lease-max=" + strconv.Itoa(2*doraClients),
		"--dhcp-leasefile=" + filepath.Join(dir, "leases"),
	}
}

func (d dora) dnsmasq(ctx context.Context) (float64, error) {
	dir, err := fresh(d.dir, "dnsmasq")
	if err != nil {
		return 0, err
	}
	s, err := d.peer(ctx, dir, "dnsmasq", dnsmasqArgs(dir)...)
	if err != nil {
		return 0, err
	}
	return d.measure(ctx, s, peerAddress)
}

// measure asks a server as fast as it can, and stops it.
func (d dora) measure(ctx context.Context, s *daemon, address string) (rate float64, err error) {
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
