//! The verbs of the API.

/// A verb, as discovery, authorizers and metrics name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// POST.
    Create,
    /// DELETE of one object.
    Delete,
    /// DELETE of a collection.
    DeleteCollection,
    /// GET of one object.
    Get,
    /// GET of a collection.
    List,
    /// PATCH.
    Patch,
    /// PUT.
    Update,
    /// GET of what changes from now on.
    Watch,
}

impl Verb {
    /// What a stored kind does.
    pub const ALL: &'static [Verb] = &[
        Verb::Create,
        Verb::Delete,
        Verb::DeleteCollection,
        Verb::Get,
        Verb::List,
        Verb::Patch,
        Verb::Update,
        Verb::Watch,
    ];

    /// The same for a stored kind whose collection is never deleted as a whole.
    pub const WITHOUT_DELETE_COLLECTION: &'static [Verb] =
        &[Verb::Create, Verb::Delete, Verb::Get, Verb::List, Verb::Patch, Verb::Update, Verb::Watch];

    /// What a question does: it is created, answered and forgotten.
    pub const CREATE_ONLY: &'static [Verb] = &[Verb::Create];

    /// What a kind does whose objects are made up when someone looks.
    pub const READ_ONLY: &'static [Verb] = &[Verb::Get, Verb::List];

    /// `deletecollection`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verb::Create => "create",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Patch => "patch",
            Verb::Update => "update",
            Verb::Watch => "watch",
        }
    }

    /// Whether the verb changes anything.
    pub const fn is_mutating(self) -> bool {
        !matches!(self, Verb::Get | Verb::List | Verb::Watch)
    }
}
