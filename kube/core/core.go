// Package core makes clients of Kubernetes' core API group, by which other
// groups are reached by path: a whole clientset would make the binary larger by
// every type of Kubernetes.
package core

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// FromFile makes a client from a kubeconfig's path. agent is the HTTP user
// agent, which the API server's audit log shows.
func FromFile(kubeconfig, agent string) (*rest.RESTClient, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", kubeconfig, err)
	}
	return New(c, agent)
}

// New makes a client. It changes c.
func New(c *rest.Config, agent string) (*rest.RESTClient, error) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	metav1.AddToGroupVersion(scheme, corev1.SchemeGroupVersion)
	c.APIPath = "/api"
	c.GroupVersion = &corev1.SchemeGroupVersion
	c.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	c.UserAgent = agent
	return rest.RESTClientFor(c)
}
