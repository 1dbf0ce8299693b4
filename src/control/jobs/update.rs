//! The job `update`: replaces one document of a file of sealed documents in the workspace.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::{JobContext, Prepared};
use crate::apps::sealed::{Credentials, Machine, Place, ShareIds, SystemProcesses, update_file};
use crate::base::clock::SystemClock;
use crate::control::table::{Arg, ArgKind, Command, Run};
use crate::control::{Exit, Failure, PathText, Reply};
use crate::crypto::slots::Secret;

/// The command.
pub const COMMAND: Command = Command {
    name: "update",
    summary: "Replaces one document of a file of sealed documents; all others stay byte for byte",
    args: &[
        Arg::place("file", ArgKind::Path, "the file of sealed documents"),
        Arg { required: true, ..Arg::option("ids", ArgKind::Json, "the share ids of the document, as [3, 17, 40]") },
        Arg { required: true, ..Arg::option("password", ArgKind::Json, "its password; kept in memory only") },
        Arg { required: true, ..Arg::option("document", ArgKind::Json, "the new document, a JSON object") },
        Arg::option("no_backup", ArgKind::Flag, "keep no backup of what is replaced").called("no-backup"),
    ],
    run: Run::Job(prepare),
};

const HINT: &str =
    r#"write {"file": "a.sealed", "ids": [3, 17, 40], "password": "…", "document": {…}}, perhaps "no_backup": true"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    file: PathText,
    ids: Vec<u16>,
    password: Password,
    document: Value,
    #[serde(default)]
    no_backup: bool,
}

/// A password on its way; wiped when it is done with.
#[derive(Deserialize)]
struct Password(String);

impl Drop for Password {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

fn prepare(request: Value) -> Result<Prepared, Failure> {
    // The reason is not told: it may quote what is secret.
    let request: Request = serde_json::from_value(request)
        .map_err(|_| Failure::new(Exit::Usage, "the update is not understood").hint(HINT))?;
    let names = request.file.names().filter(|names| !names.is_empty());
    let names =
        names.ok_or_else(|| Failure::new(Exit::Usage, format!("`{}` is no file of the workspace", request.file)))?;
    let path = Path::new("/").join(OsStr::from_bytes(&names.join(&b'/')));
    let ids = ShareIds::new(&request.ids)?;
    let credentials = Credentials { password: Secret::new(request.password.0.as_bytes().to_vec()), ids };
    let document = Zeroizing::new(
        serde_json::to_vec(&request.document)
            .map_err(|error| Failure::new(Exit::Usage, format!("the document cannot be written as JSON: {error}")))?,
    );
    let place = Place { backup: !request.no_backup, ..Place::of(&path) };
    let shown = json!({ "file": request.file, "no_backup": request.no_backup });
    let work = move |context: &JobContext| update(context, &place, &document, &credentials);
    Ok(Prepared { shown, resume: false, work: Box::new(work) })
}

fn update(context: &JobContext, place: &Place, document: &[u8], credentials: &Credentials) -> Result<Reply, Failure> {
    let machine = Machine {
        disk: Arc::new(context.files().clone()),
        clock: Arc::new(SystemClock),
        processes: Arc::new(SystemProcesses),
    };
    context.progress(0, 1, "opening the document and writing it anew");
    let done = update_file(&machine, place, document, credentials)?;
    context.progress(1, 1, "written");
    let data = json!({
        "uuid": done.uuid.to_string(),
        "revision": done.result.revision,
        "bytes_free": done.result.free,
        "backup": done.backup.as_deref().map(PathText::from),
    });
    Ok(Reply::done(format!("written as revision {}", done.result.revision), data))
}
