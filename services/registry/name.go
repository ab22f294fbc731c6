package registry

import (
	"fmt"
	"net/http"
	"strings"

	"cuelabs.dev/go/oci/ociregistry"

	"github.com/rackseed/rackseed/services/ignition"
)

// What came with a release is published under a plain word, as "node", and is
// here rackseed/node:latest. What people push is published under
// "repository:tag".
const (
	ours    = "rackseed/"
	oursTag = "latest"

	maxRef = 128 // bytes of a ref that the state takes
)

// Name is what an image published under ref is called here: "lab/app:v1", or
// "rackseed/node:latest" for "node".
func Name(ref string) string {
	repo, tag := split(ref)
	return repo + ":" + tag
}

// Ref is the ref under which an image is published that is called so here: "service"
// for "rackseed/service". Without a tag it is latest; "": none has that name.
func Ref(name string) string {
	repo, tag, tagged := strings.Cut(name, ":")
	if !tagged {
		tag = oursTag
	}
	return join(repo, tag)
}

// split takes a published ref apart.
func split(ref string) (repo, tag string) {
	// A tag has no colon, and neither has a repository.
	if repo, tag, tagged := strings.Cut(ref, ":"); tagged {
		return repo, tag
	}
	return ours + ref, oursTag
}

// join is the ref under which repo:tag is published, if it is.
func join(repo, tag string) string {
	if word, ok := strings.CutPrefix(repo, ours); ok {
		if tag != oursTag {
			return "" // no ref is empty
		}
		return word
	}
	return repo + ":" + tag
}

// Service is the repository of the boot service's own image.
const Service = ours + "service"

// checkRepository says why nothing can be pushed to a repository.
func (c Config) checkRepository(repo string) error {
	if repo == Service && c.PushService {
		return nil
	}
	if strings.HasPrefix(repo, ours) {
		return &refusal{http.StatusForbidden, ociregistry.ErrDenied.Code(), fmt.Sprintf(
			"repository %s: what is below %s came with this release and is changed by the next one; push to another repository, as lab/%s",
			repo, ours, strings.TrimPrefix(repo, ours))}
	}
	if rest, ok := strings.CutPrefix(repo, ignition.RegistryHost+"/"); ok {
		return &refusal{http.StatusBadRequest, ociregistry.ErrNameInvalid.Code(), fmt.Sprintf(
			"repository %s: nodes pull all that is here by %s, which is no part of its name; push to %s", repo, ignition.RegistryHost, rest)}
	}
	return nil
}

// checkTag says why a tag cannot be set.
func checkTag(repo, tag string) error {
	ref := join(repo, tag)
	if ref == "" && tag != "" {
		return &refusal{http.StatusBadRequest, ociregistry.ErrDenied.Code(), fmt.Sprintf("repository %s has the one tag %s: push to %s", repo, oursTag, repo)}
	}
	if len(ref) > maxRef {
		return &refusal{http.StatusBadRequest, ociregistry.ErrNameInvalid.Code(), fmt.Sprintf(
			"%s: repository and tag have %d bytes, %d is the most: choose shorter ones", ref, len(ref), maxRef)}
	}
	return nil
}
