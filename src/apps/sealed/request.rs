//! A request to update a document, as text: what is secret is taken out before anybody else sees it.

use std::sync::LazyLock;

use zeroize::Zeroizing;

use super::error::{Result, SealedError};
use super::ids::{Credentials, ShareIds};
use super::json::{JsonError, members, string};
use crate::crypto::document::{RootKey, on_wiped_stack};
use crate::crypto::slots::Secret;

/// What is secret in a request. All of it is wiped on drop.
#[derive(Debug)]
pub struct RequestSecrets {
    /// Password and ids of the document.
    pub credentials: Credentials,
    /// Its new content, byte for byte as it stands in the request.
    pub document: NewDocument,
}

/// The new content of a document; no object of JSON unless it was checked.
pub struct NewDocument(Zeroizing<Vec<u8>>);

impl NewDocument {
    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for NewDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewDocument({} bytes)", self.0.len())
    }
}

/// What tells one request's secrets from another's, within this process only.
pub type SecretDigest = [u8; 32];

impl RequestSecrets {
    /// The digest of all of it under a key that this process alone has, and only while it lives: without it, nobody can
    /// try passwords against the digest.
    pub fn digest(&self) -> SecretDigest {
        static KEY: LazyLock<RootKey> = LazyLock::new(RootKey::random);
        let (password, document) = (self.credentials.password.as_bytes(), self.document.as_bytes());
        let ids = self.credentials.ids.as_slice();
        // Nothing grows, so nothing is left behind where it was.
        let mut all = Zeroizing::new(Vec::with_capacity(8 + password.len() + 2 * ids.len() + document.len()));
        all.extend_from_slice(&(password.len() as u64).to_le_bytes());
        all.extend_from_slice(password);
        ids.iter().for_each(|id| all.extend_from_slice(&id.to_le_bytes()));
        all.extend_from_slice(document);
        on_wiped_stack(|| KEY.authenticate(&all))
    }
}

/// Takes `password` (a text), `ids` (a list of numbers) and `document` (an object) out of a request, which is one JSON
/// object, and gives the request without them: that may be parsed by anything, recorded, logged, answered with.
///
/// The request itself is the caller's to wipe. Parsers into values keep pieces of what they read in memory that nobody
/// wipes, and write numbers and names anew in another form; so what is secret must not reach one.
///
/// Fails as [`SealedError::Request`] when it is no such request, also when it names more than one document, and as
/// `Ids`; no error repeats anything of the request.
pub fn take_secrets(request: &[u8]) -> Result<(Vec<u8>, RequestSecrets)> {
    on_wiped_stack(|| take(request))
}

/// The text that a request gives for `op`, which is no secret; nothing where it has none. Nothing else of the request
/// is kept, nor repeated by an error.
pub fn named_operation(request: &[u8]) -> Result<Option<String>> {
    on_wiped_stack(|| {
        for (name, value) in members(request).map_err(not_json)? {
            let value = &request[value];
            if value.starts_with(b"\"") && string(&request[name]).map_err(not_json)?[..] == *b"op" {
                let text = string(value).map_err(not_json)?;
                return Ok(Some(String::from_utf8_lossy(&text).into_owned()));
            }
        }
        Ok(None)
    })
}

fn take(request: &[u8]) -> Result<(Vec<u8>, RequestSecrets)> {
    let (mut password, mut ids, mut document) = (None, None, None);
    let mut rest = Vec::with_capacity(request.len());
    for (name, value) in members(request).map_err(not_json)? {
        let text = &request[value.clone()];
        match &string(&request[name.clone()]).map_err(not_json)?[..] {
            b"password" if text.starts_with(b"\"") => password = Some(string(text).map_err(not_json)?),
            b"ids" => ids = Some(list(text)?),
            b"document" if text.starts_with(b"{") => document = Some(NewDocument(Zeroizing::new(text.to_vec()))),
            b"password" | b"document" => return Err(incomplete()),
            _ => {
                rest.push(if rest.is_empty() { b'{' } else { b',' });
                rest.extend_from_slice(&request[name.start..value.end]);
            }
        }
    }
    if rest.is_empty() {
        rest.push(b'{');
    }
    rest.push(b'}');
    let (Some(password), Some(ids), Some(document)) = (password, ids, document) else { return Err(incomplete()) };
    let credentials = Credentials { password: Secret::from(password), ids };
    Ok((rest, RequestSecrets { credentials, document }))
}

/// A list of numbers; its text is taken apart where it is.
fn list(text: &[u8]) -> Result<ShareIds> {
    let inside = text.strip_prefix(b"[").and_then(|text| text.strip_suffix(b"]"));
    let inside = inside.and_then(|inside| std::str::from_utf8(inside).ok());
    ShareIds::parse(inside.ok_or_else(incomplete)?)
}

fn incomplete() -> SealedError {
    SealedError::Request(
        "it needs `password`, a text, `ids`, a list of numbers, and one `document`, an object".to_owned(),
    )
}

fn not_json(error: JsonError) -> SealedError {
    SealedError::Request(error.to_string())
}
