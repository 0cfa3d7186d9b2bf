//! Who is asking.

use std::collections::BTreeMap;

use api::well_known::{
    GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_NODES, GROUP_SERVICE_ACCOUNTS, GROUP_UNAUTHENTICATED, USER_ANONYMOUS,
    USER_NODE_PREFIX, USER_SERVICE_ACCOUNT_PREFIX,
};

/// An authenticated identity.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:node:box1`.
    pub name: String,
    /// Groups, `system:authenticated` among them.
    pub groups: Vec<String>,
    /// Tells apart users of one name, where the authenticator knows.
    pub uid: Option<String>,
    /// Whatever else the authenticator knows.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// A user in `groups`, and in `system:authenticated`.
    pub fn new(name: impl Into<String>, groups: impl IntoIterator<Item = impl Into<String>>) -> User {
        let mut groups: Vec<String> = groups.into_iter().map(Into::into).collect();
        if !groups.iter().any(|g| g == GROUP_AUTHENTICATED) {
            groups.push(GROUP_AUTHENTICATED.to_owned());
        }
        User { name: name.into(), groups, ..User::default() }
    }

    /// A cluster admin: a member of `system:masters`.
    pub fn master(name: impl Into<String>) -> User {
        User::new(name, [GROUP_MASTERS])
    }

    /// A service account, as its tokens say who it is.
    pub fn service_account(namespace: &str, name: &str) -> User {
        let groups = [GROUP_SERVICE_ACCOUNTS.to_owned(), format!("{GROUP_SERVICE_ACCOUNTS}:{namespace}")];
        User::new(format!("{USER_SERVICE_ACCOUNT_PREFIX}{namespace}:{name}"), groups)
    }

    /// The name of the node, if this is one.
    pub(crate) fn node(&self) -> Option<&str> {
        self.name.strip_prefix(USER_NODE_PREFIX).filter(|node| !node.is_empty() && self.is_in(GROUP_NODES))
    }

    /// Whoever shows no credentials.
    pub fn anonymous() -> User {
        let groups = vec![GROUP_UNAUTHENTICATED.to_owned()];
        User { name: USER_ANONYMOUS.to_owned(), groups, ..User::default() }
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
