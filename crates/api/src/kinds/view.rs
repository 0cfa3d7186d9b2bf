//! Views: kinds that show the objects of another kind in other words. One object is stored; reading it through the view
//! converts it, writing it through the view converts it back.

use super::{Kind, by_resource};
use crate::decode::{Decoded, decode};
use crate::field::ErrorList;
use crate::object::{Object, Resource};

/// How a kind shows the objects of another one of the same plural.
#[derive(Debug)]
pub struct View {
    /// Group of the stored kind.
    pub group: &'static str,
    /// Makes the JSON of this kind from that of the stored one.
    pub show: fn(&[u8]) -> Vec<u8>,
    /// Adds what is wrong with a stored object that was written in these words to what always may be, and says all of it in
    /// these words.
    pub validate: fn(new: &dyn Object, old: Option<&dyn Object>, errors: &mut ErrorList),
}

/// A type that shows another one's objects.
pub(crate) trait Viewing: Resource {
    /// What is stored.
    type Stored: Resource;
    /// This object as it is stored.
    fn store(self) -> Self::Stored;
    /// A stored object in these words.
    fn show(stored: Self::Stored) -> Self;
    /// Puts into an object that cannot be decoded what Go's decoder has for what is not there; whether anything was missing.
    fn mend(_object: &mut serde_json::Value) -> bool {
        false
    }
    /// See [`View::validate`].
    fn validate_stored(new: &Self::Stored, old: Option<&Self::Stored>, errors: &mut ErrorList);
    /// The row's view.
    const VIEW: View = View { group: Self::Stored::INFO.group, show: show::<Self>, validate: validate::<Self> };
}

fn show<T: Viewing>(stored: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<T::Stored>(stored) {
        Ok(stored) => T::show(stored).encode(),
        // What the server stored it can decode; should it not, better the bytes than nothing.
        Err(_) => stored.to_vec(),
    }
}

fn validate<T: Viewing>(new: &dyn Object, old: Option<&dyn Object>, errors: &mut ErrorList) {
    if let Some(new) = new.as_any().downcast_ref() {
        T::validate_stored(new, old.and_then(|o| o.as_any().downcast_ref()), errors);
    }
}

impl Kind {
    /// The row for `T`, which shows objects of another kind. It decodes into what is stored.
    pub(crate) const fn viewing<T: Viewing>() -> Kind {
        Kind {
            info: &T::INFO,
            decode: &|bytes| {
                let mended = |error| {
                    let mut value = serde_json::from_slice(bytes).unwrap_or_default();
                    if T::mend(&mut value) { decode::<T>(value.to_string().as_bytes()) } else { Err(error) }
                };
                let Decoded { object, strict_errors, misread } = decode::<T>(bytes).or_else(mended)?;
                let typed = object.as_any().downcast_ref::<T>().cloned().unwrap_or_default();
                Ok(Decoded { object: Box::new(typed.store()), strict_errors, misread })
            },
            schema: &|generator| generator.subschema_for::<T>(),
            makes_up_names: T::MAKES_UP_NAMES,
            stays: T::stays,
            view: Some(&T::VIEW),
        }
    }

    /// The row of what is stored: this one, unless it is a view.
    pub fn stored(&'static self) -> &'static Kind {
        let Some(view) = self.view else { return self };
        by_resource(view.group, self.info.version, self.info.plural).unwrap_or(self)
    }

    /// A stored object as this kind shows it, or `None` if that is as it is stored.
    pub fn show(&self, stored: &[u8]) -> Option<Vec<u8>> {
        self.view.map(|view| (view.show)(stored))
    }
}
