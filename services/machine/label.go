package machine

// IsKubeletLabel says whether every kubelet sets the label of this name itself,
// and puts it back if it differs: a profile cannot give it
// (https://kubernetes.io/docs/reference/labels-annotations-taints/).
func IsKubeletLabel(name string) bool {
	switch name {
	case "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return true
	}
	return false
}
