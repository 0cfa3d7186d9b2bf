//! Why an API server does not start or stops serving.

use std::path::PathBuf;

/// Why an API server does not start or stops serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A line of the token file is malformed.
    #[error("{}: line {line}: {reason}", path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The audit policy cannot be used.
    #[error("{}: {reason}", path.display())]
    AuditPolicy {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate or key in the data directory is damaged, or none can be made.
    #[error("certificates: {0}")]
    Certificate(String),
    /// The cluster in the store is another master's, whose keys are not here.
    #[error(
        "the store holds a cluster, and {} has no keys of it: bring them from a master of that cluster \
         (master export-keys there, master import-keys here)", data_dir.display()
    )]
    NoKeys {
        /// Where they are looked for.
        data_dir: PathBuf,
    },
    /// The names of the issuer of service account tokens cannot be used.
    #[error("service account issuer: {0}")]
    Issuer(String),
    /// The join token in the data directory is damaged.
    #[error("join token: {0}")]
    JoinToken(String),
    /// The store does not answer.
    #[error("store")]
    Store(#[from] store::Error),
    /// An object every cluster has cannot be written.
    #[error("cannot write {what}: {reason}")]
    Bootstrap {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
    /// The listener does not work.
    #[error("listener")]
    Listener(#[source] std::io::Error),
}
