use serde_json::json;

use super::*;

#[test]
fn a_source_says_where_its_storage_is() {
    let cases = [
        ("gcePersistentDisk", json!({}), "persistentDisk.pdName: Required value"),
        (
            "gcePersistentDisk",
            json!({"pdName": "p", "partition": 256}),
            "persistentDisk.partition: Invalid value: 256: must be between 1 and 255, inclusive",
        ),
        ("rbd", json!({"image": "i"}), "rbd.monitors: Required value"),
        (
            "iscsi",
            json!({"targetPortal": "p", "iqn": "x"}),
            "iscsi.iqn: Invalid value: \"x\": must be valid format starting with iqn, eui, or naa",
        ),
        (
            "iscsi",
            json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example"}),
            "iscsi.iqn: Invalid value: \"iqn.2001-04.com.example\": must be valid format",
        ),
        (
            "iscsi",
            json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example:a b"}),
            "iscsi.iqn: Invalid value: \"iqn.2001-04.com.example:a b\": must be valid format",
        ),
        (
            "iscsi",
            json!({"targetPortal": "p", "iqn": "naa.0123456789abcdef0123456789abcdef", "lun": 256}),
            "iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive",
        ),
        (
            "iscsi",
            json!({"targetPortal": "p".repeat(63), "iqn": "iqn.2001-04.com.example:a", "initiatorName": "eui.0123456789abcdef"}),
            "v: Invalid value: \"v\": Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.",
        ),
        ("fc", json!({}), "fc.targetWWNs: Required value: must specify either targetWWNs or wwids, but not both"),
        ("fc", json!({"targetWWNs": ["a"]}), "fc.lun: Required value: lun is required if targetWWNs is specified"),
        (
            "flexVolume",
            json!({"driver": "d", "options": {"a.K8s.io/x": ""}}),
            "flexVolume.options[a.K8s.io/x]: Invalid value: \"a.K8s.io/x\": kubernetes.io and k8s.io namespaces are reserved",
        ),
        (
            "quobyte",
            json!({"registry": "a:1,b", "volume": "v"}),
            "quobyte.registry: Invalid value: \"a:1,b\": must be a host:port pair or multiple pairs separated by commas",
        ),
        (
            "csi",
            json!({"driver": "A.b", "nodePublishSecretRef": {"name": ""}}),
            "csi.nodePublishSecretRef .name: Required value",
        ),
        (
            "azureDisk",
            json!({"diskName": "d", "diskURI": "x", "kind": "Managed"}),
            "azureDisk.diskURI: Unsupported value: \"x\": supported values: \"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}\"",
        ),
        ("quobyte", json!({"registry": "a:1,[::1]:2", "volume": "v"}), ""),
        ("iscsi", json!({"targetPortal": "p", "iqn": "iqn.2001-04.com.example:a"}), ""),
        ("csi", json!({"driver": "A.b"}), ""),
    ];
    for (field, value, expected) in cases {
        let (mut errors, name) = (ErrorList::new(), Path::new("v"));
        validate(field, &value, &Path::default(), Holder::Pod("v", &name), &mut errors);
        let found: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(found.join("; "), expected, "{field} {value}");
    }
}

#[test]
fn what_a_persistent_volume_says_of_secrets_has_a_namespace() {
    let value = json!({"driver": "d", "volumeHandle": "h", "nodePublishSecretRef": {"name": "A", "namespace": ""}});
    let mut errors = ErrorList::new();
    validate("csi", &value, &Path::new("spec"), Holder::PersistentVolume("v"), &mut errors);
    let found: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(found, ["spec.csi.nodePublishSecretRef.name", "spec.csi.nodePublishSecretRef.namespace"]);
}
