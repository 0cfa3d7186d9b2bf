use serde_json::{Value, json};

use super::*;

#[derive(Default, Clone)]
struct World {
    volumes: Vec<Arc<PersistentVolume>>,
    claims: Vec<Arc<PersistentVolumeClaim>>,
}

pub(crate) fn volume(name: &str, size: &str, change: impl FnOnce(&mut Value)) -> Arc<PersistentVolume> {
    let mut value = json!({"metadata": {"name": name}, "spec": {
        "capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": "/data"}}});
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

pub(crate) fn claim(name: &str, size: &str, change: impl FnOnce(&mut Value)) -> Arc<PersistentVolumeClaim> {
    let mut value = json!({"metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}")}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
    change(&mut value);
    Arc::new(serde_json::from_value(value).unwrap())
}

impl World {
    /// Applies plans until there is nothing left to do.
    fn settle(&mut self) -> Vec<String> {
        let mut events = Vec::new();
        for _ in 0..20 {
            let actions = plan(&self.volumes, &self.claims, Timestamp::UNIX_EPOCH);
            if actions.is_empty() {
                return events;
            }
            for action in actions {
                match action {
                    Action::Volume(v) | Action::VolumeStatus(v) => self.put_volume(v),
                    Action::NotReclaimed { volume, reason, .. } => {
                        events.push(reason.to_owned());
                        self.put_volume(volume);
                    }
                    Action::Claim(c) | Action::ClaimStatus(c) => {
                        let place = self.claims.iter_mut().find(|old| old.metadata.name == c.metadata.name).unwrap();
                        *place = Arc::new(c);
                    }
                }
            }
        }
        panic!("the plan does not settle");
    }

    fn put_volume(&mut self, volume: PersistentVolume) {
        let place = self.volumes.iter_mut().find(|old| old.metadata.name == volume.metadata.name).unwrap();
        *place = Arc::new(volume);
    }

    /// `claim phase volume` for each claim, then `volume phase` for each volume.
    fn shown(&self) -> String {
        let claims = self.claims.iter().map(|c| {
            let phase = c.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default();
            format!("{} {phase} {}", c.metadata.name.as_deref().unwrap(), volume_name(c).unwrap_or("-"))
        });
        let volumes =
            self.volumes.iter().map(|v| format!("{} {}", v.metadata.name.as_deref().unwrap(), current_phase(v)));
        claims.chain(volumes).collect::<Vec<_>>().join(", ")
    }
}

#[test]
fn claims_get_the_smallest_volume_that_fits() {
    let plain = |_: &mut Value| ();
    let fast = |v: &mut Value| v["spec"]["storageClassName"] = json!("fast");
    let cases = [
        (
            "the smallest that is large enough",
            vec![volume("large", "9Gi", plain), volume("small", "1Gi", plain), volume("fits", "3Gi", plain)],
            vec![claim("c", "2Gi", plain)],
            "c Bound fits, large Available, small Available, fits Bound",
        ),
        (
            "none is large enough",
            vec![volume("v", "1Gi", plain)],
            vec![claim("c", "2Gi", plain)],
            "c Pending -, v Available",
        ),
        ("of its class", vec![volume("v", "1Gi", fast)], vec![claim("c", "1Gi", plain)], "c Pending -, v Available"),
        ("of its class too", vec![volume("v", "1Gi", fast)], vec![claim("c", "1Gi", fast)], "c Bound v, v Bound"),
        (
            "as it is to be mounted",
            vec![volume("v", "1Gi", plain)],
            vec![claim("c", "1Gi", |v| v["spec"]["accessModes"] = json!(["ReadWriteMany"]))],
            "c Pending -, v Available",
        ),
        (
            "as its labels say",
            vec![volume("a", "1Gi", plain), volume("b", "1Gi", |v| v["metadata"]["labels"] = json!({"disk": "ssd"}))],
            vec![claim("c", "1Gi", |v| v["spec"]["selector"] = json!({"matchLabels": {"disk": "ssd"}}))],
            "c Bound b, a Available, b Bound",
        ),
        (
            "the one it names",
            vec![volume("a", "1Gi", plain), volume("b", "5Gi", plain)],
            vec![claim("c", "1Gi", |v| v["spec"]["volumeName"] = json!("b"))],
            "c Bound b, a Available, b Bound",
        ),
        (
            "the one reserved for it, and nobody else gets that",
            vec![volume("a", "5Gi", |v| v["spec"]["claimRef"] = json!({"namespace": "default", "name": "late"}))],
            vec![claim("early", "1Gi", plain), claim("late", "1Gi", plain)],
            "early Pending -, late Bound a, a Bound",
        ),
        (
            "each its own",
            vec![volume("a", "1Gi", plain), volume("b", "1Gi", plain)],
            vec![claim("c", "1Gi", plain), claim("d", "1Gi", plain), claim("e", "1Gi", plain)],
            "c Bound a, d Bound b, e Pending -, a Bound, b Bound",
        ),
    ];
    for (sentence, volumes, claims, expected) in cases {
        let mut world = World { volumes, claims };
        world.settle();
        assert_eq!(world.shown(), expected, "{sentence}");
    }
}

#[test]
fn a_volume_outlives_its_claim() {
    for (policy, phase, events) in [
        ("Retain", "v Released", vec![]),
        ("Delete", "v Failed", vec!["VolumeFailedDelete"]),
        ("Recycle", "v Failed", vec!["VolumeFailedRecycle"]),
    ] {
        let policy = |v: &mut Value| v["spec"]["persistentVolumeReclaimPolicy"] = json!(policy);
        let mut world = World { volumes: vec![volume("v", "1Gi", policy)], claims: vec![claim("c", "1Gi", |_| ())] };
        world.settle();
        assert_eq!(world.claims[0].status.as_ref().unwrap().capacity.as_ref().unwrap()["storage"].0, "1Gi");
        world.claims.clear();
        assert_eq!(world.settle(), events);
        assert_eq!(world.shown(), phase);
        // A new claim of the same name is another claim.
        world.claims.push(claim("c", "1Gi", |v| v["metadata"]["uid"] = json!("another")));
        world.settle();
        assert!(world.shown().starts_with("c Pending -"), "{}", world.shown());
    }
}

#[test]
fn a_claim_whose_volume_is_gone_is_lost() {
    let mut world = World { volumes: vec![volume("v", "1Gi", |_| ())], claims: vec![claim("c", "1Gi", |_| ())] };
    world.settle();
    world.volumes.clear();
    world.settle();
    assert_eq!(world.shown(), "c Lost v");
}
