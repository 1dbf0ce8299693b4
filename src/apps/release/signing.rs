//! Requests of those who sign: keys, and what several people sign in different places.

use std::path::Path;

use super::anchor::Anchor;
use super::audit::Line;
use super::error::{ReleaseError, Result};
use super::keys::{self, Person};
use super::proposal::Proposal;
use super::publish::Desk;
use super::publisher;
use super::request::{Reply, Request, Signing};
use super::sign::{Expiry, Signer};
use crate::workspace::Workspace;

/// Makes keys and a root; the root counts at once, or (with `to_sign`) when others have signed it.
pub(super) fn keygen(request: &Request, now: jiff::Timestamp, to_sign: Option<&Path>) -> Result<Reply> {
    let Request::Keygen { keys, count, threshold, with } = request else {
        unreachable!("called for this request alone");
    };
    let people: Vec<Person> = with.iter().map(|path| Person::read(path)).collect::<Result<_>>()?;
    let thresholds = keys::thresholds(Path::new(keys), *count, *threshold)?;
    keys::make_root(Path::new(keys), thresholds, &people, (Expiry::default(), now), to_sign)?;
    let what = "`trust` makes of them what the clients of a channel have to be given";
    Ok(Reply::Said(format!("keys are in {keys}; {what}")))
}

/// Makes the keys of one person, or gives away again what is public of them.
pub(super) fn key(keys: &str, to: &str) -> Result<Reply> {
    let (root, targets) = keys::person(Path::new(keys), Path::new(to))?;
    let ids = format!("for roots {root}, for targets {targets}");
    Ok(Reply::Said(format!("keys are in {keys}; a publisher names them by {to}: {ids}")))
}

/// Writes what clients of a channel have to be given.
pub(super) fn trust(keys: &str, channel: &str, to: &str) -> Result<Reply> {
    Signer::open(Path::new(keys), Expiry::default())?.anchor(channel)?.write(Path::new(to))?;
    Ok(Reply::Said(format!("{to} is for the clients of channel {channel}; give it to them by a way that is trusted")))
}

/// Does not do what is asked, and writes what others have to sign for it: `write` does, to the same file.
pub(super) fn propose(request: &Request, to: &str, write: impl FnOnce() -> Result<Reply>) -> Result<Reply> {
    let path = Path::new(to);
    if path.exists() {
        return Err(ReleaseError::Disk { path: to.to_owned(), reason: "it is there already".to_owned() });
    }
    if is_among_keys(path, request) {
        let reason = "it would lie among the keys, and is given away; name a file elsewhere".to_owned();
        return Err(ReleaseError::Disk { path: to.to_owned(), reason });
    }
    let reply = write()?;
    // Where nothing changes, there is nothing to sign.
    if path.exists() { Ok(Reply::Signing(Proposal::read(to)?.signing())) } else { Ok(reply) }
}

/// Whether a file would lie in the directory of keys that a request names.
fn is_among_keys(path: &Path, request: &Request) -> bool {
    let (Request::Keygen { keys, .. }
    | Request::Publish { keys, .. }
    | Request::Promote { keys, .. }
    | Request::Rollout { keys, .. }
    | Request::Channel { keys, .. }
    | Request::Advance { keys, .. }
    | Request::Cleanup { keys, .. }) = request
    else {
        return false;
    };
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    path.parent().is_some_and(|dir| real(dir).starts_with(real(Path::new(keys))))
}

/// Signs what somebody else wrote to be signed, or only says what it is.
pub(super) fn sign(file: &str, keys: &str, trust: Option<&str>, trial: bool) -> Result<Reply> {
    let trust = trust.map(|trust| Anchor::read(Path::new(trust))).transpose()?;
    Proposal::read(file)?.sign(Path::new(file), Path::new(keys), trust.as_ref(), trial).map(Reply::Signing)
}

/// Does what was written to be signed.
pub(super) fn complete(workspace: &Workspace, files: &[String], keys: &str, repository: Option<&str>) -> Result<Reply> {
    let mut copies = files.iter().map(|file| Proposal::read(file));
    let no_file =
        || ReleaseError::NotNamed { what: "nothing is completed".to_owned(), missing: "a file that was signed" };
    let mut proposal = copies.next().ok_or_else(no_file)??;
    copies.try_for_each(|copy| proposal.merge(copy?))?;
    proposal.check_complete()?;
    let Signing { what, .. } = proposal.signing();
    match proposal.offer()? {
        Some((targets, files)) => {
            let missing = "the repository that it was written for";
            let no_place = || ReleaseError::NotNamed { what: format!("{what} is an offer"), missing };
            let desk = Desk::open(workspace, repository.ok_or_else(no_place)?, keys, None)?;
            let lines = desk.complete(targets, &files)?;
            for Line { what: word, package, version, text } in &lines {
                publisher::note(workspace, word, (package, version), &format!("{text} ({what})"))?;
            }
            let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
            Ok(Reply::Said(format!("{what} is published: {}", texts.join("; "))))
        }
        None => {
            proposal.adopt(Path::new(keys))?;
            let text = format!("{what} counts; it goes to the clients with the next publication");
            publisher::note(workspace, "root", ("", ""), &text)?;
            Ok(Reply::Said(text))
        }
    }
}
