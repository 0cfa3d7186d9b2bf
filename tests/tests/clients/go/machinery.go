package main

import (
	"context"
	"strings"
	"time"

	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	coordination "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
)

var machinery = []step{
	{"one leads, and another when it stops", elects},
	{"events are recorded and counted", records},
	{"everything is discovered and described", discovers},
	{"anything that has a scale is scaled", scales},
	{"tokens are made, reviewed and used", authenticates},
}

func elects(u *user) error {
	leads, sees := make(chan string, 10), make(chan string, 10)
	candidate := func(name string) (stop func()) {
		lock := &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Name: "leader", Namespace: u.namespace},
			Client:     u.typed.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		}
		ctx, cancel := context.WithCancel(u)
		done := make(chan struct{})
		go func() {
			defer close(done)
			leaderelection.RunOrDie(ctx, leaderelection.LeaderElectionConfig{
				Lock: lock, ReleaseOnCancel: true,
				LeaseDuration: 30 * time.Second, RenewDeadline: 20 * time.Second, RetryPeriod: time.Second,
				Callbacks: leaderelection.LeaderCallbacks{
					OnStartedLeading: func(context.Context) { leads <- name },
					OnStoppedLeading: func() {},
					OnNewLeader:      func(leader string) { sees <- name + " sees " + leader },
				},
			})
		}()
		return func() { cancel(); <-done }
	}
	stopOne := candidate("one")
	// Who stops in the middle of a renewal cannot tell others so.
	renewed := func(object runtime.Object) bool {
		spec := object.(*coordination.Lease).Spec
		return spec.RenewTime.After(spec.AcquireTime.Time)
	}
	err := first(heard(u, leads, "one"), heard(u, sees, "one sees one"), u.until(u.watchLeases(), "leader", renewed))
	if err != nil {
		return err
	}
	stopTwo := candidate("two")
	defer stopTwo()
	if err := heard(u, sees, "two sees one"); err != nil {
		return err
	}
	stopOne()
	return heard(u, leads, "two")
}

// sink is where the older recorder writes to.
type sink struct {
	typed     kubernetes.Interface
	namespace string
}

func (s sink) Create(event *corev1.Event) (*corev1.Event, error) {
	return s.typed.CoreV1().Events(s.namespace).CreateWithEventNamespace(event)
}

func (s sink) Update(event *corev1.Event) (*corev1.Event, error) {
	return s.typed.CoreV1().Events(s.namespace).UpdateWithEventNamespace(event)
}

func (s sink) Patch(event *corev1.Event, patch []byte) (*corev1.Event, error) {
	return s.typed.CoreV1().Events(s.namespace).PatchWithEventNamespace(event, patch)
}

func records(u *user) error {
	about, err := u.typed.CoreV1().ConfigMaps(u.namespace).Create(u, u.configMap("told-of", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	older := record.NewBroadcaster()
	defer older.Shutdown()
	older.StartRecordingToSink(sink{u.typed, u.namespace})
	newer := events.NewBroadcaster(&events.EventSinkImpl{Interface: u.typed.EventsV1()})
	defer newer.Shutdown()
	if err := newer.StartRecordingToSinkWithContext(u); err != nil {
		return err
	}
	oldRecorder := older.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "go"})
	newRecorder := newer.NewRecorder(scheme.Scheme, "example.com/go")
	for range 3 {
		oldRecorder.Event(about, corev1.EventTypeNormal, "Old", "said")
	}
	newRecorder.Eventf(about, nil, corev1.EventTypeNormal, "New", "Saying", "said %s", "so")

	recorded := u.typed.CoreV1().Events(u.namespace)
	selector := "involvedObject.kind=ConfigMap,involvedObject.name=told-of"
	both := &cache.ListWatch{
		ListFunc: func(options metav1.ListOptions) (runtime.Object, error) {
			options.FieldSelector = selector
			return recorded.List(u, options)
		},
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) {
			options.FieldSelector = selector
			return recorded.Watch(u, options)
		},
	}
	return first(
		u.untilAny(both, func(e *corev1.Event) bool { return e.Reason == "Old" && e.Count == 3 }),
		u.untilAny(both, func(e *corev1.Event) bool {
			return e.Reason == "New" && e.Action == "Saying" && e.ReportingController == "example.com/go" && !e.EventTime.IsZero()
		}),
	)
}

func discovers(u *user) error {
	client, err := discovery.NewDiscoveryClientForConfig(u.config)
	if err != nil {
		return err
	}
	cached := memory.NewMemCacheClient(client)
	_, resources, err := cached.ServerGroupsAndResources()
	if err != nil {
		return err
	}
	if _, err := discovery.ServerPreferredNamespacedResources(cached); err != nil {
		return err
	}
	if _, err := cached.OpenAPISchema(); err != nil {
		return err
	}
	documents, err := cached.OpenAPIV3().Paths()
	if err != nil {
		return err
	}
	for _, list := range resources {
		path := "apis/" + list.GroupVersion
		if list.GroupVersion == "v1" {
			path = "api/v1"
		}
		if _, err := documents[path].Schema(runtime.ContentTypeJSON); err != nil {
			return err
		}
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	mapping, err := mapper.RESTMapping(schema.GroupKind{Kind: "ReplicationController"})
	if err != nil {
		return err
	}
	short := restmapper.NewShortcutExpander(mapper, cached, nil)
	long, err := short.ResourceFor(schema.GroupVersionResource{Resource: "rc"})
	return first(err, expect("what is meant", long, mapping.Resource))
}

func scales(u *user) error {
	controllers := u.typed.CoreV1().ReplicationControllers(u.namespace)
	template := u.pod("scaled")
	wanted := &corev1.ReplicationController{
		ObjectMeta: metav1.ObjectMeta{Name: "scaled"},
		Spec: corev1.ReplicationControllerSpec{
			Selector: template.Labels,
			Template: &corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: template.Labels}, Spec: template.Spec},
		},
	}
	wanted.Spec.Template.Spec.TerminationGracePeriodSeconds = zero()
	if _, err := controllers.Create(u, wanted, metav1.CreateOptions{}); err != nil {
		return err
	}
	client, err := discovery.NewDiscoveryClientForConfig(u.config)
	if err != nil {
		return err
	}
	cached := memory.NewMemCacheClient(client)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(cached)
	scaler, err := scale.NewForConfig(u.config, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(cached))
	if err != nil {
		return err
	}
	resource := schema.GroupResource{Resource: "replicationcontrollers"}
	err = retry.RetryOnConflict(retry.DefaultRetry, func() error {
		found, err := scaler.Scales(u.namespace).Get(u, resource, "scaled", metav1.GetOptions{})
		if err != nil {
			return err
		}
		found.Spec.Replicas = 2
		_, err = scaler.Scales(u.namespace).Update(u, resource, found, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	err = u.until(of(u, controllers.List, controllers.Watch), "scaled", func(o runtime.Object) bool {
		return o.(*corev1.ReplicationController).Status.ReadyReplicas == 2
	})
	foreground := metav1.DeletePropagationForeground
	return first(err, controllers.Delete(u, "scaled", metav1.DeleteOptions{PropagationPolicy: &foreground}))
}

func authenticates(u *user) error {
	seconds := int64(600)
	request := &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{ExpirationSeconds: &seconds}}
	made, err := u.typed.CoreV1().ServiceAccounts(u.namespace).CreateToken(u, "default", request, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	question := &authentication.TokenReview{Spec: authentication.TokenReviewSpec{Token: made.Status.Token}}
	review, err := u.typed.AuthenticationV1().TokenReviews().Create(u, question, metav1.CreateOptions{})
	if err := first(err, expect("what the review says", review.Status.Authenticated, true)); err != nil {
		return err
	}
	config := rest.AnonymousClientConfig(u.config)
	config.BearerToken = made.Status.Token
	account, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	self, err := account.AuthenticationV1().SelfSubjectReviews().Create(u, &authentication.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, refused := account.CoreV1().Secrets(u.namespace).List(u, metav1.ListOptions{})
	attributes := &authorization.ResourceAttributes{Verb: "list", Resource: "secrets", Namespace: u.namespace}
	may, err := account.AuthorizationV1().SelfSubjectAccessReviews().Create(u, &authorization.SelfSubjectAccessReview{
		Spec: authorization.SelfSubjectAccessReviewSpec{ResourceAttributes: attributes},
	}, metav1.CreateOptions{})
	return first(
		err, is(errors.IsForbidden, refused), expect("what the review says", may.Status.Allowed, false),
		expect("who it is", strings.HasSuffix(self.Status.UserInfo.Username, ":default"), true),
	)
}
