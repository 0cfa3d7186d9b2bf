//! What lies below an object and is not the object.

pub(crate) mod binding;
pub(crate) mod eviction;
pub(crate) mod kubelet;
pub(crate) mod log;
pub(crate) mod scale;
pub(crate) mod token;
