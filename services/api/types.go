// Package api is the people's API of the boot service: what the console and
// the command line read and do, over HTTPS, and the streams by which they see
// things as they happen. Its types are the one definition: docs/openapi.json
// and the console's TypeScript are generated from them (go generate).
//
// It decides nothing about machines. Whatever binds is a command that the
// state accepts or refuses, proposed in the name of the person who asked.
package api

import (
	"net/netip"
	"time"

	"github.com/rackseed/rackseed/services/machine"
)

//go:generate go run ./gen

// List is the shape of every list, so that it can grow without breaking its
// readers.
type List[T any] struct {
	Items []T `json:"items"`
}

// Machine is a machine as people see it: with the newest order to install it,
// and what may be done to it now.
type Machine struct {
	machine.Machine
	Install *machine.Intent `json:"install,omitempty" doc:"The newest install intent."`
	// WaitingFor is absent while it waits for nothing, or for a person.
	WaitingFor string   `json:"waitingFor,omitempty" doc:"Why an installed node is not in the cluster yet."`
	Actions    []Action `json:"actions" doc:"What can be done to it now, and why not."`
}

// ActionName names what a person can do to a machine; it is the last part of
// the path that does it.
type ActionName string

const (
	ActionApprove ActionName = "approve"
	ActionRetry   ActionName = "retry"
	ActionRevoke  ActionName = "revoke"
	ActionForget  ActionName = "forget"
)

// Action is one thing that a person may do to a machine, or why not.
type Action struct {
	Name    ActionName `json:"name" enum:"approve,retry,revoke,forget"`
	Allowed bool       `json:"allowed"`
	Reason  string     `json:"reason,omitempty" doc:"Why it is not allowed now."`
}

// Health is the state of one part of the boot service.
type Health struct {
	Name string `json:"name" doc:"dhcp, tftp, netboot …"`
	OK   bool   `json:"ok"`
	Text string `json:"text" doc:"What it does, or what is wrong and what to do."`
}

// Status is how the boot service is.
type Status struct {
	Site         string         `json:"site" doc:"The site's name; empty while there is no valid site file."`
	Service      string         `json:"service" doc:"The service address; empty while there is no valid site file."`
	SiteProblems []string       `json:"siteProblems" doc:"What is wrong with the site file, with line and column."`
	Health       []Health       `json:"health"`
	Machines     map[string]int `json:"machines" doc:"Number of machines by phase."`
	Warnings     []string       `json:"warnings" doc:"What people should know, as that unplugging the stick stops the API."`
}

// Cluster says which cluster this is, and who leads it.
type Cluster struct {
	ID           string `json:"id"`
	Generation   uint64 `json:"generation"`
	Epoch        uint64 `json:"epoch"`
	FeatureLevel uint64 `json:"featureLevel"`
}

// AppliedSite is the site as it was applied last.
type AppliedSite struct {
	Applied bool         `json:"applied" doc:"False while no valid site file was ever read."`
	Site    machine.Site `json:"site"`
	Cluster Cluster      `json:"cluster"`
}

// EventList is a page of the event log, oldest first.
type EventList struct {
	Items []machine.Event `json:"items"`
	Last  uint64          `json:"last" doc:"Sequence number of the newest event there is."`
}

// Lines is one chunk of a machine's output.
type Lines struct {
	Seq    uint64   `json:"seq" doc:"The chunk's place among the machine's; resume after it."`
	Stream string   `json:"stream" doc:"Installer session, or \"node-\" and the boot ID."`
	First  uint64   `json:"first" doc:"Number of the first line in its stream."`
	Lines  []string `json:"lines"`
}

// ApproveRequest approves a machine. What is left out is chosen as the site
// file says.
type ApproveRequest struct {
	Name    string            `json:"name,omitempty" doc:"Host name; the listed one or the next free node-N without it." maxLength:"63"`
	Profile string            `json:"profile,omitempty" doc:"Profile; the listed one, or the next that the cluster needs, without it." maxLength:"63"`
	Address string            `json:"address,omitempty" doc:"Static IPv4 address of the node; a free one without it." maxLength:"45"`
	Disk    *machine.DiskHint `json:"disk,omitempty" doc:"Which disk to install on, where there are several."`
}

// RetryRequest lets a failed install begin again.
type RetryRequest struct {
	Disk *machine.DiskHint `json:"disk,omitempty" doc:"Replaces the choice of the disk."`
}

// RevokeRequest takes an approval back.
type RevokeRequest struct {
	Reason string `json:"reason,omitempty" doc:"Why, for the timeline." maxLength:"200"`
}

// SetupRequest makes the first person who may log in. It works once.
type SetupRequest struct {
	Code     string `json:"code" doc:"The setup code on the appliance's screen." maxLength:"64"`
	Name     string `json:"name" doc:"Login name." maxLength:"32"`
	Password string `json:"password" doc:"10 to 72 bytes." maxLength:"256"`
	Cookie   bool   `json:"cookie,omitempty" doc:"Set the token as a cookie instead of answering with it: for browsers."`
}

// LoginRequest begins a session.
type LoginRequest struct {
	Name     string `json:"name" maxLength:"32"`
	Password string `json:"password" maxLength:"256"`
	Cookie   bool   `json:"cookie,omitempty" doc:"Set the token as a cookie instead of answering with it: for browsers."`
}

// Login is who is logged in.
type Login struct {
	Name    string    `json:"name"`
	Expires time.Time `json:"expires,omitzero" doc:"Absent for a token of the site file, which does not expire."`
	Token   string    `json:"token,omitempty" doc:"Bearer token; only in answers to setup and login without cookie."`
}

// Alive is the one answer to anybody who asks.
type Alive struct {
	OK bool `json:"ok"`
	// Setup is told to strangers because the console must know which of its
	// two first pages to show; the code is still needed.
	Setup bool `json:"setup" doc:"The setup code was not used yet."`
}

// Messages of the stream of events and machines. Events come in the order of
// their numbers, each once, from the one asked for on.

// StreamHello is the first message.
type StreamHello struct {
	Type      string `json:"type" enum:"hello"`
	LastEvent uint64 `json:"lastEvent" doc:"The newest event there is. Lower than the number asked for: this is another cluster, begin again."`
}

// StreamEvent is one event.
type StreamEvent struct {
	Type  string        `json:"type" enum:"event"`
	Event machine.Event `json:"event"`
}

// StreamGap says that older events are no longer kept.
type StreamGap struct {
	Type string `json:"type" enum:"gap"`
	From uint64 `json:"from" doc:"First event that is gone."`
	To   uint64 `json:"to" doc:"Last event that is gone."`
}

// StreamMachine is a machine as it is now: all of them after hello, and each
// one when it changes.
type StreamMachine struct {
	Type    string  `json:"type" enum:"machine"`
	Machine Machine `json:"machine"`
}

// StreamForgotten says that a machine is no longer known.
type StreamForgotten struct {
	Type string     `json:"type" enum:"forgotten"`
	ID   machine.ID `json:"id"`
}

// StreamLines is one chunk of a machine's output.
type StreamLines struct {
	Type string `json:"type" enum:"lines"`
	Lines
}

// Address reads what an ApproveRequest wishes; the zero value is no wish.
func (r ApproveRequest) address() (netip.Addr, error) {
	if r.Address == "" {
		return netip.Addr{}, nil
	}
	return netip.ParseAddr(r.Address)
}
