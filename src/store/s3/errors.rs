//! What an error of the SDK means.

use std::error::Error;

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

use super::Inner;
use crate::store::{ObjectKey, StoreError};

/// The request that failed.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    /// The IAM action it needs.
    pub action: &'static str,
    /// The object; none for listings.
    pub key: Option<&'a ObjectKey>,
    /// Whether it is a put with a condition, which may have happened although it failed.
    pub conditional: bool,
}

impl<'a> Call<'a> {
    /// A request about an object that may be repeated.
    pub fn new(action: &'static str, key: &'a ObjectKey) -> Self {
        Self { action, key: Some(key), conditional: false }
    }
}

/// The HTTP status of the answer, if there was one.
pub(super) fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Translates an error of the SDK.
pub(super) fn classify<E>(inner: &Inner, call: Call<'_>, error: &SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
{
    let reason = chain(error);
    match error {
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
            let code = error.code().unwrap_or_default();
            let text = [code, error.message().unwrap_or_default()].join(" ");
            let text = if text.trim().is_empty() { &reason } else { text.trim() };
            answered(inner, call, status(error).unwrap_or_default(), code, text)
        }
        _ if reason.contains("redential") || reason.contains("dentity") => StoreError::Denied {
            action: call.action,
            target: inner.target(call.key),
            reason: format!(
                "no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile ({reason})"
            ),
        },
        SdkError::ConstructionFailure(_) => StoreError::Invalid { target: inner.target(call.key), reason },
        _ => unanswered(inner, call, reason),
    }
}

/// The request may or may not have reached the server.
pub(super) fn unanswered(inner: &Inner, call: Call<'_>, reason: String) -> StoreError {
    match call.key {
        Some(key) if call.conditional => StoreError::OutcomeUnknown { key: key.clone(), reason },
        _ => StoreError::Unreachable { store: inner.address.clone(), reason },
    }
}

fn answered(inner: &Inner, call: Call<'_>, status: u16, code: &str, text: &str) -> StoreError {
    let target = inner.target(call.key);
    let denied = |reason: String| StoreError::Denied { action: call.action, target: target.clone(), reason };
    match (status, code, call.key) {
        (_, "NoSuchBucket", _) => StoreError::NoStore { store: inner.address.clone() },
        (404, "NoSuchKey" | "NotFound", Some(key)) | (409 | 412, _, Some(key)) if call.conditional => {
            StoreError::Precondition { key: key.clone() }
        }
        (404, "NoSuchKey" | "NotFound", Some(key)) => StoreError::NotFound { key: key.clone() },
        (_, "InvalidAccessKeyId" | "NotSignedUp", _) => {
            denied(format!("the store does not know the access key ({code}); check the credentials"))
        }
        (_, "SignatureDoesNotMatch", _) => {
            denied(format!("the secret key does not belong to the access key ({code}); check the credentials"))
        }
        (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "RequestExpired", _) => {
            denied(format!("the credentials have expired or are not valid ({code}); log in again"))
        }
        (_, "RequestTimeTooSkewed", _) => denied(format!("this machine's clock is wrong ({code})")),
        (_, "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException", _)
        | (301 | 307, _, _) => StoreError::Invalid {
            target,
            reason: format!("the bucket lies in another region; give it as region=… in the address ({status} {text})"),
        },
        (401 | 403, _, _) if call.action == "s3:GetObject" => {
            denied(format!("{text} (S3 answers so for an absent object too, unless s3:ListBucket is allowed)"))
        }
        (401 | 403, _, _) => denied(text.to_owned()),
        (408 | 409 | 429 | 500.., _, _) | (_, "SlowDown" | "RequestTimeout", _) => {
            unanswered(inner, call, format!("{status} {text}"))
        }
        (200..=299, _, _) => unanswered(inner, call, format!("the answer ({status}) cannot be read: {text}")),
        _ => StoreError::Invalid { target, reason: format!("{status} {text}; is the address right?") },
    }
}

/// The error and its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
