//! The questions about identities and rights.

mod access;
mod rules;
mod self_subject;
mod token;

pub(crate) use access::{may_i, may_they, may_they_here};
pub(crate) use rules::what_may_i;
pub(crate) use self_subject::{user_info, who_am_i};
pub(crate) use token::whose_is_it;
