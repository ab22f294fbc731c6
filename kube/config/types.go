package config

// The fields of kubeadm's, kubelet's and kube-proxy's configuration that are
// set here, by their own names.

type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

type argument struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type endpoint struct {
	AdvertiseAddress string `json:"advertiseAddress"`
	BindPort         int    `json:"bindPort"`
}

type taint struct {
	Key    string `json:"key"`
	Value  string `json:"value,omitempty"`
	Effect string `json:"effect"`
}

type patches struct {
	Directory string `json:"directory"`
}

type initConfiguration struct {
	typeMeta         `json:",inline"`
	BootstrapTokens  []bootstrapToken `json:"bootstrapTokens"`
	LocalAPIEndpoint endpoint         `json:"localAPIEndpoint"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	Patches          patches          `json:"patches"`
	Timeouts         *timeouts        `json:"timeouts,omitempty"`
}

type bootstrapToken struct {
	TTL         string `json:"ttl"`
	Description string `json:"description"`
}

type joinConfiguration struct {
	typeMeta         `json:",inline"`
	Discovery        *discovery        `json:"discovery,omitempty"`
	NodeRegistration nodeRegistration  `json:"nodeRegistration"`
	ControlPlane     *joinControlPlane `json:"controlPlane,omitempty"`
	Patches          *patches          `json:"patches,omitempty"`
	Timeouts         *timeouts         `json:"timeouts,omitempty"`
}

type joinControlPlane struct {
	LocalAPIEndpoint endpoint `json:"localAPIEndpoint"`
}

type discovery struct {
	BootstrapToken tokenDiscovery `json:"bootstrapToken"`
}

type tokenDiscovery struct {
	APIServerEndpoint string   `json:"apiServerEndpoint"`
	Token             string   `json:"token"`
	CACertHashes      []string `json:"caCertHashes"`
}

type nodeRegistration struct {
	Name            string `json:"name"`
	CRISocket       string `json:"criSocket"`
	ImagePullPolicy string `json:"imagePullPolicy"`
	// Taints absent would mean kubeadm's own taint of control planes; an empty
	// list means none.
	Taints                []taint    `json:"taints"`
	KubeletExtraArgs      []argument `json:"kubeletExtraArgs"`
	IgnorePreflightErrors []string   `json:"ignorePreflightErrors,omitempty"`
}

type timeouts struct {
	ControlPlaneComponentHealthCheck string `json:"controlPlaneComponentHealthCheck"`
	KubeletHealthCheck               string `json:"kubeletHealthCheck"`
	KubernetesAPICall                string `json:"kubernetesAPICall"`
	EtcdAPICall                      string `json:"etcdAPICall"`
	TLSBootstrap                     string `json:"tlsBootstrap"`
	Discovery                        string `json:"discovery"`
	UpgradeManifests                 string `json:"upgradeManifests"`
}

type clusterConfiguration struct {
	typeMeta             `json:",inline"`
	ClusterName          string     `json:"clusterName"`
	KubernetesVersion    string     `json:"kubernetesVersion"`
	ImageRepository      string     `json:"imageRepository"`
	EncryptionAlgorithm  string     `json:"encryptionAlgorithm"`
	ControlPlaneEndpoint string     `json:"controlPlaneEndpoint"`
	Networking           networking `json:"networking"`
	APIServer            apiServer  `json:"apiServer"`
	ControllerManager    *component `json:"controllerManager,omitempty"`
	Scheduler            *component `json:"scheduler,omitempty"`
	Etcd                 *etcd      `json:"etcd,omitempty"`
}

type networking struct {
	PodSubnet     string `json:"podSubnet"`
	ServiceSubnet string `json:"serviceSubnet"`
	DNSDomain     string `json:"dnsDomain"`
}

type component struct {
	ExtraArgs []argument `json:"extraArgs,omitempty"`
	ExtraEnvs []argument `json:"extraEnvs,omitempty"`
}

type apiServer struct {
	component `json:",inline"`
	CertSANs  []string `json:"certSANs"`
}

type etcd struct {
	Local component `json:"local"`
}

// kubeletConfiguration leaves out what is zero: the kubelet has defaults.
type kubeletConfiguration struct {
	typeMeta                    `json:",inline"`
	CgroupDriver                string            `json:"cgroupDriver"`
	ResolvConf                  string            `json:"resolvConf"`
	VolumePluginDir             string            `json:"volumePluginDir"`
	RotateCertificates          bool              `json:"rotateCertificates"`
	NodeStatusUpdateFrequency   string            `json:"nodeStatusUpdateFrequency,omitempty"`
	NodeStatusReportFrequency   string            `json:"nodeStatusReportFrequency,omitempty"`
	NodeLeaseDurationSeconds    int               `json:"nodeLeaseDurationSeconds,omitempty"`
	RuntimeRequestTimeout       string            `json:"runtimeRequestTimeout,omitempty"`
	SyncFrequency               string            `json:"syncFrequency,omitempty"`
	FileCheckFrequency          string            `json:"fileCheckFrequency,omitempty"`
	VolumeStatsAggPeriod        string            `json:"volumeStatsAggPeriod,omitempty"`
	ImageMinimumGCAge           string            `json:"imageMinimumGCAge,omitempty"`
	ImageGCHighThresholdPercent int               `json:"imageGCHighThresholdPercent,omitempty"`
	EvictionHard                map[string]string `json:"evictionHard,omitempty"`
	EnableProfilingHandler      *bool             `json:"enableProfilingHandler,omitempty"`
	MaxPods                     int               `json:"maxPods,omitempty"`
}

type proxyConfiguration struct {
	typeMeta         `json:",inline"`
	Mode             string     `json:"mode"`
	ClusterCIDR      string     `json:"clusterCIDR"`
	ConfigSyncPeriod string     `json:"configSyncPeriod,omitempty"`
	NFTables         *nftables  `json:"nftables,omitempty"`
	Conntrack        *conntrack `json:"conntrack,omitempty"`
}

type nftables struct {
	SyncPeriod    string `json:"syncPeriod"`
	MinSyncPeriod string `json:"minSyncPeriod"`
}

type conntrack struct {
	MaxPerCore int `json:"maxPerCore"`
}
