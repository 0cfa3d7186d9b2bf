//! Whether every amount in an object is one. The typed decoder takes any text for an amount; Go's reads it
//! (`Quantity.UnmarshalJSON`), so that what is none is refused before anything else is looked at.
//!
//! Where amounts are is known from the table of messages. What cannot hold one is skipped.

use std::collections::HashMap;
use std::fmt;
use std::sync::LazyLock;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{DecodeError, scan};
use crate::kinds::KindInfo;
use crate::protobuf::{self, Holds, Many};
use crate::quantity::{ParseQuantityError, Quantity};

/// Of messages that hold amounts, somewhere below them: the fields these are in.
static FIELDS: LazyLock<HashMap<&'static str, Vec<Field>>> = LazyLock::new(protobuf::fields_with_amounts);

type Field = (&'static str, Many, Holds);

/// Refuses the first text in an object of this kind that should be an amount and is none. The object has been decoded.
pub fn check_amounts(info: &KindInfo, bytes: &[u8]) -> Result<(), DecodeError> {
    let message = protobuf::message_name(&info.api_version(), info.kind);
    let Some((message, _)) = FIELDS.get_key_value(message.as_str()) else { return Ok(()) };
    let mut wrong = None;
    let walk = Walk { many: Many::One, holds: Holds::Message(message), wrong: &mut wrong };
    // Text that is no JSON has been refused.
    let _ = walk.deserialize(&mut serde_json::Deserializer::from_slice(bytes));
    let Some(error) = wrong else { return Ok(()) };
    let (kind, version) = (info.kind, info.version);
    let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}");
    Err(DecodeError::Type { path: String::new(), message })
}

struct Walk<'w> {
    many: Many,
    holds: Holds,
    wrong: &'w mut Option<ParseQuantityError>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// Values of another type than they should have are somebody else's business.
impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    pass_over!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64));

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if (self.many, self.holds) == (Many::One, Holds::Amount) && self.wrong.is_none() {
            *self.wrong = text.trim().parse::<Quantity>().err();
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        if self.many != Many::List {
            while list.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        }
        let Walk { holds, wrong, .. } = self;
        while list.next_element_seed(Walk { many: Many::One, holds, wrong: &mut *wrong })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Walk { many, holds, wrong } = self;
        while let Some(key) = map.next_key_seed(scan::Key)? {
            let below = match (many, holds) {
                (Many::Map, _) => Some((Many::One, holds)),
                (Many::One, Holds::Message(message)) => field(message, &key),
                _ => None,
            };
            match below {
                Some((many, holds)) => map.next_value_seed(Walk { many, holds, wrong: &mut *wrong })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }
}

fn field(message: &str, name: &str) -> Option<(Many, Holds)> {
    FIELDS.get(message)?.iter().find(|(field, ..)| *field == name).map(|(_, many, holds)| (*many, *holds))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds;

    fn refusal(kind: &str, object: &Value) -> Option<String> {
        let info = kinds::by_kind("v1", kind).unwrap().info;
        check_amounts(info, object.to_string().as_bytes()).err().map(|error| error.to_string())
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
