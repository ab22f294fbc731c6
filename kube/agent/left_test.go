package agent

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rackseed/rackseed/kube/config"
	"github.com/rackseed/rackseed/kube/etcd"
	"github.com/rackseed/rackseed/kube/pki"
	"github.com/rackseed/rackseed/services/machine"
	"github.com/rackseed/rackseed/services/wire"
)

func TestPlanJoin(t *testing.T) {
	const ours, other = "sha256:aa", "sha256:bb"
	again := []string{"preflight"}
	for name, test := range map[string]struct {
		role machine.Role
		left left
		want joinPlan
		err  string
	}{
		"worker, fresh":                        {machine.RoleWorker, left{}, joinPlan{}, ""},
		"worker, has all":                      {machine.RoleWorker, left{Begun: true, Identity: ours, CA: ours, Settings: true}, joinPlan{Adopt: true}, ""},
		"worker, no certificate yet":           {machine.RoleWorker, left{Begun: true, CA: ours, Settings: true}, joinPlan{Clear: true}, ""},
		"worker, torn settings":                {machine.RoleWorker, left{Begun: true, Identity: ours, CA: ours}, joinPlan{Clear: true}, ""},
		"worker, torn authority":               {machine.RoleWorker, left{Begun: true, Identity: ours, Settings: true}, joinPlan{Clear: true}, ""},
		"worker of an abandoned cluster":       {machine.RoleWorker, left{Begun: true, Identity: other, CA: other, Settings: true}, joinPlan{Clear: true}, ""},
		"worker, authority of an abandoned":    {machine.RoleWorker, left{Begun: true, CA: other}, joinPlan{Clear: true}, ""},
		"control plane, fresh":                 {machine.RoleControlPlane, left{CA: ours}, joinPlan{}, ""},
		"control plane, kubelet has all":       {machine.RoleControlPlane, left{Begun: true, Identity: ours, CA: ours, Settings: true}, joinPlan{Skip: []string{"preflight", "kubelet-start"}}, ""},
		"control plane, no certificate":        {machine.RoleControlPlane, left{Begun: true, CA: ours, Settings: true}, joinPlan{Clear: true, Skip: again}, ""},
		"control plane, torn settings":         {machine.RoleControlPlane, left{Begun: true, Identity: ours, CA: ours}, joinPlan{Clear: true, Skip: again}, ""},
		"control plane of an abandoned":        {machine.RoleControlPlane, left{CA: other}, joinPlan{}, "keys of another one"},
		"control plane without its authority":  {machine.RoleControlPlane, left{}, joinPlan{}, "install it again"},
		"control plane, identity of abandoned": {machine.RoleControlPlane, left{Begun: true, Identity: other, CA: ours, Settings: true}, joinPlan{Clear: true, Skip: again}, ""},
	} {
		got, err := planJoin(test.role, test.left, []string{"sha256:cc", ours})
		if got.Adopt != test.want.Adopt || got.Clear != test.want.Clear || !slices.Equal(got.Skip, test.want.Skip) || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %+v, %v, want %+v, %q", name, got, err, test.want, test.err)
		}
	}
}

// joined are a worker's files once kubeadm join has ended well.
func joined(t *testing.T) map[string]string {
	all := initialised(t)
	return map[string]string{
		kubeletConf:                              renewed(t, all[kubeletConf]),
		authority:                                all[authority],
		kubeletConfig:                            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
		kubeletContent:                           "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n",
		kubeletFlags:                             "KUBELET_KUBEADM_ARGS=\"--node-ip=10.77.0.12\"\n",
		kubeletDir + "/pki/kubelet-client-1.pem": all[kubeletDir+"/pki/kubelet-client-1.pem"],
		kubeletDir + "/pki/kubelet.crt":          all[kubeletPair+".crt"],
	}
}

func TestLeft(t *testing.T) {
	t.Parallel()
	files := joined(t)
	hash := hashOf(t, []byte(files[authority]))
	whole := left{Begun: true, Identity: hash, Settings: true, CA: hash}
	try := func(name string, files map[string]string, want left) {
		h := lay(t, files)
		got, err := h.left(machine.RoleWorker)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, want)
		}
	}
	try("whole", files, whole)
	try("nothing", nil, left{})
	for _, way := range []func(string) string{
		func(string) string { return "" },
		func(s string) string { return strings.Repeat("\x00", len(s)) },
		func(s string) string { return s[:len(s)/2] },
	} {
		for file, text := range files {
			torn, want := maps.Clone(files), whole
			torn[file] = way(text)
			switch file {
			case kubeletConf, kubeletDir + "/pki/kubelet-client-1.pem":
				want.Identity = ""
			case authority:
				want.CA = ""
			case kubeletDir + "/pki/kubelet.crt": // of its serving: it makes another
			default:
				want.Settings = false
			}
			try(file, torn, want)
			alone := map[string]string{file: way(text)}
			h := lay(t, alone)
			l, err := h.left(machine.RoleWorker)
			if want := !strings.HasPrefix(file, kubeletDir+"/pki/"); err != nil || l.Begun != want {
				t.Errorf("%s alone: begun %v, %v", file, l.Begun, err)
			}
		}
	}
	// Everything that an attempt leaves can be cleared away.
	for role, kept := range map[machine.Role][]string{machine.RoleWorker: nil, machine.RoleControlPlane: {"ca.crt"}} {
		files[bootstrapConf] = "token: abcdef.0123456789abcdef"
		h := lay(t, files)
		if err := h.clearKubelet(role); err != nil {
			t.Fatal(err)
		}
		var found []string
		if err := filepath.WalkDir(h.root, func(path string, d os.DirEntry, err error) error {
			if err == nil && !d.IsDir() {
				found = append(found, filepath.Base(path))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(found, kept) {
			t.Errorf("%s: %q is left, want %q", role, found, kept)
		}
	}
}

// worker is a node that shall join.
func worker(t *testing.T) (n *node, ca []byte) {
	n = newNode(t)
	secrets, err := pki.New(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := config.JoinTemplate(config.Node{Name: "node-1", Address: testAddress.Addr()}, false)
	if err != nil {
		t.Fatal(err)
	}
	n.write(config.JoinPath, string(b))
	n.role(machine.RoleWorker)
	n.s.order = wire.NodeOrder{Kind: wire.NodeJoin}
	n.s.secret = wire.JoinSecret{Token: "abcdef.0123456789abcdef", CACertHashes: []string{hashOf(t, secrets["pki/ca.crt"])}, Endpoint: "10.77.0.1:6443"}
	n.program("systemctl", `echo "$@" >> "$ROOT/systemctl"`)
	n.program("kubeadm", `echo "$@" > "$ROOT/arguments"
mkdir -p "$ROOT/etc/kubernetes" "$ROOT/var/lib"
stat -c %a "$3" > "$ROOT/mode"
cp "$3" "$ROOT/config"
echo "[preflight] Running pre-flight checks for abcdef.0123456789abcdef"`)
	return n, secrets["pki/ca.crt"]
}

// TestWorkerJoins by a configuration that is there while kubeadm runs.
func TestWorkerJoins(t *testing.T) {
	t.Parallel()
	n, _ := worker(t)
	n.write(joinFile, "of an agent that was killed")
	stop, _, joined := n.boot()
	n.untilEvents(wire.NodeBooted, wire.NodeJoining, wire.NodeJoined)
	<-joined
	if got := n.s.events[1].Text; !strings.Contains(got, "attempt 1") {
		t.Errorf("it told %q", got)
	}
	n.s.until("kubeadm's line", func() bool { return len(n.s.lines["node-boot-1"]) == 1 })
	if got := n.s.lines["node-boot-1"][0]; strings.Contains(got, "0123456789abcdef") {
		t.Errorf("the token is in the log: %s", got)
	}
	stop()
	if got, want := n.read("arguments"), "join --config "+filepath.Join(n.root, joinFile)+"\n"; got != want {
		t.Errorf("kubeadm %s, want %s", got, want)
	}
	if got := n.read("config"); !strings.Contains(got, "token: abcdef.0123456789abcdef") || n.read("mode") != "600\n" {
		t.Errorf("mode %s, configuration %s", n.read("mode"), got)
	}
	if _, err := os.Stat(filepath.Join(n.root, joinFile)); !os.IsNotExist(err) {
		t.Errorf("the token is still there: %v", err)
	}
}

// TestInterruptedJoin: the power went while kubeadm joined, before the kubelet
// had its certificate, and after that.
func TestInterruptedJoin(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		adopt     bool
		systemctl string
	}{"before": {false, "stop kubelet.service\n"}, "after": {true, "start kubelet.service\n"}} {
		n, _ := worker(t)
		files := joined(t)
		n.s.secret.CACertHashes = []string{hashOf(t, []byte(files[authority]))}
		if !test.adopt {
			delete(files, kubeletConf)
		}
		files[bootstrapConf] = "token: abcdef.fedcba9876543210"
		for path, text := range files {
			n.write(path, text)
		}
		if err := os.Symlink("kubelet-client-1.pem", filepath.Join(n.root, kubeletClient)); err != nil {
			t.Fatal(err)
		}
		stop, _, joined := n.boot()
		<-joined
		stop()
		if got := n.read("systemctl"); got != test.systemctl {
			t.Errorf("%s: systemctl %s", name, got)
		}
		_, err := os.Stat(filepath.Join(n.root, "arguments"))
		if ran := err == nil; ran == test.adopt {
			t.Errorf("%s: kubeadm ran: %v", name, ran)
		}
		for file, want := range map[string]bool{bootstrapConf: false, kubeletConfig: test.adopt, authority: test.adopt, kubeletConf: test.adopt} {
			if _, err := os.Stat(filepath.Join(n.root, file)); (err == nil) != want {
				t.Errorf("%s: %s: %v", name, file, err)
			}
		}
	}
}

func TestJoinWaits(t *testing.T) {
	t.Parallel()
	n, _ := worker(t)
	n.s.refuse[wire.PathNodeJoin] = []int{503, 503, 503}
	n.boot()
	n.s.until("the reason", func() bool {
		return slices.Equal(n.s.lines["node-boot-1"], []string{"rackseed: waiting: refused by the test"})
	})
	n.untilEvents(wire.NodeBooted)
}

// members is a list of etcd's members that notes what is removed.
type members struct {
	list    []etcd.Member
	removed []uint64
	before  func() // what is looked at before a removal
}

func (m *members) Members(context.Context) ([]etcd.Member, error) { return m.list, nil }
func (m *members) Remove(_ context.Context, member etcd.Member) error {
	m.before()
	m.removed = append(m.removed, member.ID)
	return nil
}

// TestFurtherControlPlane joins over what a broken-off attempt left: a learner
// of its own whose etcd runs, then nothing, then a member that has a vote.
func TestFurtherControlPlane(t *testing.T) {
	t.Parallel()
	own := []string{etcd.PeerURL(testAddress.Addr())}
	first := etcd.Member{ID: 1, Name: "node-0", PeerURLs: []string{"https://10.77.0.10:2380"}}
	const data = etcdData + "/member/snap/db"
	for name, test := range map[string]struct {
		member  *etcd.Member
		data    bool
		removed []uint64
		kept    bool // data and manifest
		ctr     string
	}{
		"fresh":               {nil, false, nil, false, ""},
		"a learner that runs": {&etcd.Member{ID: 2, Name: "node-1", PeerURLs: own, Learner: true}, true, []uint64{2}, false, "--namespace k8s.io tasks delete --force etcd-2\n"},
		"it has a vote":       {&etcd.Member{ID: 2, Name: "node-1", PeerURLs: own}, true, nil, true, ""},
	} {
		n, ca := worker(t)
		n.role(machine.RoleControlPlane)
		n.write(authority, string(ca))
		n.program("ctr", `case "$3 $4" in
"containers list") printf "etcd-1\netcd-2\n" ;;
"tasks list") printf "other\netcd-2\n" ;;
"tasks delete") echo "$@" >> "$ROOT/ctr" ;;
esac`)
		m := &members{list: []etcd.Member{first}}
		if test.member != nil {
			m.list = append(m.list, *test.member)
		}
		if test.data {
			n.write(data, "data")
			n.write(etcdManifest, "kind: Pod\n")
		}
		m.before = func() {
			if _, err := os.Stat(filepath.Join(n.root, data)); err != nil {
				t.Errorf("%s: the data is gone before the member: %v", name, err)
			}
		}
		a, err := newAgent(n.root, quiet())
		if err != nil {
			t.Fatal(err)
		}
		a.commands.path = filepath.Join(n.root, "bin") + ":/usr/bin:/bin"
		a.commands.env = []string{"ROOT=" + n.root}
		a.findEtcd = func(context.Context, wire.JoinSecret) (membership, error) { return m, nil }
		n.s.secret.CACertHashes = []string{hashOf(t, ca)}
		if err := a.enter(t.Context(), stepJoin); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !slices.Equal(m.removed, test.removed) {
			t.Errorf("%s: removed %v", name, m.removed)
		}
		for _, file := range []string{data, etcdManifest} {
			if _, err := os.Stat(filepath.Join(n.root, file)); (err == nil) != test.kept {
				t.Errorf("%s: %s: %v", name, file, err)
			}
		}
		if ran, _ := os.ReadFile(filepath.Join(n.root, "ctr")); string(ran) != test.ctr {
			t.Errorf("%s: ctr %s", name, ran)
		}
		want := "join --config " + filepath.Join(n.root, joinFile)
		if test.data {
			want += " --skip-phases preflight"
		}
		if got := n.read("arguments"); got != want+"\n" {
			t.Errorf("%s: kubeadm %s", name, got)
		}
	}
}

func hashOf(t *testing.T, ca []byte) string {
	t.Helper()
	hash, err := pki.CertHash(ca)
	if err != nil {
		t.Fatal(err)
	}
	return hash
}

// TestForeignAuthority: a control plane whose keys are another cluster's never
// joins; it would be a cluster of its own.
func TestForeignAuthority(t *testing.T) {
	t.Parallel()
	n, _ := worker(t)
	n.role(machine.RoleControlPlane)
	n.write(authority, initialised(t)[authority])
	n.boot()
	n.untilEvents(wire.NodeBooted, wire.NodeFailed)
	if text := n.s.events[1].Text; !strings.Contains(text, "keys of another one") {
		t.Errorf("it told %q", text)
	}
	if _, err := os.Stat(filepath.Join(n.root, "arguments")); err == nil {
		t.Error("kubeadm ran")
	}
}
