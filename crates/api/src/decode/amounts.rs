//! Where amounts and times with microseconds are. The typed decoder takes any text for the one and more than Go's for the
//! other; Go's reads them (`Quantity.UnmarshalJSON`, `MicroTime.UnmarshalJSON`), so that what is none is refused before
//! anything else is looked at. The table of messages knows.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::micro_time;
use crate::kinds::KindInfo;
use crate::protobuf::{self, Holds, Many};
use crate::quantity::Quantity;

/// Of messages that hold some, somewhere below them: the fields these are in.
static FIELDS: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(protobuf::fields_with_amounts);

type Field = (&'static str, Many, Holds);

/// What there is of them at a place in an object; none, by default.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Below(Option<(Many, Holds)>);

impl Below {
    /// At the root of an object of this kind.
    pub(super) fn of(info: &KindInfo) -> Below {
        let found = FIELDS.get_key_value(protobuf::message_name(&info.api_version(), info.kind).as_str());
        Below(found.map(|(message, _)| (Many::One, Holds::Message(message))))
    }

    /// Why Go's decoder does not take this text for what is to be there.
    pub(super) fn problem(self, text: &str) -> Option<String> {
        match self.0 {
            Some((Many::One, Holds::Amount)) => text.trim().parse::<Quantity>().err().map(|error| error.to_string()),
            Some((Many::One, Holds::MicroTime)) => micro_time::error(text),
            _ => None,
        }
    }

    /// At each place of the list that is there.
    pub(super) fn in_list(self) -> Below {
        Below(self.0.filter(|(many, _)| *many == Many::List).map(|(_, holds)| (Many::One, holds)))
    }

    /// In a field of what is there.
    pub(super) fn in_field(self, name: &str) -> Below {
        Below(match self.0 {
            Some((Many::Map, holds)) => Some((Many::One, holds)),
            Some((Many::One, Holds::Message(message))) => field(message, name),
            _ => None,
        })
    }
}

fn field(message: &str, name: &str) -> Option<(Many, Holds)> {
    FIELDS.get(message)?.iter().find(|(field, ..)| *field == name).map(|(_, many, holds)| (*many, *holds))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::decode::{not_handled, scan};
    use crate::kinds;

    fn refusal(kind: &str, object: &Value) -> Option<String> {
        let info = kinds::by_kind("v1", kind).unwrap().info;
        let found = scan::scan(info, object.to_string().as_bytes()).unwrap();
        found.misread.map(|error| not_handled(info, &error).to_string())
    }

    #[test]
    fn an_amount_is_looked_at_wherever_it_is() {
        let container = |amount: &str| json!([{"name": "c"}, {"name": "d", "resources": {"limits": {"cpu": amount}}}]);
        let divisor = json!([{"env": [{"name": "A", "valueFrom": {"resourceFieldRef": {"divisor": "many"}}}]}]);
        let of_template = json!({"spec": {"template": {"spec": {"containers": container("many")}}}});
        let cases = [
            ("Pod", json!({"spec": {"containers": container("1")}}), false),
            ("Pod", json!({"spec": {"containers": container(" 1 ")}}), false),
            ("Pod", json!({"spec": {"containers": container("many")}}), true),
            ("Pod", json!({"spec": {"initContainers": container("")}}), true),
            ("Pod", json!({"spec": {"containers": divisor}}), true),
            ("Pod", json!({"spec": {"overhead": {"memory": null}}}), false),
            ("Pod", json!({"spec": {"volumes": [{"emptyDir": {"sizeLimit": "many"}}]}}), true),
            // A subresource's part is one, too, and what only looks like an amount is none.
            ("Pod", json!({"status": {"containerStatuses": [{"allocatedResources": {"cpu": "many"}}]}}), true),
            ("Pod", json!({"metadata": {"annotations": {"cpu": "many"}}, "limits": {"cpu": "many"}}), false),
            ("ReplicationController", of_template, true),
            ("ResourceQuota", json!({"spec": {"hard": {"pods": "many"}}}), true),
            ("LimitRange", json!({"spec": {"limits": [{"max": {"cpu": "many"}}]}}), true),
            ("Node", json!({"status": {"capacity": {"cpu": "many"}}}), true),
            ("ConfigMap", json!({"data": {"cpu": "many"}}), false),
        ];
        for (kind, object, is_refused) in cases {
            assert_eq!(refusal(kind, &object).is_some(), is_refused, "{kind} {object}");
        }
        let said = refusal("ResourceQuota", &json!({"spec": {"hard": {"pods": "1KM"}}}));
        let expected =
            "ResourceQuota in version \"v1\" cannot be handled as a ResourceQuota: unable to parse quantity's suffix";
        assert_eq!(said.as_deref(), Some(expected));
    }
}
