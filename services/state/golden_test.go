package state

import (
	"bytes"
	"encoding"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/services/keyring"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

// Golden files hold the formats of the log and of snapshots: what was written
// once is read for ever. A change in them is a new kind or a new version.
var update = flag.Bool("update", false, "write the golden files anew")

// samples has one command of each kind, with every field that matters.
func samples() []Command {
	event := lease(100, mac(1), start, time.Hour)
	event.Lease.ClientID, event.Lease.Hostname, event.Lease.Machine, event.Event = "0152540000", "host", machineID(1), true
	approve := approval(1)
	approve.Disk, approve.Erase = machine.DiskHint{Serial: "D1", WWN: "eui.1", Path: "/dev/vda"}, "GPT, 2 partitions: ext4, swap"
	approve.Profile.KernelArguments, approve.Profile.Labels, approve.Profile.Taints = []string{"quiet"}, map[string]string{"b": "2", "a": "1"}, []string{"k=v:NoSchedule"}
	open := session("s-1", inventory(1), machineID(1))
	report := installReport(1, 3, wire.StepImage, wire.StepProgress, "writing", 214<<20, 420<<20)
	node := nodeReport(1, "boot-1", 2, wire.NodeJoined)
	node.Report.Text, node.Report.Slot, node.Report.Image = "well", "a", digestOf("node")
	return []Command{
		SiteApply{Site: machine.Site{Version: 1, Name: "lab", ServiceAddress: address(1), Emulated: true,
			Links: []machine.SiteLink{{MAC: mac(9), Address: mustPrefix("10.77.0.2/24"), DHCP: &machine.SiteDHCP{From: address(100), To: address(200), LeaseTime: machine.Duration(time.Hour),
				Reservations: []machine.Reservation{{MAC: mac(1), Address: address(101)}}}}},
			Machines: []machine.ListedMachine{{MAC: mac(1), Name: "node-1", Profile: "control-plane", Approve: true}}}},
		ClusterCreate{ID: "c-1", Generation: 1, Key: "k-1", Secrets: map[string]keyring.Sealed{"pki/ca.key": sealed("k-1", "key"), "console.key": sealed("k-1", "key")}, SetupHash: bytes32("setup")},
		EpochBegin{Leader: "r-1"},
		ImagePublish{Images: []machine.Image{{Ref: "node", Digest: digestOf("node")}}},
		MachineSee{ID: machineID(1), MAC: mac(1), UUID: uuid(1), Via: "dhcp.discover", Text: "DHCP discover"},
		event,
		LeaseRelease{Address: address(100), MAC: mac(1)},
		LeaseDecline{Address: address(100), MAC: mac(1), Until: start.Add(time.Hour)},
		BootDecide{Machine: machineID(1), Decision: machine.BootDecision{Kind: machine.BootInstall, Reason: "approved"}},
		open, approve,
		MachineForget{Machine: machineID(1)},
		claim(1),
		IntentRetry{Intent: "i-1", Disk: &machine.DiskHint{Serial: "D2"}, Erase: "NTFS"},
		IntentRevoke{Intent: "i-1", Reason: "wrong rack"},
		report, node,
		BootstrapClaim{Machine: machineID(1)},
		BootstrapAbandon{Intent: "b-1", Reason: "its board burnt", Secrets: map[string]keyring.Sealed{"pki/ca.key": sealed("k-1", "key")}},
		JoinClaim{Machine: machineID(1), Intent: "j-1"},
		DiscoveryWindow{Until: start.Add(time.Hour)},
		MachineInvite{Machine: machineID(1), Until: start.Add(time.Hour)},
		RescueOpen{Machine: machineID(1), Intent: "r-1"},
		SessionLeave{Machine: machineID(1), Session: "s-1"},
		SessionRefuse{MACs: []machine.MAC{mac(1)}, UUID: uuid(1), Why: "too large"},
		SessionHere{Machine: machineID(1), Session: "s-1"},
		MachineSilent{Machine: machineID(1), Decided: start, Text: "kernel fetched, then silence"},
		OutputStore{Chunk: machine.Chunk{Machine: machineID(1), Stream: "s-1", First: 1, Last: 3, Digest: digestOf("lines"), Size: 30}},
		ReplicaTell{ID: "r-1", Name: "appliance", Machine: machineID(1), Endpoint: "10.77.0.2:8300", Key: bytes32("key"), Release: "v1", Level: 1, Image: digestOf("service"), Protector: "tpm"},
		ReplicaInvite{TokenHash: bytes32("token"), Name: "node-1", Machine: machineID(1), Expires: start.Add(time.Hour)},
		ReplicaJoin{TokenHash: bytes32("token"), ID: "r-2", Endpoint: "10.77.0.11:8300", Key: bytes32("key"), Release: "v1", Level: 1, Image: digestOf("service")},
		ReplicaProve{ID: "r-2", Undone: true},
		ReplicaLeave{ID: "r-2", Reason: "its board burnt"},
		HandoffStart{Handoff: machine.Handoff{ID: "h-1", Targets: []machine.HandoffTarget{{Machine: machineID(1), Name: "node-1"}}, From: "r-1", By: "operator:ann"}},
		HandoffMove{ID: "h-1", From: machine.HandoffPreflight, To: machine.HandoffAborting, Reason: "node-1 is away"},
		HandoffDid{ID: "h-1", Text: "replica r-2 is a voter"},
		HandoffLost{ID: "h-1"},
		HandoffResume{ID: "h-1"},
		RolloutStart{Rollout: machine.Rollout{ID: "o-1", Image: digestOf("service"), By: "operator:ann", Within: machine.Duration(5 * time.Minute)}},
		RolloutTell{ID: "o-1", Replica: "r-2"},
		RolloutDid{ID: "o-1", Replica: "r-2"},
		RolloutStop{ID: "o-1", Reason: "it did not come back"},
		RolloutKeep{},
		FeatureRaise{Level: 2},
		KeyNext{Key: "k-2", For: "h-1", Recipient: "age1a", Copy: []byte("copy")},
		KeyTurn{Key: "k-2"},
		SecretReseal{Secrets: []Resealed{{Name: "pki/ca.key", Was: bytes32("was"), Sealed: sealed("k-2", "key")}}},
		RecoveryPut{Recipient: "age1a", Copy: []byte("copy"), Keys: []string{"k-1", "k-2"}},
		StateCheck{},
		ClusterRecover{Generation: 2, Secrets: map[string]keyring.Sealed{"peer/ca.key": sealed("k-1", "key")}, Replica: "r-9", Name: "node-1", Machine: machineID(1),
			Endpoint: "10.77.0.11:8300", Key: bytes32("key"), Release: "v1", Level: 1, From: "r-2", Index: 900},
		SetupRenew{SetupHash: bytes32("setup")},
		UserPut{Name: "ann", PasswordHash: []byte("bcrypt"), SetupHash: bytes32("setup")},
		LoginOpen{TokenHash: bytes32("token"), User: "ann", Expires: start.Add(time.Hour)},
		LoginEnd{TokenHash: bytes32("token")},
		Note{Machine: machineID(1), What: "note", Severity: machine.Warning, Text: "text", Data: map[string]string{"b": "2", "a": "1"}},
	}
}

func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func TestGoldenCommands(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range samples() {
		seen[c.Kind()] = true
		t.Run(c.Kind(), func(t *testing.T) {
			entry, err := encode(start, "operator:ann", c)
			if err != nil {
				t.Fatal(err)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, entry, "", "  "); err != nil {
				t.Fatal(err)
			}
			want := golden(t, strings.ReplaceAll(c.Kind(), "/", "-")+".json", append(pretty.Bytes(), '\n'))
			if got := append(pretty.Bytes(), '\n'); !bytes.Equal(got, want) {
				t.Errorf("encoded differently from what is in logs:\n%s", got)
			}
			e, back, err := decode(want, FeatureLevel)
			if err != nil {
				t.Fatal(err)
			}
			if e.By != "operator:ann" || !e.At.Equal(start) || !reflect.DeepEqual(back, c) {
				t.Errorf("decoded from the golden file: %+v by %s at %s", back, e.By, e.At)
			}
		})
	}
	for _, k := range kinds {
		if !seen[k.kind] {
			t.Errorf("command %s has no sample, hence no golden file", k.kind)
		}
	}
}

// TestEveryCommandIsKnown compares the commands of command.go with the kinds
// that the log may hold: one that is missing would halt every replica.
func TestEveryCommandIsKnown(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "command.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "Kind" || f.Recv == nil {
			continue
		}
		kind := f.Body.List[0].(*ast.ReturnStmt).Results[0].(*ast.BasicLit).Value
		declared = append(declared, strings.Trim(kind, `"`))
	}
	var known []string
	for _, k := range kinds {
		known = append(known, k.kind)
	}
	slices.Sort(declared)
	slices.Sort(known)
	if len(declared) == 0 || !slices.Equal(declared, known) {
		t.Errorf("command.go declares %v\nthe log may hold %v", declared, known)
	}
	if len(kindByName) != len(kinds) {
		t.Errorf("%d kinds have %d names", len(kinds), len(kindByName))
	}
	for _, c := range samples() {
		if _, err := decide(newWorld(t).view().t, start, "test", 9, 2, c); err != nil && strings.Contains(err.Error(), "has no rule") {
			t.Error(err)
		}
	}
}

func TestGoldenSnapshot(t *testing.T) {
	w := newWorld(t)
	story(w)
	var got bytes.Buffer
	if err := writeSnapshot(&got, w.view().v.txn, 0); err != nil {
		t.Fatal(err)
	}
	want := golden(t, "snapshot.json", got.Bytes())
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the story's snapshot differs from the golden one; got\n%s", got.Bytes())
	}
	db, _, err := readSnapshot(bytes.NewReader(want), FeatureLevel)
	if err != nil {
		t.Fatal(err)
	}
	restored, err := hash(db.Txn(false))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "hash of the golden snapshot restored", restored, w.hash())
	// Every table has a row in it: the file holds every format.
	for _, table := range catalog {
		if !bytes.Contains(want, []byte(`"table":"`+table.name+`"`)) {
			t.Errorf("the golden snapshot has no row of table %s", table.name)
		}
	}
}

// TestGoldenFields holds every field of what is in logs and snapshots, also
// those that no sample fills: commands and rows embed types of services/machine
// and services/wire, and both are read strictly.
func TestGoldenFields(t *testing.T) {
	var got bytes.Buffer
	described := map[reflect.Type]bool{}
	var later []reflect.Type
	for _, c := range samples() {
		fmt.Fprintf(&got, "command %s", c.Kind())
		later = fieldsOf(&got, reflect.TypeOf(c), described, later)
	}
	for _, table := range catalog {
		fmt.Fprintf(&got, "table %s", table.name)
		later = fieldsOf(&got, table.row, described, later)
	}
	for len(later) > 0 {
		next := later[0]
		later = later[1:]
		if !described[next] {
			described[next] = true
			fmt.Fprintf(&got, "type %s", next)
			later = fieldsOf(&got, next, described, later)
		}
	}
	want := golden(t, "fields.golden", got.Bytes())
	if bytes.Equal(got.Bytes(), want) {
		return
	}
	was, is := strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")
	for n := range min(len(was), len(is)) {
		if was[n] != is[n] {
			t.Fatalf("fields.golden line %d: %q, now %q.\n%s", n+1, was[n], is[n], changedFields)
		}
	}
	t.Fatalf("fields.golden has %d lines, now %d.\n%s", len(was), len(is), changedFields)
}

const changedFields = `What is written with the new field halts every replica that does not know it, and
what was written with a removed one halts those that know no more of it. So: a
field that a command has more or less is a new kind of command ("lease.bind/2",
the old one stays, with types of its own); one more in a row is a new feature
level, and is written only when the cluster has it. Before the first release, and
only then, write the golden file anew with -update.`

// fieldsOf writes a struct's fields as encoding/json sees them, and returns
// the structs that are to be described after it.
func fieldsOf(to *bytes.Buffer, of reflect.Type, described map[reflect.Type]bool, later []reflect.Type) []reflect.Type {
	fmt.Fprintf(to, " %s\n", of.Kind())
	for _, f := range reflect.VisibleFields(of) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		fmt.Fprintf(to, "\t%s %s\n", f.Tag.Get("json"), f.Type)
		for inner := f.Type; ; inner = inner.Elem() {
			switch inner.Kind() {
			case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
				continue
			case reflect.Struct:
				if !inner.Implements(reflect.TypeFor[encoding.TextMarshaler]()) && !described[inner] {
					later = append(later, inner)
				}
			}
			break
		}
	}
	return later
}
