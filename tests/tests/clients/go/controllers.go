package main

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	applymeta "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/informers"
	listers "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

var controllers = []step{
	{"a controller keeps what it owns as it should be", controls},
}

// A mirror is a controller: for every config map with the label `mirror` it keeps a secret of the same name and data,
// which goes when the config map does.
type mirror struct {
	*user
	maps  listers.ConfigMapLister
	queue workqueue.TypedRateLimitingInterface[cache.ObjectName]
}

func (m *mirror) enqueue(object any) {
	if name, err := cache.DeletionHandlingObjectToName(object); err == nil {
		m.queue.Add(name)
	}
}

func (m *mirror) work(ctx context.Context) {
	for {
		name, ended := m.queue.Get()
		if ended {
			return
		}
		if m.reconcile(ctx, name) == nil {
			m.queue.Forget(name)
		} else {
			m.queue.AddRateLimited(name)
		}
		m.queue.Done(name)
	}
}

func (m *mirror) reconcile(ctx context.Context, name cache.ObjectName) error {
	found, err := m.maps.ConfigMaps(name.Namespace).Get(name.Name)
	if errors.IsNotFound(err) {
		return nil // what it owned is collected
	} else if err != nil {
		return err
	}
	owner := applymeta.OwnerReference().WithAPIVersion("v1").WithKind("ConfigMap").WithName(found.Name).WithUID(found.UID)
	secret := applycore.Secret(found.Name, found.Namespace).WithStringData(found.Data).WithOwnerReferences(owner.WithController(true))
	_, err = m.typed.CoreV1().Secrets(found.Namespace).Apply(ctx, secret, metav1.ApplyOptions{FieldManager: "mirror", Force: true})
	return err
}

func controls(u *user) error {
	factory := informers.NewSharedInformerFactoryWithOptions(u.typed, 0, informers.WithNamespace(u.namespace),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) { o.LabelSelector = "mirror" }))
	secretFactory := informers.NewSharedInformerFactoryWithOptions(u.typed, 0, informers.WithNamespace(u.namespace))
	limiter := workqueue.DefaultTypedControllerRateLimiter[cache.ObjectName]()
	m := &mirror{user: u, maps: factory.Core().V1().ConfigMaps().Lister(), queue: workqueue.NewTypedRateLimitingQueue(limiter)}
	handler := cache.ResourceEventHandlerFuncs{
		AddFunc: m.enqueue, UpdateFunc: func(_, object any) { m.enqueue(object) }, DeleteFunc: m.enqueue,
	}
	if _, err := factory.Core().V1().ConfigMaps().Informer().AddEventHandler(handler); err != nil {
		return err
	}
	secrets := secretFactory.Core().V1().Secrets()
	if _, err := secrets.Informer().AddEventHandler(handler); err != nil {
		return err
	}
	defer m.queue.ShutDown()
	factory.Start(u.Done())
	secretFactory.Start(u.Done())
	factory.WaitForCacheSync(u.Done())
	secretFactory.WaitForCacheSync(u.Done())
	if _, err := secrets.Lister().List(labels.Everything()); err != nil {
		return err
	}
	go m.work(u)
	return u.watchesMirror()
}

func (u *user) watchesMirror() error {
	maps, secrets := u.typed.CoreV1().ConfigMaps(u.namespace), u.typed.CoreV1().Secrets(u.namespace)
	shown := func(expected string) func(runtime.Object) bool {
		return func(object runtime.Object) bool { return string(object.(*corev1.Secret).Data["a"]) == expected }
	}
	wanted := u.configMap("mirrored", map[string]string{"a": "1"})
	wanted.Labels = map[string]string{"mirror": "yes"}
	made, err := maps.Create(u, wanted, metav1.CreateOptions{})
	if err := first(err, u.until(u.watchSecrets(), "mirrored", shown("1"))); err != nil {
		return err
	}
	made.Data["a"] = "2"
	_, err = maps.Update(u, made, metav1.UpdateOptions{})
	if err := first(err, u.until(u.watchSecrets(), "mirrored", shown("2"))); err != nil {
		return err
	}
	// It heals.
	old, err := secrets.Get(u, "mirrored", metav1.GetOptions{})
	if err := first(err, secrets.Delete(u, "mirrored", metav1.DeleteOptions{})); err != nil {
		return err
	}
	another := func(object runtime.Object) bool { return object.(*corev1.Secret).UID != old.UID }
	if err := u.until(u.watchSecrets(), "mirrored", another); err != nil {
		return err
	}
	return first(maps.Delete(u, "mirrored", metav1.DeleteOptions{}), u.untilGone(u.watchSecrets(), "mirrored"))
}
