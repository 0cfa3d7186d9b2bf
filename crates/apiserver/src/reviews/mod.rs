//! The questions about identities and rights.

mod self_subject;
mod token;

pub(crate) use self_subject::who_am_i;
pub(crate) use token::whose_is_it;
