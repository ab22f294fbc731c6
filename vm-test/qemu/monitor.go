package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// monitorLimit bounds one command to QEMU's monitor.
const monitorLimit = 30 * time.Second

// Screenshot writes what the machine's display shows to path, as PNG. The
// folder must exist.
func (vm *VM) Screenshot(ctx context.Context, path string) error {
	err := vm.execute(ctx, "screendump", map[string]any{"filename": path, "format": "png"})
	if err != nil {
		return fmt.Errorf("machine %s: screenshot: %w", vm.Name, err)
	}
	return nil
}

// execute has QEMU carry a command out by its machine protocol (QMP): a
// greeting, qmp_capabilities, then the command; events come in between.
func (vm *VM) execute(ctx context.Context, command string, arguments map[string]any) (err error) {
	ctx, cancel := context.WithTimeout(ctx, monitorLimit)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", vm.path("qmp.sock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	to, from := json.NewEncoder(conn), json.NewDecoder(conn)
	for _, c := range []map[string]any{{"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}} {
		if err := to.Encode(c); err != nil {
			return err
		}
		if err := answer(from); err != nil {
			return fmt.Errorf("%s: %w", c["execute"], err)
		}
	}
	return nil
}

// answer passes over the greeting and events until the command's answer comes.
func answer(from *json.Decoder) error {
	for {
		var m struct {
			Return json.RawMessage `json:"return"`
			Error  *struct {
				Desc string `json:"desc"`
			} `json:"error"`
		}
		if err := from.Decode(&m); err != nil {
			return err
		}
		switch {
		case m.Error != nil:
			return errors.New(m.Error.Desc)
		case m.Return != nil:
			return nil
		}
	}
}
