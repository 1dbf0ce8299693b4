//! The files that publishers, reviewers and signers leave to each other, for who has one's bytes and not its place.

use serde::Serialize;
use serde::de::DeserializeOwned;
use tough::schema::{Role, Root, Signed, Snapshot, Targets, Timestamp};

use super::error::Result;
use super::keys::{Person, bad};
use super::newest;
use super::pack::Draft;
use super::proposal::Proposal;
use super::publish::Archived;
use super::review::{Memory, is_plain_offer, is_plain_root};

/// What a file may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Something to be signed.
    Proposal,
    /// The public keys of somebody who signs elsewhere.
    PublicKeys,
    /// What a directory of keys knows of repositories.
    Repositories,
    /// What was signed with the keys of a directory.
    Signed,
    /// `package.json` as its author writes it.
    Draft,
    /// What is kept of a version that was cleaned up.
    Archived,
    /// Metadata of The Update Framework: which keys count.
    Root,
    /// What is offered.
    Targets,
    /// Which list of offers is the newest.
    Snapshot,
    /// That it still is.
    Timestamp,
}

/// Whether the bytes of the file `name` are of a form. Signatures are looked at only where the form demands it.
pub fn check_form(form: Form, bytes: &[u8], name: &str) -> Result<()> {
    match form {
        Form::Proposal => Proposal::parse(bytes, name).map(drop),
        Form::PublicKeys => Person::parse(bytes, name).map(drop),
        Form::Repositories => newest::parse(bytes, name).map(drop),
        Form::Signed => Memory::parse(bytes, name).map(drop),
        Form::Draft => Draft::parse(bytes, name).map(drop),
        Form::Archived => Archived::parse(bytes, name).map(drop),
        Form::Root => metadata::<Root>(bytes, name, is_plain_root),
        Form::Targets => metadata::<Targets>(bytes, name, is_plain_offer),
        Form::Snapshot => metadata::<Snapshot>(bytes, name, |_| true),
        Form::Timestamp => metadata::<Timestamp>(bytes, name, |_| true),
    }
}

/// Reads metadata as far as what its signatures are checked against.
fn metadata<T: Role + Serialize + DeserializeOwned>(
    bytes: &[u8],
    name: &str,
    is_plain: impl Fn(&T) -> bool,
) -> Result<()> {
    let signed: Signed<T> = serde_json::from_slice(bytes).map_err(|error| bad(name, error))?;
    signed.signed.canonical_form().map_err(|error| bad(name, error))?;
    if is_plain(&signed.signed) { Ok(()) } else { Err(bad(name, "it says something that this program does not know")) }
}
