package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spf13/cobra"

	"github.com/rackseed/rackseed/services/api"
	"github.com/rackseed/rackseed/services/ignition"
	"github.com/rackseed/rackseed/services/registry"
)

// refName names an image in an OCI layout
// (https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md).
const refName = "org.opencontainers.image.ref.name"

func (o *options) image() *cobra.Command {
	push := &cobra.Command{
		Use: "push PATH NAME", Short: "Push an image: a folder with an OCI layout, or an archive of docker save", Args: cobra.ExactArgs(2),
		Example: `  docker save app | rackseed image push - lab/app:v1
  rackseed image push layout/ lab/app:v1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.push(cmd, args[0], args[1])
		},
	}
	pull := &cobra.Command{
		Use: "pull NAME FOLDER", Short: "Pull an image into a folder, as an OCI layout; it replaces what is called so there", Args: cobra.ExactArgs(2), ValidArgsFunction: o.imageNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.pull(cmd, args[0], args[1])
		},
	}
	return family("image", "Images, and what else is in the registry", listOf(o, "List published images", "/api/images", writeImages), push, pull)
}

func writeImages(w io.Writer, list api.List[api.Image]) error {
	t := newTable("NAME", "SIZE", "FILES", "DIGEST", "PROBLEM")
	for _, i := range list.Items {
		t.add(i.Name, size(uint64(i.Size)), fmt.Sprint(len(i.Files)), i.Digest, i.Problem)
	}
	return t.flush(w)
}

// registry is the image of that name at the boot service, what it is called
// there, and how to get there.
func (o *options) registry(ctx context.Context, image string) (name.Reference, string, []remote.Option, error) {
	c, err := o.connect()
	if err != nil {
		return nil, "", nil, err
	}
	image = withoutHost(image, c.Server().Host)
	ref, err := name.ParseReference(c.Server().Host + "/" + image)
	if err != nil {
		return nil, "", nil, usageError{fmt.Errorf("image %q: a name is expected, as lab/app:v1 or lab/app@sha256:…: %w", image, err)}
	}
	return ref, image, []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.Transport())}, nil
}

// withoutHost is an image's name without the registry that it begins with for
// nodes (rackseed.local), or for other clients of the boot service at server.
func withoutHost(image, server string) string {
	for _, host := range []string{ignition.RegistryHost, server} {
		if rest, ok := strings.CutPrefix(image, host+"/"); ok {
			return rest
		}
	}
	return image
}

func (o *options) push(cmd *cobra.Command, path, image string) error {
	ref, image, options, err := o.registry(cmd.Context(), image)
	if err != nil {
		return err
	}
	opener, remove, err := archive(newInput(cmd), path)
	if err != nil {
		return err
	}
	digest, err := pushTo(ref, options, path, image, opener)
	if err = errors.Join(err, remove()); err != nil {
		return fmt.Errorf("%s to %s: %w", path, image, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is %s\n", image, digest)
	return err
}

// archive opens the archive at path as often as it is read; "-" is kept in a
// file for that. nil: path is a folder.
func archive(stdin io.Reader, path string) (tarball.Opener, func() error, error) {
	nothing := func() error { return nil }
	if path != "-" {
		info, err := os.Stat(path)
		if err != nil || info.IsDir() {
			return nil, nothing, err
		}
		return func() (io.ReadCloser, error) { return os.Open(path) }, nothing, nil
	}
	f, err := os.CreateTemp("", "rackseed-push-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() error { return os.Remove(f.Name()) }
	_, err = io.Copy(f, stdin)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	return func() (io.ReadCloser, error) { return os.Open(f.Name()) }, remove, nil
}

func pushTo(ref name.Reference, options []remote.Option, path, image string, opener tarball.Opener) (v1.Hash, error) {
	if opener != nil {
		i, err := tarball.Image(opener, nil)
		if err != nil {
			return v1.Hash{}, fmt.Errorf("not an archive with one image, as docker save makes it: %w", err)
		}
		return digestOf(i, remote.Write(ref, i, options...))
	}
	index, err := layout.ImageIndexFromPath(path)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("not an OCI layout: %w", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		return v1.Hash{}, err
	}
	d, err := pick(manifest.Manifests, image)
	if err != nil {
		return v1.Hash{}, err
	}
	if d.MediaType.IsIndex() {
		i, err := index.ImageIndex(d.Digest)
		if err != nil {
			return v1.Hash{}, err
		}
		return digestOf(i, remote.WriteIndex(ref, i, options...))
	}
	i, err := index.Image(d.Digest)
	if err != nil {
		return v1.Hash{}, err
	}
	return digestOf(i, remote.Write(ref, i, options...))
}

func digestOf(i interface{ Digest() (v1.Hash, error) }, err error) (v1.Hash, error) {
	if err != nil {
		return v1.Hash{}, err
	}
	return i.Digest()
}

// pick finds what to push in a layout: the only image, or the one that is
// called so.
func pick(manifests []v1.Descriptor, image string) (v1.Descriptor, error) {
	if len(manifests) == 1 {
		return manifests[0], nil
	}
	var names []string
	for _, d := range manifests {
		// What comes with a release is called so there, as "service" for rackseed/service.
		if called := d.Annotations[refName]; called != "" && (called == image || called == registry.Ref(image)) {
			return d, nil
		}
		names = append(names, d.Annotations[refName])
	}
	return v1.Descriptor{}, fmt.Errorf("it has %s (%s), and none is called %s by its annotation %s", count(len(manifests), "image"), strings.Join(names, ", "), image, refName)
}

func (o *options) pull(cmd *cobra.Command, image, folder string) error {
	ref, image, options, err := o.registry(cmd.Context(), image)
	if err != nil {
		return err
	}
	got, err := remote.Get(ref, options...)
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	path, err := layout.FromPath(folder)
	if errors.Is(err, os.ErrNotExist) {
		path, err = layout.Write(folder, empty.Index)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", folder, err)
	}
	same, called := match.Name(image), layout.WithAnnotations(map[string]string{refName: image})
	if got.MediaType.IsIndex() {
		i, err := got.ImageIndex()
		if err == nil {
			err = path.ReplaceIndex(i, same, called)
		}
		return done(cmd, image, got.Digest, folder, err)
	}
	i, err := got.Image()
	if err == nil {
		err = path.ReplaceImage(i, same, called)
	}
	return done(cmd, image, got.Digest, folder, err)
}

func done(cmd *cobra.Command, image string, digest v1.Hash, folder string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", image, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s (%s) is in %s\n", image, digest, filepath.Clean(folder))
	return err
}

// imageNames completes the name of an image.
func (o *options) imageNames(cmd *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	return names(cmd.Context(), o, "/api/images", func(i api.Image) cobra.Completion {
		return cobra.CompletionWithDesc(i.Name, size(uint64(i.Size)))
	})
}
