package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/services/identity"
	"github.com/rackseed/rackseed/services/peer"
	"github.com/rackseed/rackseed/services/wire"
)

// replicaLook is how often a node asks whether it runs a replica of the boot
// service. While nobody answers, everything stays as it is.
const replicaLook = 15 * time.Second

// invitationAge is after what time an invitation is asked for anew: it is taken for
// ten minutes, and pulling an image can take some of them.
const invitationAge = 8 * time.Minute

// replicaLeft is what of a replica is on a node.
type replicaLeft struct {
	Manifest []byte // of its static pod; nil: none
	Image    string // that the manifest names
	Refused  string // an image that was run here and did not answer; "": none
	Folder   bool
	ID       string // its server ID; "": it has not joined
	Invited  bool   // its invitation is there
	Stale    bool   // and too old to join by
}

// replicaStep is what is to be done about a node's replica.
type replicaStep string

const (
	replicaStays  replicaStep = "stays"  // nothing
	replicaInvite replicaStep = "invite" // ask for its invitation
	replicaWrite  replicaStep = "write"  // the static pod's manifest
	replicaChange replicaStep = "change" // pull another image, and have it run
	replicaEnd    replicaStep = "end"    // remove the manifest: the kubelet ends it
	replicaForget replicaStep = "forget" // remove its folder
)

// nextReplica decides it. manifest is the one that the order asks for. A replica
// that joined is ended only by its own ID among those that left: a plan that is over, or
// a leader with an older state, must not end a voter. One that
// joined and has no folder was lost with its disk: it must not come back under its
// name, and so nothing is started. What runs is started anew with another image only
// where the order says so: it says it to one node after another. Another manifest of
// the same image changes nothing.
func nextReplica(order wire.ReplicaOrder, left replicaLeft, manifest []byte) replicaStep {
	over := slices.Contains(order.Left, left.ID) || left.ID == "" && !order.Run
	switch {
	case over && left.Manifest != nil:
		return replicaEnd
	case over && left.Folder:
		return replicaForget
	case left.ID != "" && left.Manifest != nil && order.Change && order.Image != left.Image && order.Image != left.Refused:
		return replicaChange
	case left.ID != "" && left.Manifest != nil:
		return replicaStays
	case !order.Run || order.Image == "" || order.Joined && !left.Folder:
		return replicaStays
	case !order.Joined && (!left.Invited || left.Stale):
		return replicaInvite
	case !bytes.Equal(left.Manifest, manifest):
		return replicaWrite
	}
	return replicaStays
}

// keepReplica runs a replica of the boot service on this node as long as the boot
// service says so. One that was stopped to be recovered is left alone while that lasts,
// and started where it was abandoned, whether anybody answers or not.
func (a *agent) keepReplica(ctx context.Context) {
	told := ""
	heard := time.Now()
	defer a.tpm.Wait()
	look := time.NewTicker(replicaLook)
	defer look.Stop()
	for joined := a.joined; ; {
		started, busy, err := a.host.startAbandoned()
		if started {
			a.output.Print("rackseed: the replica of the boot service was stopped, and whoever did that is gone: it is started again")
		}
		if err == nil && !busy && joined == nil {
			err = a.tendReplica(ctx, &heard)
		}
		err = errors.Join(err, a.lendTPM(ctx))
		if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && text != told {
			told = text
			a.log.Warn("the replica of the boot service", "error", err)
			if refused := (*statusError)(nil); !errors.As(err, &refused) {
				a.output.Print("rackseed: replica of the boot service: " + text)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-joined:
			joined, heard = nil, time.Now()
		case <-look.C:
		}
	}
}

// tendReplica does what is to be done about the replica; heard is when the boot
// service answered last.
func (a *agent) tendReplica(ctx context.Context, heard *time.Time) error {
	path, err := a.host.replicaPath()
	if err != nil {
		return err
	}
	var order wire.ReplicaOrder
	err = a.client.call(ctx, http.MethodGet, path, nil, &order)
	if err == nil {
		*heard = time.Now()
	}
	if back := a.judgeChange(err == nil, *heard); err != nil || back != nil {
		return errors.Join(err, back)
	}
	endpoint := netip.AddrPortFrom(a.config.Address.Addr(), peer.PortNumber).String()
	manifest, err := config.Service{Image: order.Image, Endpoint: endpoint, Slower: order.Slower}.Pod()
	if err != nil {
		return err
	}
	for range 3 { // the invitation, the manifest, and that nothing is left to do
		left, err := a.host.replicaLeft()
		if err != nil {
			return err
		}
		if order.Change && left.Refused != "" && order.Image != left.Refused {
			if err := os.Remove(a.host.path(config.ServiceRefused)); err != nil { // it may be ordered again
				return err
			}
		}
		switch nextReplica(order, left, manifest) {
		case replicaStays:
			return nil
		case replicaInvite:
			err = a.inviteReplica(ctx)
		case replicaWrite:
			// First, or its secrets are on the disk without it. What keeps it from that
			// is told at the end of this look; the replica then shows that it has none.
			_ = a.lendTPM(ctx)
			a.output.Print("rackseed: this node runs a replica of the boot service: " + order.Image)
			err = writeFile(a.host.path(config.ServiceManifest), manifest, 0o600)
		case replicaChange:
			err = a.changeReplica(ctx, left.Manifest, manifest, order.Image)
		case replicaEnd:
			// Its folder goes at the next look: the kubelet ends it meanwhile.
			a.output.Print("rackseed: this node runs no replica of the boot service any more")
			return os.Remove(a.host.path(config.ServiceManifest))
		case replicaForget:
			err = a.host.setReplicaAside(left.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// replicaPath is where this node asks for its order, with the replica that it has.
func (h host) replicaPath() (string, error) {
	own, err := identity.Load(h.path(config.ServiceFolder + "/identity"))
	if errors.Is(err, fs.ErrNotExist) {
		return wire.PathNodeReplica, nil
	}
	q := url.Values{"replica": {own.ID}, "generation": {strconv.FormatUint(own.Generation, 10)}}
	return wire.PathNodeReplica + "?" + q.Encode(), err
}

// lendTPM has this node's replica find the machine's TPM, if there is one.
func (a *agent) lendTPM(ctx context.Context) error {
	if err := a.tpm.Listen(ctx, a.host.path(config.ServiceFolder)); err != nil {
		return fmt.Errorf("its TPM: %w", err)
	}
	return nil
}

func (h host) replicaLeft() (left replicaLeft, err error) {
	left.Manifest, err = os.ReadFile(h.path(config.ServiceManifest))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return left, err
	}
	left.Image = config.PodImage(left.Manifest)
	if left.Refused, err = h.word(config.ServiceRefused); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return left, err
	}
	left.Folder = h.exists(config.ServiceFolder)
	own, err := identity.Load(h.path(config.ServiceFolder + "/identity"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return left, err
	}
	left.ID = own.ID
	if i, err := os.Stat(h.path(config.ServiceInvitation)); err == nil {
		left.Invited, left.Stale = true, time.Since(i.ModTime()) > invitationAge
	}
	return left, nil
}

const (
	serviceLeft  = config.ServiceFolder + ".left" // of a replica that left
	serviceBlobs = "/blobs"                       // in a replica's folder
)

// setReplicaAside takes a replica's folder out of the way: one that joined is kept, for
// what nobody foresaw.
func (h host) setReplicaAside(id string) error {
	folder := h.path(config.ServiceFolder)
	if id == "" {
		return os.RemoveAll(folder)
	}
	aside := h.path(serviceLeft)
	if err := os.RemoveAll(aside); err != nil { // the one before
		return err
	}
	return os.Rename(folder, aside)
}

// replicaFolder makes the folder of a new replica. It takes the blobs of the one that
// left: they go by their digests, and copying them can take longer than all else.
func (h host) replicaFolder() error {
	if err := os.MkdirAll(h.path(config.ServiceFolder), 0o700); err != nil {
		return err
	}
	if h.exists(config.ServiceFolder + serviceBlobs) {
		return nil
	}
	err := os.Rename(h.path(serviceLeft+serviceBlobs), h.path(config.ServiceFolder+serviceBlobs))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// inviteReplica gets what the replica joins by, onto the disk.
func (a *agent) inviteReplica(ctx context.Context) error {
	_, key, err := wire.NewKeys()
	if err != nil {
		return err
	}
	var sealed wire.Sealed
	if err := a.client.call(ctx, http.MethodPost, wire.PathNodeReplica, wire.JoinRequest{SealKey: key.PublicKey().Bytes()}, &sealed); err != nil {
		return err
	}
	b, err := wire.Open(key, wire.ReplicaPurpose(string(a.config.Machine)), sealed)
	if err != nil {
		return fmt.Errorf("the replica's invitation: %w", err)
	}
	var secret wire.ReplicaSecret
	if err := json.Unmarshal(b, &secret); err != nil {
		return errors.New("the replica's invitation cannot be read: the boot service is of another version")
	}
	if err := a.host.replicaFolder(); err != nil {
		return err
	}
	return writeFile(a.host.path(config.ServiceInvitation), secret.Invitation, 0o600)
}
