//! The questions about identities and rights.

mod self_subject;

pub(crate) use self_subject::who_am_i;
