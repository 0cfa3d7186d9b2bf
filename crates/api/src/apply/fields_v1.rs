//! FieldsV1: a set of field paths as JSON (`fieldpath/serialize.go` of structured-merge-diff). `{}` is a member,
//! an object is what lies below, and `"."` in it says that the object itself is a member too.

use super::path::PathElement;
use super::scan;
use super::set::Set;

/// The most nested a path is read; objects are nested less.
const MAX_DEPTH: usize = 128;

/// Writes a set.
pub(super) fn write(set: &Set<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    if set.member && !set.children().is_empty() {
        out.extend_from_slice(br#"".":{}"#);
        out.push(b',');
    }
    for (index, (element, child)) in set.children().iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        element.write(out);
        out.push(b':');
        write(child, out);
    }
    out.push(b'}');
}

/// Reads a set; `None` for what is none.
pub(super) fn parse(json: &str) -> Option<Set<'_>> {
    // The root is not a field: nobody owns it.
    let mut set = parse_below(json, MAX_DEPTH)?;
    set.member = false;
    Some(set)
}

fn parse_below(json: &str, depth: usize) -> Option<Set<'_>> {
    if !json.starts_with('{') || depth == 0 {
        return None;
    }
    let fields = scan::fields(json);
    let mut set = Set::here(fields.is_empty());
    for (name, value) in fields {
        if name == "." {
            set.member = true;
        } else {
            set.attach(PathElement::parse(name)?, parse_below(value, depth - 1)?);
        }
    }
    Some(set)
}
