//! What Go's decoder makes of nothing. `null` in a list or map is the zero of its type, and a zero, an empty list or an empty
//! map in a field that has no pointer is no different from a field that is not there (`omitempty`): it is not stored, not
//! shown, and no change to what was not there. The table of messages knows which fields have pointers.

use serde_json::{Map, Value};

use crate::kinds::KindInfo;
use crate::omit::ALWAYS;
use crate::protobuf::{self, Many, Type, is_zero};

/// What stands at a place in an object.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    many: Many,
    of: Type,
    /// It stands in a list or a map, where nothing can be left out.
    is_item: bool,
    keeps_zero: bool,
}

impl Spot {
    /// An object of this kind.
    pub(super) fn root(info: &KindInfo) -> Option<Spot> {
        let message = protobuf::known_message(&info.api_version(), info.kind)?;
        Some(Spot { many: Many::One, of: Type::Message(message), is_item: true, keeps_zero: true })
    }

    /// What the values here are, and how many.
    pub(super) fn of(self) -> Type {
        self.of
    }

    pub(super) fn many(self) -> Many {
        self.many
    }

    /// The message that is here.
    pub(super) fn message(self) -> Option<&'static str> {
        match (self.many, self.of) {
            (Many::One, Type::Message(message)) => Some(message),
            _ => None,
        }
    }

    /// At each place of the list that is here.
    pub(super) fn in_list(self) -> Option<Spot> {
        (self.many == Many::List).then_some(Spot { many: Many::One, is_item: true, ..self })
    }

    /// In a field of what is here.
    pub(super) fn in_field(self, name: &str) -> Option<Spot> {
        match (self.many, self.of) {
            (Many::Map, _) => Some(Spot { many: Many::One, is_item: true, ..self }),
            (Many::One, Type::Message(message)) => {
                let found = protobuf::field(message, name)?;
                // No list of objects is decoded here, so that `items` are those of a volume.
                let is_written = found.many == Many::List && name != "items" && ALWAYS.contains(&name);
                // An empty list of managers says that they are to be forgotten.
                let keeps_zero = found.keeps_zero || is_written || name == "managedFields";
                Some(Spot { many: found.many, of: found.of, is_item: false, keeps_zero })
            }
            _ => None,
        }
    }

    /// Whether Go has something else here than what the text says, if that is `null`.
    pub(super) fn is_filled(self) -> bool {
        self.is_item && self.zero().is_some()
    }

    /// Whether Go has nothing here, if the text says zero.
    pub(super) fn is_left_out_if_zero(self) -> bool {
        let is_scalar = matches!(self.of, Type::String | Type::Bytes | Type::Bool | Type::Int);
        !self.is_item && self.many == Many::One && is_scalar && !self.keeps_zero
    }

    /// Whether Go has nothing here, if the text says `[]` or `{}`.
    pub(super) fn is_left_out_if_empty(self) -> bool {
        !self.is_item && self.many != Many::One && !self.keeps_zero
    }

    /// What `null` in a list or map stands for.
    fn zero(self) -> Option<Value> {
        match self.of {
            Type::String | Type::Bytes => Some("".into()),
            Type::Bool => Some(false.into()),
            Type::Int | Type::IntOrString => Some(0.into()),
            Type::Quantity => Some("0".into()),
            Type::Strings => Some(Value::Array(Vec::new())),
            Type::Message(_) => Some(Value::Object(Map::new())),
            Type::Time | Type::MicroTime | Type::Json => None,
        }
    }
}

/// The object as Go's decoder has it. What is not of its type stays, for the typed decoder to refuse.
pub(super) fn settle(value: &mut Value, spot: Spot) {
    match value {
        Value::Array(items) => {
            let Some(item) = spot.in_list() else { return };
            items.iter_mut().for_each(|value| fill(value, item));
        }
        Value::Object(fields) => fields.retain(|name, value| {
            let Some(spot) = spot.in_field(name) else { return true };
            fill(value, spot);
            !is_left_out(value, spot)
        }),
        _ => {}
    }
}

/// The times that the typed decoder must have, where for Go's one that is not there is the first of all.
const REQUIRED_TIMES: [(&str, &str); 1] = [("meta.v1.Condition", "lastTransitionTime")];
/// Go's `time.Time` without a value.
const NO_TIME: &str = "0001-01-01T00:00:00Z";

/// Puts in the times that have to be there; whether any was missing.
pub(super) fn fill_times(value: &mut Value, spot: Spot) -> bool {
    match value {
        Value::Array(items) => {
            let Some(item) = spot.in_list() else { return false };
            items.iter_mut().fold(false, |filled, value| fill_times(value, item) | filled)
        }
        Value::Object(fields) => {
            let mut filled = false;
            for (name, value) in fields.iter_mut() {
                filled |= spot.in_field(name).is_some_and(|spot| fill_times(value, spot));
            }
            let required = REQUIRED_TIMES.iter().filter(|(message, _)| spot.message() == Some(message));
            for (_, name) in required {
                let time = fields.entry(*name).or_insert(Value::Null);
                if time.is_null() {
                    (*time, filled) = (NO_TIME.into(), true);
                }
            }
            filled
        }
        _ => false,
    }
}

fn fill(value: &mut Value, spot: Spot) {
    match spot.zero() {
        Some(zero) if value.is_null() && spot.is_item => *value = zero,
        _ => settle(value, spot),
    }
}

fn is_left_out(value: &Value, spot: Spot) -> bool {
    match (value, spot.many) {
        (Value::Array(items), Many::List) => items.is_empty() && spot.is_left_out_if_empty(),
        (Value::Object(fields), Many::Map) => fields.is_empty() && spot.is_left_out_if_empty(),
        (value, _) => {
            let fits = match value {
                Value::String(_) => matches!(spot.of, Type::String | Type::Bytes),
                Value::Bool(_) => spot.of == Type::Bool,
                _ => spot.of == Type::Int,
            };
            fits && spot.is_left_out_if_zero() && is_zero(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::kinds;

    /// What is stored of an object, with what is not the object's own taken away.
    fn stored(kind: &str, object: &Value) -> Value {
        let row = kinds::by_kind("v1", kind).unwrap();
        let decoded = (row.decode)(object.to_string().as_bytes()).unwrap();
        assert!(decoded.strict_errors.is_empty(), "{:?}", decoded.strict_errors);
        let mut value: Value = serde_json::from_slice(&decoded.object.encode()).unwrap();
        value.as_object_mut().unwrap().retain(|name, _| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
        value
    }

    #[test]
    fn a_zero_that_go_leaves_out_is_not_there() {
        let container = json!({"name": "c", "stdin": false, "workingDir": "", "env": [{"name": "A", "value": ""}],
            "ports": [{"containerPort": 1, "hostPort": 0}], "command": [], "resources": {"limits": {}}});
        let expected = json!({"name": "c", "env": [{"name": "A"}], "ports": [{"containerPort": 1}], "resources": {}});
        let cases = [
            (
                "Pod",
                json!({"spec": {"containers": [container], "hostNetwork": false, "nodeName": "", "tolerations": []}}),
                json!({"spec": {"containers": [expected]}}),
            ),
            // Behind a pointer a zero says something, and so it does in a map, a list or a required field.
            (
                "Pod",
                json!({"spec": {"containers": [{"name": "", "securityContext": {"privileged": false}, "args": [""],
                "resources": {}}], "terminationGracePeriodSeconds": 0, "nodeSelector": {"a": ""}}}),
                Value::Null,
            ),
            (
                "Pod",
                json!({"spec": {"containers": [], "volumes": [{"name": "v", "secret": {"secretName": "s", "items": []}},
                    {"name": "w", "csi": {"driver": "d", "readOnly": false}}]}}),
                json!({"spec": {"containers": null, "volumes": [{"name": "v", "secret": {"secretName": "s"}},
                    {"name": "w", "csi": {"driver": "d", "readOnly": false}}]}}),
            ),
            ("ConfigMap", json!({"data": {"hostNetwork": "", "name": ""}, "immutable": false}), Value::Null),
            (
                "Service",
                json!({"spec": {"selector": {}, "publishNotReadyAddresses": false, "ports": [{"name": "", "port": 0}]}}),
                json!({"spec": {"ports": [{"port": 0}]}}),
            ),
        ];
        for (kind, object, expected) in cases {
            let expected = if expected.is_null() { object.clone() } else { expected };
            let mut found = stored(kind, &object);
            found.as_object_mut().unwrap().remove("status");
            assert_eq!(found, expected, "{kind} {object}");
        }
    }

    #[test]
    fn null_in_a_list_or_map_is_the_zero_of_its_type() {
        let pod = json!({"spec": {"containers": [null], "securityContext": {"supplementalGroups": [null, 1]},
            "imagePullSecrets": [null], "overhead": {"cpu": null}, "nodeSelector": {"a": null}}});
        let expected = json!({"spec": {"containers": [{"name": "", "resources": {}}],
            "securityContext": {"supplementalGroups": [0, 1]}, "imagePullSecrets": [{}], "overhead": {"cpu": "0"},
            "nodeSelector": {"a": ""}}, "status": {}});
        assert_eq!(stored("Pod", &pod), expected);
    }

    #[test]
    fn a_condition_without_its_time_has_the_first_of_all() {
        let conditions = json!([{"type": "A", "status": "True"}, {"type": "B", "lastTransitionTime": null}]);
        let service = stored("Service", &json!({"status": {"conditions": conditions}}));
        let times: Vec<_> = service["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|c| c["lastTransitionTime"].clone())
            .collect();
        assert_eq!(times, [super::NO_TIME; 2]);
        let wrong = json!({"status": {"conditions": [{"type": 1}]}});
        assert!((kinds::by_kind("v1", "Service").unwrap().decode)(wrong.to_string().as_bytes()).is_err());
    }

    #[test]
    fn what_is_of_another_type_is_still_refused() {
        for object in [
            json!({"spec": {"hostNetwork": ""}}),
            json!({"spec": {"nodeName": false}}),
            json!({"spec": {"nodeName": []}}),
        ] {
            let row = kinds::by_kind("v1", "Pod").unwrap();
            assert!((row.decode)(object.to_string().as_bytes()).is_err(), "{object}");
        }
    }
}
