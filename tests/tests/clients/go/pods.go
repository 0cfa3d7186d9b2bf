package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	"k8s.io/client-go/util/exec"
)

var pods = []step{
	{"a pod runs", runs},
	{"its log is read", prints},
	{"commands run in it, over WebSocket and SPDY", executes},
	{"its ports are reached, over WebSocket and SPDY", forwards},
	{"containers are added to it", debugs},
	{"it is evicted", evicts},
	{"a pod is bound by who schedules it", binds},
}

func isReady(object runtime.Object) bool {
	for _, condition := range object.(*corev1.Pod).Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func runs(u *user) error {
	_, err := u.typed.CoreV1().Pods(u.namespace).Create(u, u.pod("box"), metav1.CreateOptions{})
	return first(err, u.until(u.watchPods(), "box", isReady))
}

func prints(u *user) error {
	log, err := u.typed.CoreV1().Pods(u.namespace).GetLogs("box", &corev1.PodLogOptions{}).DoRaw(u)
	return first(err, expect("log", string(log), "serve --port=80\n"))
}

func executes(u *user) error {
	request := u.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(u.namespace).Name("box").SubResource("exec")
	options := &corev1.PodExecOptions{Command: []string{"sh"}, Stdin: true, Stdout: true, Stderr: true}
	address := request.VersionedParams(options, scheme.ParameterCodec).URL()
	modern, err := remotecommand.NewWebSocketExecutor(u.config, http.MethodGet, address.String())
	if err != nil {
		return err
	}
	older, err := remotecommand.NewSPDYExecutor(u.config, http.MethodPost, address)
	if err != nil {
		return err
	}
	for name, executor := range map[string]remotecommand.Executor{"WebSocket": modern, "SPDY": older} {
		var out, complaint bytes.Buffer
		streams := remotecommand.StreamOptions{Stdin: strings.NewReader("echo in\nnonsense\nexit 7\n"), Stdout: &out, Stderr: &complaint}
		var status exec.CodeExitError
		if err := executor.StreamWithContext(u, streams); !errors.As(err, &status) {
			return fmt.Errorf("%s: no exit status: %w", name, err)
		}
		err := first(
			expect("exit status", status.Code, 7), expect("output", out.String(), "in\n"),
			expect("complaint", complaint.String(), "sh: nonsense: not found\n"),
		)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func forwards(u *user) error {
	request := u.typed.CoreV1().RESTClient().Post().Resource("pods").Namespace(u.namespace).Name("box").SubResource("portforward")
	modern, err := portforward.NewSPDYOverWebsocketDialer(request.URL(), u.config)
	if err != nil {
		return err
	}
	transport, upgrader, err := spdy.RoundTripperFor(u.config)
	if err != nil {
		return err
	}
	older := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, request.URL())
	for name, dialer := range map[string]httpstream.Dialer{"WebSocket": modern, "SPDY": older} {
		if err := u.echoes(dialer); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// echoes sends something through a forwarded port and expects it back.
func (u *user) echoes(dialer httpstream.Dialer) error {
	stop, ready, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		return err
	}
	go func() { ended <- forwarder.ForwardPorts() }()
	defer close(stop)
	select {
	case <-ready:
	case err := <-ended:
		return fmt.Errorf("ended early: %w", err)
	case <-u.Done():
		return u.Err()
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		return err
	}
	connection, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", ports[0].Local))
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := connection.Write([]byte("there and back")); err != nil {
		return err
	}
	if err := connection.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	back, err := io.ReadAll(connection)
	return first(err, expect("what came back", string(back), "there and back"))
}

func debugs(u *user) error {
	pods := u.typed.CoreV1().Pods(u.namespace)
	pod, err := pods.Get(u, "box", metav1.GetOptions{})
	if err != nil {
		return err
	}
	added := corev1.EphemeralContainer{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debugger", Image: "example/box:1"}}
	pod.Spec.EphemeralContainers = append(pod.Spec.EphemeralContainers, added)
	if _, err := pods.UpdateEphemeralContainers(u, "box", pod, metav1.UpdateOptions{}); err != nil {
		return err
	}
	return u.until(u.watchPods(), "box", func(object runtime.Object) bool {
		statuses := object.(*corev1.Pod).Status.EphemeralContainerStatuses
		return len(statuses) == 1 && statuses[0].State.Running != nil
	})
}

func evicts(u *user) error {
	pods := u.typed.CoreV1().Pods(u.namespace)
	pod, err := pods.Get(u, "box", metav1.GetOptions{})
	if err != nil {
		return err
	}
	eviction := &policy.Eviction{
		ObjectMeta:    metav1.ObjectMeta{Name: "box"},
		DeleteOptions: &metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))},
	}
	if err := pods.EvictV1(u, eviction); err != nil {
		return err
	}
	return u.untilGone(u.watchPods(), "box")
}

func binds(u *user) error {
	pods := u.typed.CoreV1().Pods(u.namespace)
	wanted := u.pod("bound")
	wanted.Spec.SchedulerName = "ours"
	if _, err := pods.Create(u, wanted, metav1.CreateOptions{}); err != nil {
		return err
	}
	nodes, err := u.typed.CoreV1().Nodes().List(u, metav1.ListOptions{})
	if err != nil {
		return err
	}
	target := corev1.ObjectReference{Kind: "Node", Name: nodes.Items[0].Name}
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "bound"}, Target: target}
	if err := pods.Bind(u, binding, metav1.CreateOptions{}); err != nil {
		return err
	}
	return u.until(u.watchPods(), "bound", isReady)
}
