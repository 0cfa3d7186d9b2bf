package main

import (
	"context"
	"fmt"
	"sort"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
	watchtools "k8s.io/client-go/tools/watch"
)

var watching = []step{
	{"informers tell of everything once", informs},
	{"dynamic and metadata informers tell, too", informsOfAnything},
	{"pages are one snapshot in order", turnsPages},
	{"a watch that ends is taken up where it was", takesUpWatches},
	{"a list is streamed", streamsLists},
}

var configMaps = corev1.SchemeGroupVersion.WithResource("configmaps")

// watched lists and watches one object or all of a kind.
type watched = cache.ListerWatcher

// of is what a typed client lists and watches.
func of[L runtime.Object](
	u *user, list func(context.Context, metav1.ListOptions) (L, error),
	follow func(context.Context, metav1.ListOptions) (watch.Interface, error),
) watched {
	return &cache.ListWatch{
		ListFunc:  func(options metav1.ListOptions) (runtime.Object, error) { return list(u, options) },
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) { return follow(u, options) },
	}
}

func (u *user) watchAccounts() watched {
	accounts := u.typed.CoreV1().ServiceAccounts(u.namespace)
	return of(u, accounts.List, accounts.Watch)
}

func (u *user) watchSecrets() watched {
	secrets := u.typed.CoreV1().Secrets(u.namespace)
	return of(u, secrets.List, secrets.Watch)
}

func (u *user) watchLeases() watched {
	leases := u.typed.CoordinationV1().Leases(u.namespace)
	return of(u, leases.List, leases.Watch)
}

func (u *user) watchPods() watched {
	pods := u.typed.CoreV1().Pods(u.namespace)
	return of(u, pods.List, pods.Watch)
}

// until waits until the object is there and as the judge wants it; nil takes it as it is.
func (u *user) until(what watched, name string, judge func(runtime.Object) bool) error {
	wanted := func(event watch.Event) (bool, error) {
		object, is := event.Object.(metav1.Object)
		if !is || object.GetName() != name || event.Type == watch.Deleted {
			return false, nil
		}
		return judge == nil || judge(event.Object), nil
	}
	if _, err := watchtools.UntilWithSync(u, what, nil, nil, wanted); err != nil {
		return fmt.Errorf("waiting for %s: %w", name, err)
	}
	return nil
}

// untilAny waits until the judge finds one as it wants it.
func (u *user) untilAny(what watched, judge func(*corev1.Event) bool) error {
	wanted := func(event watch.Event) (bool, error) {
		object, is := event.Object.(*corev1.Event)
		return is && judge(object), nil
	}
	_, err := watchtools.UntilWithSync(u, what, nil, nil, wanted)
	return err
}

// untilGone waits until there is no object of that name.
func (u *user) untilGone(what watched, name string) error {
	is := func(object runtime.Object) bool { return object.(metav1.Object).GetName() == name }
	gone := func(store cache.Store) (bool, error) {
		_, there, err := store.GetByKey(u.namespace + "/" + name)
		return !there, err
	}
	deleted := func(event watch.Event) (bool, error) { return event.Type == watch.Deleted && is(event.Object), nil }
	_, err := watchtools.UntilWithSync(u, what, nil, gone, deleted)
	if err != nil {
		return fmt.Errorf("waiting for the end of %s: %w", name, err)
	}
	return nil
}

// next returns what comes first: the next of the channel, or the end of the step.
func next[T any](u *user, channel <-chan T) (T, error) {
	select {
	case found := <-channel:
		return found, nil
	case <-u.Done():
		var none T
		return none, u.Err()
	}
}

// tells sends `+name`, `~name` and `-name` for what an informer tells.
func tells(informer cache.SharedIndexInformer, channel chan<- string) error {
	name := func(object any) string {
		if gone, is := object.(cache.DeletedFinalStateUnknown); is {
			return "?" + gone.Key
		}
		return object.(metav1.Object).GetName()
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { channel <- "+" + name(object) },
		UpdateFunc: func(_, object any) { channel <- "~" + name(object) },
		DeleteFunc: func(object any) { channel <- "-" + name(object) },
	})
	return err
}

// heard is an error unless the next of the channel are these.
func heard(u *user, channel <-chan string, all ...string) error {
	for _, expected := range all {
		found, err := next(u, channel)
		if err := first(err, expect("what is told", found, expected)); err != nil {
			return fmt.Errorf("before %s: %w", expected, err)
		}
	}
	return nil
}

// changes makes, changes and deletes a config map that is labelled for who listens.
func (u *user) changes(name string) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	wanted := u.configMap(name, map[string]string{"a": "1"})
	wanted.Labels = map[string]string{"told": "yes"}
	made, err := maps.Create(u, wanted, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	made.Data["a"] = "2"
	_, err = maps.Update(u, made, metav1.UpdateOptions{})
	return first(err, maps.Delete(u, name, metav1.DeleteOptions{}))
}

func ofThoseTold(options *metav1.ListOptions) {
	options.LabelSelector = "told=yes"
}

func informs(u *user) error {
	factory := informers.NewSharedInformerFactoryWithOptions(
		u.typed, 0, informers.WithNamespace(u.namespace), informers.WithTweakListOptions(ofThoseTold),
	)
	informer := factory.Core().V1().ConfigMaps().Informer()
	return u.isTold("typed", informer, factory.Start)
}

func informsOfAnything(u *user) error {
	anything := dynamicinformer.NewFilteredDynamicSharedInformerFactory(u.dynamic, 0, u.namespace, ofThoseTold)
	metadata := metadatainformer.NewFilteredSharedInformerFactory(u.metadata, 0, u.namespace, ofThoseTold)
	return first(
		u.isTold("dynamic", anything.ForResource(configMaps).Informer(), anything.Start),
		u.isTold("metadata", metadata.ForResource(configMaps).Informer(), metadata.Start),
	)
}

// isTold of all that happens, by an informer that finds one object and hears of others.
func (u *user) isTold(by string, informer cache.SharedIndexInformer, start func(<-chan struct{})) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	before := u.configMap(by, nil)
	before.Labels = map[string]string{"told": "yes"}
	if _, err := maps.Create(u, before, metav1.CreateOptions{}); err != nil {
		return err
	}
	stories, complaints := make(chan string, 100), make(chan error, 100)
	complain := func(_ *cache.Reflector, err error) { complaints <- err }
	if err := first(informer.SetWatchErrorHandler(complain), tells(informer, stories)); err != nil {
		return err
	}
	stop := make(chan struct{})
	defer close(stop)
	start(stop)
	if err := heard(u, stories, "+"+by); err != nil {
		return err
	}
	if !cache.WaitForCacheSync(u.Done(), informer.HasSynced) {
		return u.Err()
	}
	if err := u.changes(by + "-later"); err != nil {
		return err
	}
	err := heard(u, stories, "+"+by+"-later", "~"+by+"-later", "-"+by+"-later")
	err = first(err, maps.Delete(u, by, metav1.DeleteOptions{}))
	err = first(err, heard(u, stories, "-"+by))
	select {
	case complaint := <-complaints:
		return first(err, complaint)
	default:
		return err
	}
}

func turnsPages(u *user) error {
	const pages, size = 6, 4
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	for i := range pages * size {
		made := u.configMap(fmt.Sprintf("page-%02d", i), nil)
		made.Labels = map[string]string{"paged": "yes"}
		if _, err := maps.Create(u, made, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	turned, names := 0, []string{}
	book := pager.New(func(_ context.Context, options metav1.ListOptions) (runtime.Object, error) {
		turned++
		if turned == 2 {
			if err := maps.Delete(u, "page-23", metav1.DeleteOptions{}); err != nil {
				return nil, err
			}
		}
		return maps.List(u, options)
	})
	book.PageSize = size
	// One page after the other: what is deleted meanwhile is still there in a snapshot.
	book.PageBufferSize = 0
	err := book.EachListItem(u, metav1.ListOptions{LabelSelector: "paged=yes"}, func(object runtime.Object) error {
		names = append(names, object.(*corev1.ConfigMap).Name)
		return nil
	})
	return first(
		err, expect("enough pages", turned >= pages, true), expect("number of names", len(names), pages*size),
		expect("in order", sort.StringsAreSorted(names), true),
	)
}

func takesUpWatches(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	list, err := maps.List(u, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	begun := make(chan struct{}, 100)
	short := int64(1)
	watcher, err := watchtools.NewRetryWatcher(list.ResourceVersion, &cache.ListWatch{
		WatchFunc: func(options metav1.ListOptions) (watch.Interface, error) {
			options.TimeoutSeconds = &short
			options.FieldSelector = "metadata.name=late"
			begun <- struct{}{}
			return maps.Watch(u, options)
		},
	})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	for range 2 {
		if _, err := next(u, begun); err != nil {
			return err
		}
	}
	if _, err := maps.Create(u, u.configMap("late", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	event, err := next(u, watcher.ResultChan())
	return first(err, expect("event", event.Type, watch.Added))
}

func streamsLists(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	if _, err := maps.Create(u, u.configMap("streamed", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	yes := true
	watcher, err := maps.Watch(u, metav1.ListOptions{
		SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
		FieldSelector: "metadata.name=streamed",
	})
	if err != nil {
		return err
	}
	defer watcher.Stop()
	found, err := next(u, watcher.ResultChan())
	if err := first(err, expect("event", found.Type, watch.Added)); err != nil {
		return err
	}
	mark, err := next(u, watcher.ResultChan())
	if err := first(err, expect("event", mark.Type, watch.Bookmark)); err != nil {
		return err
	}
	said := mark.Object.(metav1.Object).GetAnnotations()[metav1.InitialEventsAnnotationKey]
	return expect("end of the list", said, "true")
}
