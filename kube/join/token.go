package join

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/rackseed/rackseed/services/machine"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// A bootstrap token is a Secret of this form
// (https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/).
// The controller manager's tokencleaner removes it when it has expired.
const (
	namespace   = metav1.NamespaceSystem
	secretType  = corev1.SecretType("bootstrap.kubernetes.io/token")
	namePrefix  = "bootstrap-token-"
	joinerGroup = "system:bootstrappers:kubeadm:default-node-token" // kubeadm init binds it to what a node needs to join

	// Ours are found by these labels.
	labelMachine = "rackseed.local/machine"
	labelIntent  = "rackseed.local/intent"
	labelEpoch   = "rackseed.local/epoch"
)

// token is a bootstrap token: ID, which is no secret, and secret.
type token struct{ id, secret string }

func (t token) String() string { return t.id + "." + t.secret }

func newToken() token { return token{random(6), random(16)} }

// random is n characters of a bootstrap token, each of 36 alike.
func random(n int) string {
	const alphabet = "0123456789abcdefghijklmnopqrstuvwxyz"
	const fair = 256 / len(alphabet) * len(alphabet)
	out, b := make([]byte, 0, n), make([]byte, 1)
	for len(out) < n {
		rand.Read(b) // never fails, by its contract
		if int(b[0]) < fair {
			out = append(out, alphabet[int(b[0])%len(alphabet)])
		}
	}
	return string(out)
}

// object is the Secret of a token that one machine joins by.
func (t token) object(m machine.Machine, intent machine.Intent, expires time.Time) *corev1.Secret {
	return &corev1.Secret{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: namePrefix + t.id,
			Labels: map[string]string{labelMachine: string(m.ID), labelIntent: intent.ID, labelEpoch: strconv.FormatUint(intent.Epoch, 10)},
		},
		Type: secretType,
		StringData: map[string]string{
			"token-id": t.id, "token-secret": t.secret,
			"expiration":                     expires.UTC().Format(time.RFC3339),
			"usage-bootstrap-signing":        "true",
			"usage-bootstrap-authentication": "true",
			"auth-extra-groups":              joinerGroup,
			"description":                    fmt.Sprintf("%s (machine %s) joins by it: join intent %s, attempt %d", m.Name, m.ID, intent.ID, intent.Epoch),
		},
	}
}

// tokenOf is whose a token is.
type tokenOf struct {
	machine machine.ID
	intent  string
	epoch   uint64
}

// before says whether a token is of an earlier attempt than an intent's
// present one. A later one may have been made meanwhile.
func (t tokenOf) before(i machine.Intent) bool { return t.intent != i.ID || t.epoch < i.Epoch }

func create(ctx context.Context, client rest.Interface, object *corev1.Secret) error {
	return client.Post().Namespace(namespace).Resource("secrets").Body(object).Do(ctx).Error()
}

// remove deletes those tokens of ours that are over.
func remove(ctx context.Context, client rest.Interface, over func(tokenOf) bool) error {
	var list corev1.SecretList
	if err := client.Get().Namespace(namespace).Resource("secrets").Param("labelSelector", labelMachine).Do(ctx).Into(&list); err != nil {
		return fmt.Errorf("listing tokens: %w", err)
	}
	var failed []error
	for _, s := range list.Items {
		epoch, err := strconv.ParseUint(s.Labels[labelEpoch], 10, 64)
		if err != nil || s.Type != secretType {
			continue // somebody else's, by accident labelled as ours are
		}
		if !over(tokenOf{machine.ID(s.Labels[labelMachine]), s.Labels[labelIntent], epoch}) {
			continue
		}
		err = client.Delete().Namespace(namespace).Resource("secrets").Name(s.Name).Do(ctx).Error()
		if err != nil && !apierrors.IsNotFound(err) {
			failed = append(failed, fmt.Errorf("deleting %s: %w", s.Name, err))
		}
	}
	return errors.Join(failed...)
}
