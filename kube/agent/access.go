package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"time"

	"github.com/rackseed/rackseed/services/wire"
)

// accessLook is how often a node asks who may log in. While nobody answers, everything
// stays as it is.
const accessLook = time.Minute

// keepAccess has the site's SSH keys on this node, as they are now: whoever forgot one
// at the install must not install the node again, and one that was taken back opens
// nothing.
func (a *agent) keepAccess(ctx context.Context) {
	told := ""
	look := time.NewTicker(accessLook)
	defer look.Stop()
	for {
		err := a.tendAccess(ctx)
		if text := fmt.Sprint(err); err != nil && ctx.Err() == nil && text != told {
			told = text
			a.log.Warn("SSH keys of the site", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

func (a *agent) tendAccess(ctx context.Context) error {
	var access wire.NodeAccess
	if err := a.client.call(ctx, http.MethodGet, wire.PathNodeAccess, nil, &access); err != nil {
		return err
	}
	file, want := a.host.path(wire.PathAuthorizedKeys), wire.AuthorizedKeys(access.SSHKeys)
	has, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) || bytes.Equal(has, want) {
		return err
	}
	a.output.Print(fmt.Sprintf("rackseed: root's SSH keys are those of the site file: %d", bytes.Count(want, []byte("\n"))-1))
	return writeFile(file, want, 0o600)
}
