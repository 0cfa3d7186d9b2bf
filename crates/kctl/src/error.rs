//! What went wrong, as `kubectl` would say it (`k8s.io/kubectl/pkg/cmd/util/helpers.go`, `StandardErrorMessage`).

use serde_json::Value;

/// A failed run, or a failed part of one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered with a Status.
    #[error("{}", status_message(status, doing.as_deref()))]
    Status {
        /// The Status object.
        status: Value,
        /// What was being done (`error when creating "web.yaml"`), where the message needs it.
        doing: Option<String>,
    },
    /// The server could not be reached.
    #[error("{}", unreachable_message(server, message))]
    Unreachable {
        /// Its address.
        server: String,
        /// Why.
        message: String,
    },
    /// Something is wrong on this side.
    #[error("error: {0}")]
    Message(String),
    /// The output cannot be written.
    #[error("error: {0}")]
    Output(#[source] std::io::Error),
    /// Several things went wrong.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

impl Error {
    /// An error on this side.
    pub fn message(text: impl Into<String>) -> Error {
        Error::Message(text.into())
    }

    /// Says what was being done when the server refused.
    #[must_use]
    pub fn when(self, doing: impl Into<String>) -> Error {
        match self {
            Error::Status { status, .. } => Error::Status { status, doing: Some(doing.into()) },
            Error::Message(text) => Error::Message(format!("{}: {text}", doing.into())),
            other => other,
        }
    }

    /// The reason of a Status.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Error::Status { status, .. } => status["reason"].as_str(),
            _ => None,
        }
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.reason() == Some("NotFound")
    }

    /// Whether the reader of our output went away (`kctl get pods | head`).
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Error::Output(error) if error.kind() == std::io::ErrorKind::BrokenPipe)
    }
}

/// Nothing, the one error, or all of them.
pub fn all(mut errors: Vec<Error>) -> Result<(), Error> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}

fn status_message(status: &Value, doing: Option<&str>) -> String {
    let reason = status["reason"].as_str().unwrap_or("");
    let message = status["message"].as_str().unwrap_or("unknown");
    let doing = doing.map(|d| format!("{d}: ")).unwrap_or_default();
    match reason {
        "Unauthorized" => format!("error: You must be logged in to the server ({doing}{message})"),
        "Invalid" if status["details"]["causes"].as_array().is_some_and(|c| !c.is_empty()) => invalid_message(status),
        "" => format!("Error from server: {doing}{message}"),
        reason => format!("Error from server ({reason}): {doing}{message}"),
    }
}

/// `The Pod "web" is invalid: spec.containers: Required value`, or a list.
fn invalid_message(status: &Value) -> String {
    let details = &status["details"];
    let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
    let causes: Vec<String> = details["causes"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|cause| match text(&cause["field"]).as_str() {
            "" => text(&cause["message"]),
            field => format!("{field}: {}", text(&cause["message"])),
        })
        .collect();
    let head = format!("The {} \"{}\" is invalid", text(&details["kind"]), text(&details["name"]));
    match causes.as_slice() {
        [only] => format!("{head}: {only}"),
        many => format!("{head}: {}", many.iter().map(|c| format!("\n* {c}")).collect::<String>()),
    }
}

fn unreachable_message(server: &str, message: &str) -> String {
    if message.contains("refused") {
        return format!("The connection to the server {server} was refused - did you specify the right host or port?");
    }
    format!("Unable to connect to the server: {message}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_read_as_in_kubectl() {
        let cause = |field: &str| json!({"field": field, "message": "Required value"});
        let invalid = |causes: Vec<Value>| json!({"reason": "Invalid", "message": "m", "details": {"kind": "Pod", "name": "web", "causes": causes}});
        for (status, doing, expected) in [
            (
                json!({"reason": "NotFound", "message": "pods \"x\" not found"}),
                None,
                "Error from server (NotFound): pods \"x\" not found",
            ),
            (
                json!({"reason": "AlreadyExists", "message": "pods \"x\" already exists"}),
                Some("error when creating \"x.yaml\""),
                "Error from server (AlreadyExists): error when creating \"x.yaml\": pods \"x\" already exists",
            ),
            (json!({"message": "boom"}), None, "Error from server: boom"),
            (
                json!({"reason": "Unauthorized", "message": "Unauthorized"}),
                None,
                "error: You must be logged in to the server (Unauthorized)",
            ),
            (invalid(vec![cause("spec.a")]), None, "The Pod \"web\" is invalid: spec.a: Required value"),
            (
                invalid(vec![cause("spec.a"), cause("spec.b")]),
                None,
                "The Pod \"web\" is invalid: \n* spec.a: Required value\n* spec.b: Required value",
            ),
        ] {
            let error = Error::Status { status, doing: doing.map(str::to_owned) };
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn a_refused_connection_names_the_server() {
        let error =
            Error::Unreachable { server: "127.0.0.1:6443".into(), message: "Connection refused (os error 111)".into() };
        let expected =
            "The connection to the server 127.0.0.1:6443 was refused - did you specify the right host or port?";
        assert_eq!(error.to_string(), expected);
    }
}
