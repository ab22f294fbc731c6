// Package api is the people's API of the boot service: what the console and
// the command line read and do, over HTTPS, and the streams by which they see
// things as they happen. Its types are the one definition: docs/openapi.json
// and the console's TypeScript are generated from them (go generate).
//
// It decides nothing about machines. Whatever binds is a command that the
// state accepts or refuses, proposed in the name of the person who asked.
package api

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/site"
	"github.com/rackseed/rackseed/services/support"
	"github.com/rackseed/rackseed/services/wire"
)

//go:generate go run ./gen

// List is the shape of every list, so that it can grow without breaking its
// readers.
type List[T any] struct {
	Items []T `json:"items"`
}

// Machine is a machine as people see it: with its orders, what it was told to
// boot and would boot next, and what may be done to it now.
type Machine struct {
	machine.Machine
	Install *machine.Intent  `json:"install,omitempty" doc:"The newest install intent."`
	Join    *machine.Intent  `json:"join,omitempty" doc:"The join intent."`
	Rescue  *machine.Intent  `json:"rescue,omitempty" doc:"The newest rescue intent."`
	Open    []machine.Intent `json:"open" doc:"Its orders that are not over: what revoke takes back, in that order."`
	// WaitingFor is absent while it waits for nothing, or for a person.
	WaitingFor string       `json:"waitingFor,omitempty" doc:"Why an installed node is not in the cluster yet."`
	Leaves     time.Time    `json:"leaves,omitzero" doc:"When it goes back to its own disk unless it is approved; absent while it does not wait for that."`
	Boot       *Boot        `json:"boot,omitempty" doc:"What it was told to boot last; absent while it was told nothing."`
	NextBoot   NextBoot     `json:"nextBoot" doc:"What it would boot if it netbooted now."`
	Disks      []DiskChoice `json:"disks" doc:"Its disks, and which of them can be installed on; empty until it was looked at."`
	Actions    []Action     `json:"actions" doc:"What can be done to it now, and why not."`
}

// MachineList are the machines, and who is missing.
type MachineList struct {
	Items    []Machine  `json:"items"`
	Expected []Expected `json:"expected" doc:"Entries of the site file's list for which no machine was seen yet; they are no machines."`
}

// Expected is a machine that the site file lists, and that was never seen.
type Expected struct {
	Name    string      `json:"name,omitempty"`
	MAC     machine.MAC `json:"mac,omitempty"`
	UUID    string      `json:"uuid,omitempty"`
	Profile string      `json:"profile,omitempty"`
	Address netip.Addr  `json:"address,omitzero"`
	Approve bool        `json:"approve,omitempty" doc:"It is installed without asking."`
}

// Boot is what a machine was told to boot last.
type Boot struct {
	Kind    machine.BootKind `json:"kind" enum:"local,discovery,install,rescue"`
	Decided time.Time        `json:"decided" doc:"When it was told so."`
	Fetched time.Time        `json:"fetched,omitzero" doc:"When it fetched the installer's kernel since; absent if it did not."`
	Silent  bool             `json:"silent,omitempty" doc:"It was not heard of since, for longer than a boot takes."`
}

// NextBoot is what a machine would boot next, and why.
type NextBoot struct {
	Kind machine.BootKind `json:"kind" enum:"local,discovery,install,rescue"`
	Why  string           `json:"why"`
}

// DiskChoice is one disk of a machine, and whether a node can be installed on
// it.
type DiskChoice struct {
	machine.Disk
	Hint   machine.DiskHint `json:"hint" doc:"Names this disk and no other: approve with it."`
	Usable bool             `json:"usable"`
	Reason string           `json:"reason,omitempty" doc:"Why it cannot be installed on."`
	// Erase is absent for an empty disk.
	Erase string `json:"erase,omitempty" doc:"What is on it and would be lost: approving it needs this text as erase."`
}

// ActionName names what a person can do to a machine; it is the last part of
// the path that does it.
type ActionName string

const (
	ActionApprove ActionName = "approve"
	ActionRetry   ActionName = "retry"
	ActionRevoke  ActionName = "revoke"
	ActionForget  ActionName = "forget"
	ActionLook    ActionName = "look"
	ActionRescue  ActionName = "rescue"
)

// Action is one thing that a person may do to a machine, or why not.
type Action struct {
	Name    ActionName `json:"name" enum:"approve,retry,revoke,forget,look,rescue"`
	Allowed bool       `json:"allowed"`
	Reason  string     `json:"reason,omitempty" doc:"Why it is not allowed now."`
}

// HealthKind is why a part does not do its work, for programs; texts are for
// people.
type HealthKind string

const (
	HealthFault     HealthKind = "fault"     // somebody must act
	HealthStarting  HealthKind = "starting"  // it has said nothing yet
	HealthWaiting   HealthKind = "waiting"   // for another part, or its turn
	HealthListening HealthKind = "listening" // for other DHCP servers, before it serves
	HealthSlow      HealthKind = "slow"      // it works, with delays
	HealthVolatile  HealthKind = "volatile"  // nothing is kept, and so nobody is served
)

// Health is the state of one part of the boot service.
type Health struct {
	Name string     `json:"name" doc:"dhcp, tftp, netboot …"`
	OK   bool       `json:"ok"`
	Kind HealthKind `json:"kind,omitempty" doc:"Why it is not ok; absent while it is." enum:"fault,starting,waiting,listening,slow,volatile"`
	Text string     `json:"text" doc:"What it does, or what is wrong and what to do."`
	// Grave is HealthOf's word.
	Grave bool `json:"grave,omitempty" doc:"Machines are not served until somebody acts."`
}

// WarningKind names what a warning is about, for programs.
type WarningKind string

const (
	WarnVolatile WarningKind = "volatile"     // nothing is kept
	WarnSite     WarningKind = "site-file"    // the site file has problems, an earlier one is in force
	WarnUnplug   WarningKind = "unplug"       // the API is reached through this machine
	WarnCode     WarningKind = "setup-code"   // the setup code is lost
	WarnRecovery WarningKind = "recovery-key" // there is none
)

// Warning is something that people should know.
type Warning struct {
	Kind WarningKind `json:"kind" enum:"volatile,site-file,unplug,setup-code,recovery-key"`
	Text string      `json:"text"`
}

// Discovery is the discovery window: while it is open, a machine that nobody
// listed is netbooted to look at it.
type Discovery struct {
	Open   bool      `json:"open"`
	Until  time.Time `json:"until,omitzero" doc:"When it closes by itself; absent while it is closed, or open for ever."`
	Always bool      `json:"always" doc:"The site file keeps it open for ever; it can be closed only there."`
}

// Status is how the boot service is.
type Status struct {
	Site         string          `json:"site" doc:"The site's name; empty while there is no valid site file."`
	Service      string          `json:"service" doc:"The service address; empty while there is no valid site file."`
	Leads        string          `json:"leads,omitempty" doc:"Name or server ID of the replica that leads, as far as this one knows; absent: none does, and no machine is served."`
	SiteProblems []string        `json:"siteProblems" doc:"What is wrong with the site file, with line and column."`
	SiteWarnings []site.Problem  `json:"siteWarnings" doc:"What the site in force says that is seldom meant, or must be known: the warnings of its check, without places."`
	Health       []Health        `json:"health"`
	Discovery    Discovery       `json:"discovery"`
	Program      support.Program `json:"program" doc:"Which build of the boot service this is."`
	Machines     map[string]int  `json:"machines" doc:"Number of machines by phase."`
	Warnings     []Warning       `json:"warnings" doc:"What people should know, as that unplugging the stick stops the API."`
}

// Cluster says which cluster this is, and who leads it.
type Cluster struct {
	ID           string `json:"id"`
	Generation   uint64 `json:"generation"`
	Epoch        uint64 `json:"epoch"`
	FeatureLevel uint64 `json:"featureLevel"`
}

// ClusterStart is how far the Kubernetes cluster is on its way.
type ClusterStart struct {
	Cluster
	Bootstrap *machine.Intent `json:"bootstrap,omitempty" doc:"The order to start the cluster; absent until a control plane is approved."`
	Starter   *MachineRef     `json:"starter,omitempty" doc:"The machine that starts it, or did."`
	Joining   *MachineRef     `json:"joining,omitempty" doc:"The control plane that joins now; others wait for it."`
	// NoKubeconfig and NoAbandon are absent where it can be done.
	NoKubeconfig string `json:"noKubeconfig,omitempty" doc:"Why there is no kubeconfig yet."`
	NoAbandon    string `json:"noAbandon,omitempty" doc:"Why there is nothing to abandon."`
	// Orphans is absent while no cluster was started, or it cannot be abandoned.
	Orphans *Orphans `json:"orphans,omitempty" doc:"What abandoning the cluster, which is started, leaves behind."`
}

// Orphans are what is left without its cluster when one that was started is
// abandoned.
type Orphans struct {
	Cluster  string `json:"cluster" doc:"Name of the cluster, which must be confirmed as cluster."`
	Ready    int    `json:"ready" doc:"Nodes that are Ready now."`
	Machines int    `json:"machines" doc:"Machines that are installed, with those."`
}

// MachineRef names a machine.
type MachineRef struct {
	ID   machine.ID `json:"id"`
	Name string     `json:"name,omitempty"`
}

// ProfileUse is a profile and the machines that it is about.
type ProfileUse struct {
	machine.Profile
	Machines []MachineRef   `json:"machines" doc:"Those that were approved with it."`
	Matches  []ProfileMatch `json:"matches" doc:"Those not approved yet that would get it when nobody names another."`
}

// ProfileMatch is a machine that would get a profile, and why.
type ProfileMatch struct {
	MachineRef
	Why string `json:"why"`
}

// Image is a published artifact.
type Image struct {
	machine.Image
	Name  string      `json:"name" doc:"What the registry calls it: repository and tag."`
	Size  int64       `json:"size" doc:"Bytes of all its files."`
	Files []wire.File `json:"files"`
	// Problem is absent while the image is whole.
	Problem string `json:"problem,omitempty" doc:"Why its files are not known."`
}

// SiteText is the text of a site file.
type SiteText struct {
	Text string `json:"text" doc:"The site file, as YAML."`
}

// SiteCheck is what was found in a site file.
type SiteCheck struct {
	Valid    bool           `json:"valid"`
	Site     *machine.Site  `json:"site,omitempty" doc:"What it says, with defaults filled in; absent unless it is valid."`
	Problems []site.Problem `json:"problems" doc:"Everything that is wrong, in the file's order."`
	Warnings []site.Problem `json:"warnings" doc:"What is valid and seldom meant, or must be known, as machines that are installed without asking, in the file's order. None of a file in which something is wrong."`
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
	Seq    uint64 `json:"seq" doc:"The chunk's place among the machine's; resume after it."`
	Stream string `json:"stream" doc:"Installer session, or \"node-\" and the boot ID."`
	First  uint64 `json:"first" doc:"Number of the first line in its stream."`
	// The machine's own clock may be wrong.
	Time  time.Time `json:"time" doc:"When the boot service took these lines, by its clock: soon after the machine wrote them, unless it could not send them before."`
	Lines []string  `json:"lines"`
}

// ApproveRequest approves a machine. What is left out is chosen as the site
// file says.
type ApproveRequest struct {
	Name    string            `json:"name,omitempty" doc:"Host name; the listed one or the next free node-N without it." maxLength:"63"`
	Profile string            `json:"profile,omitempty" doc:"Profile; the listed one, the first whose selector matches, or the next that the cluster needs, without it." maxLength:"63"`
	Address string            `json:"address,omitempty" doc:"Static IPv4 address of the node; a free one without it." maxLength:"45"`
	Disk    *machine.DiskHint `json:"disk,omitempty" doc:"Which disk to install on, where there are several."`
	// Erase is asked for again at the moment of writing: the installer writes
	// only onto a disk that holds exactly this.
	Erase string `json:"erase,omitempty" doc:"What is on that disk and may be lost, word for word as the disk's contents; needed unless it is empty." maxLength:"1024"`
	// Session ties the approval to what was seen: anybody on the wire can make a
	// machine's session a newer one.
	Session string `json:"session,omitempty" doc:"The plan's session; refused if a newer one took its place. Without it: whichever is the newest." maxLength:"64"`
}

// Plan is what approving a machine would do.
type Plan struct {
	Session    string          `json:"session" doc:"The installer session that this is about."`
	Name       string          `json:"name" doc:"Host name."`
	Profile    machine.Profile `json:"profile"`
	ProfileWhy string          `json:"profileWhy" doc:"Why it gets that profile."`
	Address    netip.Addr      `json:"address" doc:"Static address of the node."`
	Image      string          `json:"image" doc:"Digest of the node image."`
	Disk       DiskChoice      `json:"disk" doc:"The disk that would be written over."`
	Erase      string          `json:"erase,omitempty" doc:"What would be lost with it, and must be named as erase to approve; absent if nothing must be."`
	Starts     bool            `json:"starts" doc:"It would start the cluster."`
}

// RetryRequest lets a failed install begin again.
type RetryRequest struct {
	Disk  *machine.DiskHint `json:"disk,omitempty" doc:"Replaces the choice of the disk."`
	Erase string            `json:"erase,omitempty" doc:"What is on that disk and may be lost, word for word as the disk's contents; needed with disk unless it is empty." maxLength:"1024"`
}

// ForRequest asks for something for a time.
type ForRequest struct {
	For *machine.Duration `json:"for,omitempty" doc:"How long, as 30m or 2h; at most 30 days. 2h without it." maxLength:"32"`
}

// AbandonRequest gives up what a lost machine began.
type AbandonRequest struct {
	Reason  string `json:"reason" doc:"Why, for the event log." minLength:"1" maxLength:"200"`
	Confirm string `json:"confirm" doc:"Name of the machine that started the cluster and is lost." maxLength:"64"`
	Cluster string `json:"cluster,omitempty" doc:"Name of the cluster; needed once it is started, since nodes may be Ready in it." maxLength:"64"`
}

// Revoked is a machine after its orders were taken back.
type Revoked struct {
	Machine
	Revoked []machine.Intent `json:"revoked" doc:"The orders that were taken back, as they are now."`
}

// RevokeRequest takes an approval back.
type RevokeRequest struct {
	Reason string `json:"reason,omitempty" doc:"Why, for the timeline." maxLength:"200"`
}

// RescueRequest asks for a rescue shell; there is nothing to choose. It has a
// name because generated types are called by it.
type RescueRequest struct{}

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
	Reads   bool      `json:"reads,omitempty" doc:"No replica led at the login: it only reads, at this replica alone, and ends when one leads."`
	Token   string    `json:"token,omitempty" doc:"Bearer token; only in answers to setup and login without cookie."`
}

// Alive is the one answer to anybody who asks.
type Alive struct {
	OK bool `json:"ok"`
	// Setup is told to strangers because the console must know which of its
	// two first pages to show; the code is still needed.
	Setup bool `json:"setup" doc:"The setup code was not used yet."`
	// Health is for people who are logged in alone.
	Health []Health `json:"health,omitempty" doc:"How each part of the boot service is; only with a token."`
}

// Why explains a machine: what it does, or why it does nothing.
type Why struct {
	Machine MachineRef    `json:"machine"`
	Phase   machine.Phase `json:"phase" enum:"seen,local,waiting,approved,installing,installed,booted,joining,ready,failed,rescue"`
	Summary string        `json:"summary" doc:"One sentence: what is the matter."`
	Boot    *Boot         `json:"boot,omitempty" doc:"What it was told to boot last; absent while it was told nothing."`
	BootWhy string        `json:"bootWhy,omitempty" doc:"Why it was told so."`
	// NextBoot changes what the machine does only once it netboots.
	NextBoot   NextBoot        `json:"nextBoot" doc:"What it would boot if it netbooted now."`
	WaitingFor string          `json:"waitingFor,omitempty" doc:"What it waits for."`
	Causes     []string        `json:"causes" doc:"Likely causes, where it is silent or failed, the likeliest first."`
	Todo       []string        `json:"todo" doc:"What to do now, the best first."`
	Events     []machine.Event `json:"events" doc:"Its last events, oldest first."`
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

// StreamExpected are the machines that the site file lists and that were never
// seen: after hello, and all of them when that changes.
type StreamExpected struct {
	Type     string     `json:"type" enum:"expected"`
	Expected []Expected `json:"expected"`
}

// StreamForgotten says that a machine is no longer known.
type StreamForgotten struct {
	Type string     `json:"type" enum:"forgotten"`
	ID   machine.ID `json:"id"`
}

// StreamDiscovery is the discovery window as it is now: after hello, and when
// it changes. That its time runs out changes nothing and is not told.
type StreamDiscovery struct {
	Type      string    `json:"type" enum:"discovery"`
	Discovery Discovery `json:"discovery"`
}

// StreamLines is one chunk of a machine's output.
type StreamLines struct {
	Type string `json:"type" enum:"lines"`
	Lines
}

// address reads what an ApproveRequest wishes; the zero value is no wish.
func (r ApproveRequest) address() (netip.Addr, error) {
	if r.Address == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(r.Address)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q: expected an IPv4 address, as 192.0.2.20", r.Address)
	}
	return a, nil
}
