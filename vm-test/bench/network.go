package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rackseed/rackseed/build/tools"
)

// The network of servers that are compared: ours and its peers at one end of a
// cable, who asks them at the other.
const (
	network        = "10.77.0.0/16"
	networkMask    = "255.255.0.0"
	networkBits    = "/16"
	peerAddress    = "10.77.0.2" // the appliance's own, and a peer's
	serviceAddress = "10.77.0.3" // ours
	otherAddress   = "10.77.0.4" // a second peer's
	askerAddress   = "10.77.0.9"
	poolFrom       = "10.77.16.0"
	poolTo         = "10.77.255.254"
)

// benchSite is the site file of ours in that network.
const benchSite = `version: 1
name: bench
serviceAddress: ` + serviceAddress + `
links:
  - interface: eth0
    address: ` + peerAddress + networkBits + `
    dhcp:
      from: ` + poolFrom + `
      to: ` + poolTo + `
      leaseTime: 1h
      others: true
`

// stage is what servers are compared on.
type stage struct {
	*cable
	dir      string // where servers write
	rackseed string // our program
	peers    tools.Root
}

// newStage lays the cable. The caller closes it.
func newStage(ctx context.Context, dir, rackseed string, peers tools.Root) (stage, error) {
	c, err := newCable(ctx, peerAddress+networkBits, askerAddress+networkBits)
	return stage{cable: c, dir: dir, rackseed: rackseed, peers: peers}, err
}

// serve starts ours as it runs on the appliance, with its data in dir. It
// serves at serviceAddress as soon as it has it.
func (s stage) serve(ctx context.Context, dir string, args ...string) (*daemon, error) {
	file := filepath.Join(dir, "site.yaml")
	if err := os.WriteFile(file, []byte(benchSite), 0o600); err != nil {
		return nil, err
	}
	serve := exec.Command(s.rackseed, append([]string{"serve", "--data", filepath.Join(dir, "data"), "--site", file}, args...)...)
	return start("rackseed", s.server.inside(ctx, serve), filepath.Join(dir, "log"))
}

// peer starts a peer's server, whose words go to the file log in dir.
func (s stage) peer(ctx context.Context, dir, name string, args ...string) (*daemon, error) {
	cmd, err := s.peers.Command(ctx, name, args...)
	if err != nil {
		return nil, err
	}
	return start(name, s.server.inside(ctx, cmd), filepath.Join(dir, "log"))
}

// clients gives n clients addresses of their own: servers have limits for each.
func (s stage) clients(ctx context.Context, n int) ([]string, error) {
	var addresses []string
	for i := range n {
		address := fmt.Sprintf("10.77.1.%d", i+1)
		if err := s.client.run(ctx, "ip", "addr", "add", address+networkBits, "dev", "eth0"); err != nil {
			return nil, err
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// atOnce lets all clients begin together, and returns how long it took until
// the last was done, at most limit.
func atOnce(ctx context.Context, limit time.Duration, clients []string, one func(ctx context.Context, client string) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %v", limit))
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	begin := time.Now()
	for _, client := range clients {
		all.Go(func() error {
			if err := one(ctx, client); err != nil {
				return fmt.Errorf("client %s: %w", client, err)
			}
			return nil
		})
	}
	err := all.Wait()
	return time.Since(begin), err
}
