//! Requests that carry an id: each is run once, also when it is sent again because its answer was lost.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::failure::{Exit, Failure};
use super::reply::Reply;
use crate::apps::sealed::SecretDigest;
use crate::workspace::{Records, Workspace};

/// Ids remembered; the oldest go.
const IDS_MAX: usize = 256;
/// Data of a reply that is remembered, in bytes of JSON; longer ones are answered without.
const DATA_LEN_MAX: usize = 16 * 1024;
/// Longest table, in bytes.
const TABLE_LEN_MAX: usize = 64 * 1024 * 1024;
const NAME: &str = "ids";

/// The ids that were seen.
pub(super) struct Ids {
    records: Records,
    known: Mutex<Option<VecDeque<Known>>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Known {
    id: String,
    /// What was asked, as a digest, without secrets.
    asked: String,
    /// What was secret in it. Only the mount that was asked knows it.
    #[serde(skip)]
    secret: Option<SecretDigest>,
    /// `None` while it runs, or when a crash left unknown how it ended.
    reply: Option<Reply>,
    #[serde(skip)]
    running: bool,
}

/// What is asked.
pub(super) struct Asking {
    /// Digest of all that is no secret, in hexadecimal digits.
    pub(super) what: String,
    /// Digest of what is.
    pub(super) secret: Option<SecretDigest>,
}

/// What to do with a request.
pub(super) enum Before {
    /// Run it.
    New,
    /// It was run; this came of it.
    Done(Box<Reply>),
}

impl Ids {
    pub(super) fn new(workspace: &Workspace) -> Self {
        Self { records: workspace.records("control"), known: Mutex::new(None) }
    }

    /// Notes, durably, that the request with this id is begun.
    pub(super) fn begin(&self, id: &str, asked: Asking) -> Result<Before, Failure> {
        let mut known = self.known.lock();
        let known = self.loaded(&mut known)?;
        if let Some(found) = known.iter().find(|known| known.id == id) {
            return match (&found.reply, found.running) {
                _ if asked.secret.is_some() && found.secret.is_none() && found.asked == asked.what => {
                    let message = format!("an earlier mount was asked something with the id `{id}`, perhaps this");
                    Err(Failure::new(Exit::Interrupted, message)
                        .hint("its job says what came of it; then ask with another id"))
                }
                _ if found.asked != asked.what || found.secret != asked.secret => {
                    Err(Failure::new(Exit::Usage, format!("the id `{id}` was that of another request"))
                        .hint("every request has an id of its own"))
                }
                (Some(reply), _) => Ok(Before::Done(Box::new(reply.clone()))),
                (None, true) => Err(Failure::new(Exit::Locked, format!("the request with the id `{id}` is running"))
                    .hint("ask again with the same id when it may be done")),
                (None, false) => {
                    let message = format!("the mount ended while the request with the id `{id}` ran");
                    Err(Failure::new(Exit::Interrupted, message)
                        .hint("look whether it was done, then ask with another id"))
                }
            };
        }
        let Asking { what, secret } = asked;
        known.push_back(Known { id: id.to_owned(), asked: what, secret, reply: None, running: true });
        if known.len() > IDS_MAX {
            // What is under way must be known when it is asked for again.
            let oldest = known.iter().position(|known| !known.running).unwrap_or(0);
            known.remove(oldest);
        }
        self.write(known).inspect_err(|_| drop(known.pop_back()))?;
        Ok(Before::New)
    }

    /// Notes what came of it.
    pub(super) fn end(&self, id: &str, reply: &Reply) {
        let mut known = self.known.lock();
        let Some(known) = known.as_mut() else { return };
        if let Some(found) = known.iter_mut().find(|known| known.id == id) {
            let mut reply = reply.clone();
            if reply.data.to_string().len() > DATA_LEN_MAX {
                reply.data = serde_json::Value::Null;
            }
            (found.reply, found.running) = (Some(reply), false);
        }
        if let Err(error) = self.write(known) {
            tracing::warn!("the answer to the request `{id}` is not remembered after this mount: {}", error.message);
        }
    }

    fn loaded<'a>(&self, known: &'a mut Option<VecDeque<Known>>) -> Result<&'a mut VecDeque<Known>, Failure> {
        if known.is_none() {
            let bytes = self.records.read(NAME, TABLE_LEN_MAX)?;
            let table = bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose();
            let table = table.map_err(|error| {
                Failure::new(Exit::Damaged, format!("the table of request ids is damaged: {error}"))
                    .hint("leave the id away, or remove `control/ids` from the state directory")
            })?;
            *known = Some(table.unwrap_or_default());
        }
        Ok(known.get_or_insert_default())
    }

    fn write(&self, known: &VecDeque<Known>) -> Result<(), Failure> {
        let bytes = serde_json::to_vec(known).map_err(|error| {
            Failure::new(Exit::Other, format!("the table of request ids cannot be written: {error}"))
        })?;
        Ok(self.records.write(NAME, &bytes)?)
    }
}
