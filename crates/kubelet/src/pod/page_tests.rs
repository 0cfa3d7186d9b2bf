//! `docs/pods.md` names every field a pod may have: what serves it, or who refuses it.

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, Lifecycle, PodSecurityContext, PodSpec, Probe, SecurityContext,
};
use serde::Deserialize;
use serde::de::value::Error;
use serde::de::{Deserializer, Error as _, Visitor};

/// Takes down the names of a type's fields when it asks to be read.
#[derive(Default)]
struct Fields(Vec<&'static str>);

impl<'de> Deserializer<'de> for &mut Fields {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("only fields are asked for"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        self.0 = fields.to_vec();
        Err(Error::custom("that is all"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<T: for<'de> Deserialize<'de>>() -> Vec<&'static str> {
    let mut fields = Fields::default();
    assert!(T::deserialize(&mut fields).is_err());
    assert!(!fields.0.is_empty());
    fields.0
}

#[test]
fn pods_page_names_every_field_once() {
    let page = include_str!("../../../../docs/pods.md");
    let groups = [
        ("spec", fields::<PodSpec>()),
        ("container", fields::<Container>()),
        ("container", vec!["targetContainerName"]),
        ("lifecycle", fields::<Lifecycle>()),
        ("probe", fields::<Probe>()),
        ("spec.securityContext", fields::<PodSecurityContext>()),
        ("container.securityContext", fields::<SecurityContext>()),
    ];
    assert_eq!(fields::<EphemeralContainer>().len(), fields::<Container>().len() + 1);
    let mut rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    for (group, fields) in groups {
        for field in fields {
            let row = format!("| `{group}.{field}` | ");
            let found = rows.iter().position(|line| line.starts_with(&row) && line.len() > row.len() + 3);
            rows.remove(found.unwrap_or_else(|| panic!("docs/pods.md does not say what becomes of {group}.{field}")));
        }
    }
    assert_eq!(rows, [""; 0], "there are no such fields");
}
