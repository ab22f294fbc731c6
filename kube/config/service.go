package config

import (
	"fmt"
	"net"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/rackseed/rackseed/services/wire"
)

// Where a node has its replica of the boot service.
const (
	ServiceManifest   = "/etc/kubernetes/manifests/rackseed.yaml"
	ServiceFolder     = "/var/lib/rackseed/replica"
	ServiceInvitation = ServiceFolder + "/" + serviceInvitation
	serviceInvitation = "invitation.json"
	ServiceSocket     = ServiceFolder + "/" + serviceSocket // for root on the node
	serviceSocket     = "local.sock"
	// ServiceBefore is the manifest before the present one, until that has proved
	// to answer; ServiceRefused names the image that did not.
	ServiceBefore  = ServiceFolder + ".before"
	ServiceRefused = ServiceFolder + ".refused"
	serviceMount   = "/data"

	// ServiceNamespace is where the boot service's pods are.
	ServiceNamespace = "rackseed"
)

// Service is a node's replica of the boot service.
type Service struct {
	Image    string // HOST/REPOSITORY@DIGEST
	Endpoint string // HOST:PORT where the other replicas find it
	Slower   int    // see replica.Config
}

// consolePort is where a replica's own console is on its node: port 443 is left to
// what runs in the cluster. The leader's is at the service address, port 443.
const consolePort = 8443

// Pod is the static pod by which a kubelet runs a replica: without the API server,
// the pod network, DNS, the registry or any other replica. It has the host's
// network, where it takes the service address.
func (s Service) Pod() ([]byte, error) {
	host, _, err := net.SplitHostPort(s.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("endpoint %q: %w", s.Endpoint, err)
	}
	folder := corev1.HostPathDirectoryOrCreate
	grace := int64(10)
	pod := corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "boot-service", Namespace: ServiceNamespace, Labels: map[string]string{"app.kubernetes.io/name": "rackseed", "app.kubernetes.io/component": "boot-service"}},
		Spec: corev1.PodSpec{
			HostNetwork: true, DNSPolicy: corev1.DNSDefault, PriorityClassName: "system-node-critical",
			TerminationGracePeriodSeconds: &grace,
			Containers: []corev1.Container{{
				Name: "rackseed", Image: s.Image, ImagePullPolicy: corev1.PullIfNotPresent,
				Args: []string{
					"serve", "--data", serviceMount, "--endpoint", s.Endpoint, "--join", serviceMount + "/" + serviceInvitation,
					"--https", net.JoinHostPort(host, strconv.Itoa(consolePort)), "--console", "/usr/share/rackseed/console",
					"--local", serviceMount + "/" + serviceSocket, "--slower", strconv.Itoa(s.Slower),
				},
				Env: []corev1.EnvVar{{Name: wire.ReplicaImageEnv, Value: s.Image}},
				// The service address, raw sockets for ARP and DHCP, ports below 1024.
				SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{
					Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"},
				}},
				Resources:    corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("50m"), corev1.ResourceMemory: resource.MustParse("128Mi")}},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: serviceMount}},
			}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: ServiceFolder, Type: &folder}}}},
		},
	}
	return yaml.Marshal(pod)
}

// PodImage is the image that a static pod's manifest names; "": none that could be
// read.
func PodImage(manifest []byte) string {
	var pod corev1.Pod
	if err := yaml.Unmarshal(manifest, &pod); err != nil || len(pod.Spec.Containers) == 0 {
		return ""
	}
	return pod.Spec.Containers[0].Image
}
