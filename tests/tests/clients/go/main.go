// A Go program as people write them for Kubernetes, with client-go: it uses a cluster in all the ways the library offers and
// says which of them it was not served well in. The cluster is that of KUBECONFIG; the argument says how typed objects
// travel, as json or protobuf.
//
// client_go.rs runs it; deploy/client-go.sh builds it.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// How long any one step may take.
const patience = time.Minute

// A user is somebody with a namespace of their own and every kind of client.
type user struct {
	context.Context
	config    *rest.Config
	namespace string
	typed     kubernetes.Interface
	dynamic   dynamic.Interface
	metadata  metadata.Interface
}

// A step is one thing people do.
type step struct {
	name string
	run  func(*user) error
}

func main() {
	form := os.Args[1]
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(err)
	config.QPS, config.Burst = 1000, 1000
	if form == "protobuf" {
		config.ContentType = "application/vnd.kubernetes.protobuf"
		config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	}
	u := &user{Context: context.Background(), config: config, namespace: "go-" + form}
	u.typed, err = kubernetes.NewForConfig(config)
	must(err)
	u.dynamic, err = dynamic.NewForConfig(config)
	must(err)
	u.metadata, err = metadata.NewForConfig(config)
	must(err)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: u.namespace}}
	_, err = u.typed.CoreV1().Namespaces().Create(u, namespace, metav1.CreateOptions{})
	must(err)
	must(u.takes(step{"a namespace has an account", hasAccount}))

	failed := 0
	for _, steps := range [][]step{objects, watching, machinery, pods, controllers} {
		for _, s := range steps {
			if err := u.takes(s); err != nil {
				failed++
				fmt.Printf("%s: %v\n", s.name, err)
			}
		}
	}
	must(u.typed.CoreV1().Namespaces().Delete(u, u.namespace, metav1.DeleteOptions{}))
	if failed > 0 {
		os.Exit(1)
	}
}

func hasAccount(u *user) error {
	return u.until(u.watchAccounts(), "default", nil)
}

// takes does one step, which has its own time.
func (u *user) takes(s step) error {
	hurried := *u
	var cancel context.CancelFunc
	hurried.Context, cancel = context.WithTimeout(u.Context, patience)
	defer cancel()
	return s.run(&hurried)
}

func must(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// expect is an error unless what was found is what was expected.
func expect[T comparable](what string, found, expected T) error {
	if found != expected {
		return fmt.Errorf("%s is %v and not %v", what, found, expected)
	}
	return nil
}

// is returns an error unless err is one that the judge knows.
func is(judge func(error) bool, err error) error {
	if !judge(err) {
		return fmt.Errorf("another error was expected than %v", err)
	}
	return nil
}

// first returns the first error there is.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func zero() *int64 {
	return new(int64)
}

func (u *user) configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: u.namespace}, Data: data}
}

// pod makes one of a container that prints its arguments and listens.
func (u *user) pod(name string) *corev1.Pod {
	container := corev1.Container{Name: "box", Image: "example/box:1", Args: []string{"serve", "--port=80"}}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: u.namespace, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{container}, TerminationGracePeriodSeconds: zero()},
	}
}
