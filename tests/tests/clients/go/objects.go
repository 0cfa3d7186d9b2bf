package main

import (
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycore "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/util/retry"
)

var objects = []step{
	{"objects are created, updated and deleted", writes},
	{"errors are known by their reasons", errorsHaveReasons},
	{"every kind of patch is taken", patches},
	{"what is applied has owners", applies},
	{"a status is applied apart", appliesStatus},
	{"no update is lost", losesNothing},
	{"collections are deleted", deletesCollections},
}

func writes(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	wanted := u.configMap("written", map[string]string{"a": "1"})
	wanted.BinaryData = map[string][]byte{"b": {0, 1, 255}}
	made, err := maps.Create(u, wanted, metav1.CreateOptions{FieldValidation: "Strict"})
	if err != nil {
		return err
	}
	made.Data["a"] = "2"
	if made, err = maps.Update(u, made, metav1.UpdateOptions{}); err != nil {
		return err
	}
	found, err := maps.Get(u, "written", metav1.GetOptions{})
	if err != nil {
		return err
	}
	generated := u.configMap("", nil)
	generated.GenerateName = "some-"
	named, err := maps.Create(u, generated, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return first(
		expect("data", found.Data["a"]+string(found.BinaryData["b"]), "2\x00\x01\xff"),
		expect("version", found.ResourceVersion, made.ResourceVersion),
		expect("start of the name", named.Name[:len("some-")], "some-"),
		maps.Delete(u, "written", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(found.UID))}),
	)
}

func errorsHaveReasons(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	made, err := maps.Create(u, u.configMap("judged", nil), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	_, twice := maps.Create(u, u.configMap("judged", nil), metav1.CreateOptions{})
	made.ResourceVersion = "1"
	_, stale := maps.Update(u, made, metav1.UpdateOptions{})
	another := maps.Delete(u, "judged", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("other")})
	_, absent := maps.Get(u, "absent", metav1.GetOptions{})
	_, wrong := maps.Create(u, u.configMap("Wrong_", nil), metav1.CreateOptions{})
	_, page := maps.List(u, metav1.ListOptions{Continue: "rubbish"})
	_, selector := maps.List(u, metav1.ListOptions{LabelSelector: "a in ("})
	_, field := maps.List(u, metav1.ListOptions{FieldSelector: "data.a=b"})
	_, group := u.typed.AppsV1().Deployments(u.namespace).List(u, metav1.ListOptions{})
	wrongName := func(err error) bool {
		return errors.IsInvalid(err) && errors.HasStatusCause(err, metav1.CauseTypeFieldValueInvalid)
	}
	return first(
		is(errors.IsAlreadyExists, twice), is(errors.IsConflict, stale), is(errors.IsConflict, another),
		is(errors.IsNotFound, absent), is(wrongName, wrong), is(errors.IsBadRequest, page),
		is(errors.IsBadRequest, selector), is(errors.IsBadRequest, field), is(errors.IsNotFound, group),
	)
}

func patches(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	if _, err := maps.Create(u, u.configMap("patched", map[string]string{"a": "1"}), metav1.CreateOptions{}); err != nil {
		return err
	}
	for kind, patch := range map[types.PatchType]string{
		types.JSONPatchType:           `[{"op": "add", "path": "/data/j", "value": "1"}]`,
		types.MergePatchType:          `{"data": {"m": "1"}}`,
		types.StrategicMergePatchType: `{"data": {"s": "1"}}`,
	} {
		if _, err := maps.Patch(u, "patched", kind, []byte(patch), metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	found, err := maps.Get(u, "patched", metav1.GetOptions{})
	if err != nil {
		return err
	}
	return expect("number of data", len(found.Data), 4)
}

func applies(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	one := applycore.ConfigMap("applied", u.namespace).WithData(map[string]string{"a": "1"}).WithLabels(map[string]string{"l": "1"})
	if _, err := maps.Apply(u, one, metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	two := applycore.ConfigMap("applied", u.namespace).WithData(map[string]string{"a": "2"})
	_, owned := maps.Apply(u, two, metav1.ApplyOptions{FieldManager: "two"})
	belongsToOne := func(err error) bool {
		return errors.IsConflict(err) && errors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict) &&
			strings.Contains(err.Error(), `conflict with "one": .data.a`)
	}
	taken, err := maps.Apply(u, two, metav1.ApplyOptions{FieldManager: "two", Force: true})
	if err != nil {
		return err
	}
	theirs, err := applycore.ExtractConfigMap(taken, "two")
	if err != nil {
		return err
	}
	return first(
		is(belongsToOne, owned), expect("theirs", theirs.Data["a"], "2"), expect("number of labels", len(theirs.Labels), 0),
	)
}

func appliesStatus(u *user) error {
	nodes := u.typed.CoreV1().Nodes()
	name := "applied-" + u.namespace
	if _, err := nodes.Apply(u, applycore.Node(name), metav1.ApplyOptions{FieldManager: "one"}); err != nil {
		return err
	}
	ready := applycore.NodeCondition().WithType(corev1.NodeReady).WithStatus(corev1.ConditionFalse)
	status := applycore.Node(name).WithStatus(applycore.NodeStatus().WithConditions(ready))
	node, err := nodes.ApplyStatus(u, status, metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		return err
	}
	theirs, err := applycore.ExtractNodeStatus(node, "one")
	if err != nil {
		return err
	}
	return first(
		expect("number of conditions", len(theirs.Status.Conditions), 1), nodes.Delete(u, name, metav1.DeleteOptions{}),
	)
}

func losesNothing(u *user) error {
	const writers = 8
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	if _, err := maps.Create(u, u.configMap("shared", nil), metav1.CreateOptions{}); err != nil {
		return err
	}
	write := func(key string) error {
		found, err := maps.Get(u, "shared", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if found.Data == nil {
			found.Data = map[string]string{}
		}
		found.Data[key] = "written"
		_, err = maps.Update(u, found, metav1.UpdateOptions{})
		return err
	}
	var all sync.WaitGroup
	failures := make([]error, writers)
	often := retry.DefaultRetry
	often.Steps = 100
	for i := range writers {
		all.Add(1)
		go func() {
			defer all.Done()
			failures[i] = retry.RetryOnConflict(often, func() error { return write(fmt.Sprint(i)) })
		}()
	}
	all.Wait()
	if err := first(failures...); err != nil {
		return err
	}
	found, err := maps.Get(u, "shared", metav1.GetOptions{})
	if err != nil {
		return err
	}
	return expect("number of data", len(found.Data), writers)
}

func deletesCollections(u *user) error {
	maps := u.typed.CoreV1().ConfigMaps(u.namespace)
	for i := range 5 {
		made := u.configMap(fmt.Sprint("many-", i), nil)
		made.Labels = map[string]string{"many": "yes"}
		if _, err := maps.Create(u, made, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	many := metav1.ListOptions{LabelSelector: "many=yes"}
	if err := maps.DeleteCollection(u, metav1.DeleteOptions{}, many); err != nil {
		return err
	}
	left, err := maps.List(u, many)
	if err != nil {
		return err
	}
	return expect("number left", len(left.Items), 0)
}
