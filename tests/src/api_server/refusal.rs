//! The errors of the API: a code, a reason of a closed set, and the `Status` object that says so.

use serde_json::{Value, json};

use super::kind::Kind;

/// Why a request was refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub code: u16,
    pub message: String,
    details: Value,
}

impl Refusal {
    pub(super) fn new(code: u16, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Value::Null }
    }

    fn about(kind: &Kind, name: &str, code: u16, message: String) -> Self {
        let details = json!({ "name": name, "group": kind.group, "kind": kind.plural });
        Self { code, message, details }
    }

    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified(kind.plural));
        Self::about(kind, name, 404, message)
    }

    pub(super) fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified(kind.plural));
        let mut refusal = Self::about(kind, name, 409, message);
        refusal.details["exists"] = Value::Bool(true);
        refusal
    }

    pub(super) fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let on = kind.qualified(kind.plural);
        let message = format!("Operation cannot be fulfilled on {on} {name:?}: {why}");
        Self::about(kind, name, 409, message)
    }

    /// All that is wrong with an object, each with its field path in front.
    pub(super) fn invalid(kind: &Kind, name: &str, wrongs: &[String]) -> Self {
        let what = kind.qualified(kind.name);
        let list = match wrongs {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        Self::about(kind, name, 422, format!("{what} {name:?} is invalid: {list}"))
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, message)
    }

    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, format!("too old resource version: {asked} ({oldest})"))
    }

    /// The `reason` that clients match on (`StatusReason*` in apimachinery's `types.go`).
    pub fn reason(&self) -> &'static str {
        match self.code {
            400 => "BadRequest",
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            409 if self.details.get("exists").is_some() => "AlreadyExists",
            409 => "Conflict",
            410 => "Expired",
            415 => "UnsupportedMediaType",
            422 => "Invalid",
            429 => "TooManyRequests",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "InternalError",
        }
    }

    /// The object that goes over the wire.
    pub(super) fn to_status(&self) -> Value {
        let mut details = self.details.clone();
        if let Some(fields) = details.as_object_mut() {
            fields.remove("exists");
        }
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason(),
            "code": self.code,
        });
        if !details.is_null() {
            status["details"] = details;
        }
        status
    }
}
