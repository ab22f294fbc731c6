package config

import "strings"

// Everything in this file is for `emulated: true` alone: machines emulated in
// software, ten to fifty times slower than real ones, whose probes, leases and
// timeouts would run out while nothing is wrong. On real machines the same
// settings would only hide faults and delay take-overs.

// gogc lets the garbage collector run a third as often; memory is cheaper than
// emulated cycles.
var gogc = []argument{{"GOGC", "300"}}

// Admission plugins and controllers that a test cluster lives without; each
// costs its share of the first, slowest minute.
var (
	emulatedAdmissionOff = []string{
		"ValidatingAdmissionPolicy", "MutatingAdmissionPolicy", "ValidatingAdmissionWebhook", "MutatingAdmissionWebhook",
		"StorageObjectInUseProtection", "PersistentVolumeClaimResize", "CertificateSubjectRestriction", "PodTopologyLabels",
	}
	// "*" leaves out the two by which nodes join; without them every join
	// waits for ever.
	emulatedControllers = []string{
		"*", "bootstrapsigner", "tokencleaner",
		"-persistentvolume-binder-controller", "-persistentvolume-attach-detach-controller",
		"-persistentvolume-expander-controller", "-ephemeral-volume-controller",
		"-persistentvolumeclaim-protection-controller", "-persistentvolume-protection-controller",
		"-horizontal-pod-autoscaler-controller", "-cronjob-controller", "-resourceclaim-controller",
		"-ttl-after-finished-controller", "-storageversion-garbage-collector-controller",
		"-validatingadmissionpolicy-status-controller", "-replicationcontroller-controller",
		"-taint-eviction-controller",
	}
)

// emulatedTimeouts are kubeadm's, of init and of join.
func emulatedTimeouts() *timeouts {
	return &timeouts{
		ControlPlaneComponentHealthCheck: "30m0s",
		KubeletHealthCheck:               "15m0s",
		KubernetesAPICall:                "15m0s",
		EtcdAPICall:                      "15m0s",
		TLSBootstrap:                     "15m0s",
		Discovery:                        "15m0s",
		UpgradeManifests:                 "15m0s",
	}
}

func relax(cluster *clusterConfiguration, kubelet *kubeletConfiguration, proxy *proxyConfiguration) {
	cluster.Etcd = &etcd{component{
		ExtraArgs: []argument{
			{"heartbeat-interval", "1000"},
			{"election-timeout", "10000"},
			{"snapshot-count", "50000"},
			{"warning-apply-duration", "2s"},
		},
		ExtraEnvs: gogc,
	}}
	cluster.APIServer.component = component{
		ExtraArgs: []argument{
			{"profiling", "false"},
			{"enable-priority-and-fairness", "false"},
			{"disable-admission-plugins", strings.Join(emulatedAdmissionOff, ",")},
			{"etcd-healthcheck-timeout", "20s"},
			{"etcd-readycheck-timeout", "20s"},
			{"lease-reuse-duration-seconds", "600"},
			{"event-ttl", "15m"},
		},
		ExtraEnvs: gogc,
	}
	cluster.ControllerManager = &component{
		ExtraArgs: append(leaderElection("8s"),
			argument{"feature-gates", "ControllerManagerReleaseLeaderElectionLockOnExit=true"},
			argument{"node-monitor-period", "15s"},
			argument{"node-monitor-grace-period", "240s"},
			argument{"profiling", "false"},
			argument{"controllers", strings.Join(emulatedControllers, ",")},
		),
		ExtraEnvs: gogc,
	}
	cluster.Scheduler = &component{
		ExtraArgs: append(leaderElection("15s"), argument{"profiling", "false"}),
		ExtraEnvs: gogc,
	}
	kubelet.NodeStatusUpdateFrequency = "60s"
	kubelet.NodeStatusReportFrequency = "5m"
	kubelet.NodeLeaseDurationSeconds = 160
	kubelet.RuntimeRequestTimeout = "15m"
	kubelet.SyncFrequency = "2m"
	kubelet.FileCheckFrequency = "10s"
	kubelet.VolumeStatsAggPeriod = "30m"
	kubelet.ImageMinimumGCAge = "24h"
	kubelet.ImageGCHighThresholdPercent = 100
	kubelet.EvictionHard = map[string]string{"memory.available": "50Mi"}
	kubelet.EnableProfilingHandler = new(bool)
	kubelet.MaxPods = 40
	proxy.ConfigSyncPeriod = "30m"
	proxy.NFTables = &nftables{SyncPeriod: "30m", MinSyncPeriod: "2s"}
	proxy.Conntrack = &conntrack{MaxPerCore: 0}
}

// leaderElection has leases that outlive half a minute of a starved API server:
// who loses one begins anew, which starves it more. They are no longer, because
// the next process waits for the end of the last one's: the controller manager
// ends once at nearly every emulated start, since it takes its lease, and then
// gives the API server 10 seconds to be healthy. So it gives the lease back when
// it ends by itself. Elections are never off: a second control plane may be
// approved at any time, and takes these settings over from the first.
func leaderElection(retry string) []argument {
	return []argument{
		{"leader-elect-lease-duration", "45s"},
		{"leader-elect-renew-deadline", "40s"},
		{"leader-elect-retry-period", retry},
	}
}

// emulatedPatches are strategic merge patches of the static pods: probes that
// do not kill what is only slow, and requests that fit a small machine.
func emulatedPatches() (map[string][]byte, error) {
	type probe map[string]int
	all := make(map[string][]byte)
	for _, c := range []struct {
		name      string
		readiness probe
		cpu       string
	}{
		{"kube-apiserver", probe{"periodSeconds": 30, "timeoutSeconds": 30, "failureThreshold": 6}, "50m"},
		{"kube-controller-manager", nil, "20m"},
		{"kube-scheduler", nil, "20m"},
		{"etcd", probe{"periodSeconds": 15, "timeoutSeconds": 30, "failureThreshold": 6}, "20m"},
	} {
		container := map[string]any{
			"name":          c.name,
			"livenessProbe": probe{"periodSeconds": 60, "timeoutSeconds": 60, "failureThreshold": 10},
			"startupProbe":  probe{"periodSeconds": 5, "timeoutSeconds": 30, "failureThreshold": 360},
			"resources":     map[string]any{"requests": map[string]string{"cpu": c.cpu}},
		}
		if c.readiness != nil {
			container["readinessProbe"] = c.readiness
		}
		b, err := stream(map[string]any{"spec": map[string]any{"containers": []any{container}}})
		if err != nil {
			return nil, err
		}
		all[c.name+"2+strategic.yaml"] = b
	}
	return all, nil
}

const (
	// ContainerdEmulatedPath is imported by the image's containerd
	// configuration (imports = ["/etc/containerd/conf.d/*.toml"]).
	ContainerdEmulatedPath = "/etc/containerd/conf.d/50-emulated.toml"
	// KubeletDefaultsPath is the kubelet unit's EnvironmentFile.
	KubeletDefaultsPath = "/etc/default/kubelet"
)

// containerdEmulated: by default the CRI plugin asks every shim for statistics
// each second.
const containerdEmulated = `version = 3

[plugins.'io.containerd.cri.v1.images']
  stats_collect_period = 3600

[plugins.'io.containerd.cri.v1.runtime']
  stats_collect_period = '10m'
  stats_retention_period = '1h'
`

const kubeletEmulated = "KUBELET_EXTRA_ARGS=--housekeeping-interval=60s\n"
