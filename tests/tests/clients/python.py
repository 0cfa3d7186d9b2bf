"""The official Python client against a server it knows nothing of. Ends quietly when all is as against Kubernetes."""

import json
import threading

import yaml
from kubernetes import client, config, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.stream import portforward, stream

PATIENCE = 60
NAMESPACE = "python"


def refused(call, *arguments, **options):
    """What a call that must fail is told."""
    try:
        call(*arguments, **options)
    except ApiException as error:
        return error
    raise AssertionError(f"{call} was not refused")


def config_map(name, **data):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, labels={"app": name[0]}), data=data)


def objects(core):
    created = core.create_namespaced_config_map(NAMESPACE, config_map("typed", key="one"))
    assert created.metadata.uid and created.metadata.resource_version
    assert created.metadata.creation_timestamp.tzinfo is not None
    read = core.read_namespaced_config_map("typed", NAMESPACE)
    assert read.data == {"key": "one"} and read.metadata.uid == created.metadata.uid
    read.data["key"] = "two"
    replaced = core.replace_namespaced_config_map("typed", NAMESPACE, read)
    assert replaced.data == {"key": "two"}
    assert int(replaced.metadata.resource_version) > int(created.metadata.resource_version)
    read.data["key"] = "three"
    error = refused(core.replace_namespaced_config_map, "typed", NAMESPACE, read)
    assert (error.status, error.reason) == (409, "Conflict"), error
    body = json.loads(error.body)
    assert body["kind"] == "Status" and body["reason"] == "Conflict" and body["details"]["name"] == "typed", body
    error = refused(core.create_namespaced_config_map, NAMESPACE, config_map("typed"))
    assert (error.status, json.loads(error.body)["reason"]) == (409, "AlreadyExists"), error
    error = refused(core.read_namespaced_config_map, "nothing", NAMESPACE)
    assert (error.status, error.reason) == (404, "Not Found"), error
    assert json.loads(error.body)["message"] == 'configmaps "nothing" not found', error.body
    error = refused(core.create_namespaced_config_map, NAMESPACE, config_map("Not_A_Name"))
    causes = json.loads(error.body)["details"]["causes"]
    assert error.status == 422 and causes[0]["field"] == "metadata.name", error.body
    deleted = core.delete_namespaced_config_map("typed", NAMESPACE)
    assert deleted.status == "Success" and deleted.details.uid == created.metadata.uid, deleted


def patches(core):
    core.create_namespaced_service(
        NAMESPACE,
        client.V1Service(
            metadata=client.V1ObjectMeta(name="web"),
            spec=client.V1ServiceSpec(selector={"app": "web"}, ports=[client.V1ServicePort(name="http", port=80)]),
        ),
    )

    def patch(body, content_type=None):
        if content_type:
            core.api_client.set_default_header("Content-Type", content_type)
        try:
            service = core.patch_namespaced_service("web", NAMESPACE, body)
        finally:
            core.api_client.default_headers.pop("Content-Type", None)
        return {port.name: port.port for port in service.spec.ports}

    second = {"spec": {"ports": [{"name": "https", "port": 443}]}}
    # The client takes a mapping for a strategic merge patch and a list for a JSON patch, unless told otherwise.
    assert patch(second) == {"https": 443, "http": 80}
    assert patch([{"op": "replace", "path": "/spec/ports/0/port", "value": 81}]) == {"https": 81, "http": 80}
    assert patch(second, "application/merge-patch+json") == {"https": 443}
    error = refused(patch, [{"op": "test", "path": "/metadata/name", "value": "other"}])
    assert error.status == 422, error
    assert core.delete_namespaced_service("web", NAMESPACE).metadata.name == "web"


def lists(core):
    for number in range(7):
        core.create_namespaced_config_map(NAMESPACE, config_map(f"{'ab'[number % 2]}-{number}"))
    selected = core.list_namespaced_config_map(NAMESPACE, label_selector="app in (a)")
    assert [item.metadata.name for item in selected.items] == ["a-0", "a-2", "a-4", "a-6"]
    one = core.list_namespaced_config_map(NAMESPACE, field_selector="metadata.name=b-3")
    assert [item.metadata.name for item in one.items] == ["b-3"]
    names, token, sizes = [], None, []
    while True:
        page = core.list_namespaced_config_map(NAMESPACE, limit=3, _continue=token)
        names += [item.metadata.name for item in page.items]
        sizes.append(len(page.items))
        token = page.metadata._continue
        if not token:
            break
        assert page.metadata.remaining_item_count == 8 - len(names)
    assert sizes == [3, 3, 2] and names == sorted(names) and len(set(names)) == 8, names
    error = refused(core.list_namespaced_config_map, NAMESPACE, limit=1, _continue="nonsense")
    assert error.status == 400, error
    gone = core.delete_collection_namespaced_config_map(NAMESPACE, label_selector="app")
    assert gone is not None
    assert len(core.list_namespaced_config_map(NAMESPACE).items) == 1, "kube-root-ca.crt"


def watches(core):
    start = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version

    def told(since, count):
        events, watcher = [], watch.Watch()
        listing = core.list_namespaced_config_map
        for event in watcher.stream(listing, NAMESPACE, resource_version=since, timeout_seconds=PATIENCE):
            kind, name = event["type"], event["object"].metadata.name
            events.append((kind, name, event["object"].metadata.resource_version))
            if len(events) == count:
                watcher.stop()
        return events

    core.create_namespaced_config_map(NAMESPACE, config_map("watched", key="one"))
    core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"key": "two"}})
    core.delete_namespaced_config_map("watched", NAMESPACE)
    first = told(start, 2)
    assert [event[0] for event in first] == ["ADDED", "MODIFIED"], first
    rest = told(first[-1][2], 1)
    assert [event[:2] for event in rest] == [("DELETED", "watched")], rest
    assert int(rest[0][2]) > int(first[-1][2]), "the deletion's own version"
    quiet = list(watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, resource_version=rest[0][2], timeout_seconds=1))
    assert quiet == [], quiet


def dynamically(api):
    dynamic_client = dynamic.DynamicClient(api)
    resource = dynamic_client.resources.get(api_version="v1", kind="ConfigMap")
    assert resource.namespaced and "watch" in resource.verbs
    lease = dynamic_client.resources.get(api_version="coordination.k8s.io/v1", kind="Lease")
    assert lease.name == "leases"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"a": "1", "b": "1"}}
    apply = {"namespace": NAMESPACE, "name": "applied"}
    applied = resource.server_side_apply(body, field_manager="one", **apply)
    assert applied.data.to_dict() == {"a": "1", "b": "1"}
    body["data"] = {"a": "2"}
    try:
        resource.server_side_apply(body, field_manager="two", **apply)
        raise AssertionError("no conflict")
    except ConflictError as error:
        causes = json.loads(error.body)["details"]["causes"]
        assert causes[0]["reason"] == "FieldManagerConflict" and causes[0]["field"] == ".data.a", causes
    assert resource.server_side_apply(body, field_manager="two", force_conflicts=True, **apply).data.a == "2"
    patched = resource.patch({"data": {"b": None}}, content_type="application/merge-patch+json", **apply)
    assert patched.data.to_dict() == {"a": "2"}
    listed = resource.get(namespace=NAMESPACE, field_selector="metadata.name=applied")
    assert [item.metadata.name for item in listed.items] == ["applied"]
    threading.Timer(0.2, lambda: resource.delete(**apply)).start()
    since = patched.metadata.resourceVersion
    for event in resource.watch(namespace=NAMESPACE, resource_version=since, timeout=PATIENCE):
        assert (event["type"], event["object"].metadata.name) == ("DELETED", "applied"), event
        break
    try:
        resource.get(**apply)
        raise AssertionError("it is still there")
    except NotFoundError as error:
        assert error.status == 404


def run_pod(core):
    manifest = yaml.safe_load("""
        metadata: {name: web}
        spec:
          terminationGracePeriodSeconds: 1
          containers: [{name: c, image: "example/web:1", command: [serve, everything], stdin: true}]
    """)
    pod = core.create_namespaced_pod(NAMESPACE, manifest)
    since = pod.metadata.resource_version
    watcher = watch.Watch()
    for event in watcher.stream(core.list_namespaced_pod, NAMESPACE, resource_version=since, timeout_seconds=PATIENCE):
        conditions = event["object"].status.conditions or []
        if any(c.type == "Ready" and c.status == "True" for c in conditions):
            watcher.stop()
    assert core.read_namespaced_pod_status("web", NAMESPACE).status.phase == "Running"


def streams(core):
    command = {"command": ["echo", "hello"], "stdout": True, "stderr": True, "stdin": False, "tty": False}
    assert stream(core.connect_get_namespaced_pod_exec, "web", NAMESPACE, **command) == "hello\n"
    shell = {"command": ["sh"], "stdout": True, "stderr": True, "stdin": True, "tty": False, "_preload_content": False}
    session = stream(core.connect_get_namespaced_pod_exec, "web", NAMESPACE, **shell)
    # The client looks at the socket for news, not at what TLS has read already: one frame at a time.
    session.update(timeout=PATIENCE)
    session.write_stdin("echo hello\n")
    assert session.readline_stdout(timeout=PATIENCE) == "hello"
    session.write_stdin("nonsense\n")
    assert session.readline_stderr(timeout=PATIENCE) == "sh: nonsense: not found"
    session.write_stdin("exit 3\n")
    session.run_forever(timeout=PATIENCE)
    assert session.returncode == 3, session.returncode
    session.close()
    attach = {"stdout": True, "stdin": True, "_preload_content": False}
    session = stream(core.connect_get_namespaced_pod_attach, "web", NAMESPACE, **attach)
    session.write_stdin("back\n")
    assert session.readline_stdout(timeout=PATIENCE) == "back"
    session.close()
    error = refused(stream, core.connect_get_namespaced_pod_exec, "nothing", NAMESPACE, **command)
    assert "404" in str(error), error
    forward = portforward(core.connect_get_namespaced_pod_portforward, "web", NAMESPACE, ports="7,1")
    socket = forward.socket(7)
    socket.settimeout(PATIENCE)
    socket.sendall(b"through")
    assert socket.recv(1024) == b"through"
    socket.close()
    forward.socket(1).recv(1)
    assert "refused" in forward.error(1), forward.error(1)


def logs(core):
    assert core.read_namespaced_pod_log("web", NAMESPACE) == "serve everything\n"
    assert core.read_namespaced_pod_log("web", NAMESPACE, tail_lines=0) == ""
    followed = core.read_namespaced_pod_log("web", NAMESPACE, follow=True, _preload_content=False)
    following = followed.stream()
    assert next(following) == b"serve everything\n"
    marked = core.delete_namespaced_pod("web", NAMESPACE)
    assert marked.metadata.deletion_grace_period_seconds == 1
    assert list(following) == [], "it ends with the pod"


CONTROLLER = """
apiVersion: v1
kind: ReplicationController
metadata: {name: few}
spec:
  replicas: 1
  selector: {app: few}
  template:
    metadata: {labels: {app: few}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: c, image: "example/web:1", command: [serve, everything]}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
"""


def manifests(api, core):
    objects = list(yaml.safe_load_all(CONTROLLER))
    made = utils.create_from_yaml(api, yaml_objects=objects, namespace=NAMESPACE)
    assert [one[0].kind for one in made] == ["ReplicationController", "ServiceAccount"], made
    try:
        utils.create_from_yaml(api, yaml_objects=objects, namespace=NAMESPACE)
        raise AssertionError("made twice")
    except utils.FailToCreateError as error:
        assert [one.status for one in error.api_exceptions] == [409, 409], error
    # Its controller writes the status meanwhile, which is a conflict for who has read before.
    replaced = None
    while replaced is None:
        scale = core.read_namespaced_replication_controller_scale("few", NAMESPACE)
        assert (scale.kind, scale.spec.replicas, scale.status.selector) == ("Scale", 1, "app=few"), scale
        scale.spec.replicas = 2
        try:
            replaced = core.replace_namespaced_replication_controller_scale("few", NAMESPACE, scale)
        except ApiException as error:
            assert error.status == 409, error
    assert replaced.spec.replicas == 2
    patched = core.patch_namespaced_replication_controller_scale("few", NAMESPACE, {"spec": {"replicas": 1}})
    assert patched.spec.replicas == 1
    orphan = client.V1DeleteOptions(propagation_policy="Orphan")
    core.delete_namespaced_replication_controller("few", NAMESPACE, body=orphan)
    error = refused(core.delete_namespaced_service_account, "robot", NAMESPACE, body={"preconditions": {"uid": "other"}})
    assert error.status == 409, error


def identities(api, core):
    spec = client.V1TokenRequestSpec(audiences=[], expiration_seconds=600)
    request = client.AuthenticationV1TokenRequest(spec=spec)
    token = core.create_namespaced_service_account_token("robot", NAMESPACE, request).status.token
    reviewer = client.AuthenticationV1Api(api)
    review = reviewer.create_token_review(client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token)))
    name = f"system:serviceaccount:{NAMESPACE}:robot"
    assert review.status.authenticated and review.status.user.username == name, review
    settings = client.Configuration()
    settings.host, settings.ssl_ca_cert = api.configuration.host, api.configuration.ssl_ca_cert
    settings.api_key = {"authorization": f"Bearer {token}"}
    robot = client.CoreV1Api(client.ApiClient(settings))
    error = refused(robot.list_pod_for_all_namespaces)
    assert error.status == 403 and f'User "{name}" cannot list resource "pods"' in json.loads(error.body)["message"]
    settings.api_key = {"authorization": "Bearer nonsense"}
    error = refused(client.CoreV1Api(client.ApiClient(settings)).list_namespace)
    assert (error.status, error.reason) == (401, "Unauthorized"), error


def leases(api):
    coordination = client.CoordinationV1Api(api)
    lease = client.V1Lease(metadata={"name": "leader"}, spec=client.V1LeaseSpec(holder_identity="a"))
    held = coordination.create_namespaced_lease(NAMESPACE, lease)
    stale = coordination.read_namespaced_lease("leader", NAMESPACE)
    held.spec.holder_identity = "b"
    assert coordination.replace_namespaced_lease("leader", NAMESPACE, held).spec.holder_identity == "b"
    error = refused(coordination.replace_namespaced_lease, "leader", NAMESPACE, stale)
    assert error.status == 409, error


def others(api):
    version = client.VersionApi(api).get_code()
    assert (version.major, version.minor) == ("1", "35"), version
    assert "v1" in client.CoreApi(api).get_api_versions().versions
    groups = {group.name for group in client.ApisApi(api).get_api_versions().groups}
    assert "coordination.k8s.io" in groups, groups
    review = client.V1SelfSubjectAccessReview(
        spec=client.V1SelfSubjectAccessReviewSpec(
            resource_attributes=client.V1ResourceAttributes(verb="get", resource="pods")
        )
    )
    answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
    assert answer.status.allowed
    error = refused(client.AppsV1Api(api).list_namespaced_deployment, NAMESPACE)
    assert error.status == 404, error


def main():
    config.load_kube_config()
    api = client.ApiClient()
    core = client.CoreV1Api(api)
    core.create_namespace({"metadata": {"name": NAMESPACE}})
    objects(core)
    patches(core)
    lists(core)
    watches(core)
    dynamically(api)
    run_pod(core)
    streams(core)
    logs(core)
    manifests(api, core)
    identities(api, core)
    leases(api)
    others(api)
    core.delete_namespace(NAMESPACE)


main()
