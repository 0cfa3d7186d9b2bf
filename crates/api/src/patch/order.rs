//! The order of merged lists (`normalizeElementOrder` in `k8s.io/apimachinery/pkg/util/strategicpatch`).

use std::collections::HashMap;

use serde_json::Value;

/// What makes two elements of a merged list the same one: the value under the merge key, or the scalar itself.
pub(super) fn identity(item: &Value, merge_key: Option<&str>) -> Option<String> {
    let value = match merge_key {
        Some(key) => item.get(key)?,
        None => item,
    };
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Where each element stands in a list; of equal ones the first counts.
pub(super) fn positions(list: &[Value], merge_key: Option<&str>) -> HashMap<String, usize> {
    let mut positions = HashMap::new();
    for (i, item) in list.iter().enumerate() {
        if let Some(identity) = identity(item, merge_key) {
            positions.entry(identity).or_insert(i);
        }
    }
    positions
}

/// Orders `merged`: elements the patch speaks of come in the patch's order, the others in the server's, and both are
/// woven together so that an element only the server knows stays before one that followed it there. Where the
/// server's order decides nothing, the patch's elements come first.
pub(super) fn ordered(
    merged: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    merge_key: Option<&str>,
) -> Vec<Value> {
    let (patch, server) = (positions(patch_order, merge_key), positions(server_order, merge_key));
    let place =
        |order: &HashMap<String, usize>, item: &Value| identity(item, merge_key).and_then(|i| order.get(&i).copied());
    let (mut ours, mut theirs): (Vec<Value>, Vec<Value>) = merged.into_iter().partition(|i| place(&patch, i).is_some());
    ours.sort_by_key(|item| place(&patch, item));
    theirs.sort_by_key(|item| place(&server, item).unwrap_or(usize::MAX));

    let mut woven = Vec::with_capacity(ours.len() + theirs.len());
    let mut theirs = theirs.into_iter().peekable();
    for item in ours {
        let mine = place(&server, &item);
        while let Some(other) = theirs.next_if(|other| match (place(&server, other), mine) {
            (Some(other), Some(mine)) => other < mine,
            _ => false,
        }) {
            woven.push(other);
        }
        woven.push(item);
    }
    woven.extend(theirs);
    woven
}

/// Whether the elements of `part` stand in `whole` in the same order; elements that are not there do not count.
pub(super) fn is_subsequence(part: &[Value], whole: &[Value], merge_key: Option<&str>) -> bool {
    let whole = positions(whole, merge_key);
    let places: Vec<usize> = part.iter().filter_map(|i| whole.get(&identity(i, merge_key)?).copied()).collect();
    places.is_sorted()
}
