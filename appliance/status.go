package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/rackseed/rackseed/appliance/screen"
)

// statusClient asks the boot service on its local socket.
func statusClient(socket string) *http.Client {
	return &http.Client{
		Timeout: 2 * time.Second,
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			MaxIdleConns: 1,
		},
	}
}

// maxStatus bounds the answer, in bytes.
const maxStatus = 1 << 20

func askStatus(ctx context.Context, c *http.Client) (*screen.Status, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://local/status", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the boot service answered %s", resp.Status)
	}
	var s screen.Status
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s); err != nil {
		return nil, fmt.Errorf("the boot service's status: %w", err)
	}
	return &s, nil
}
