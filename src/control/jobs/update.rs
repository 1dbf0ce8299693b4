//! The job `update`: replaces one document of a file of sealed documents in the workspace.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{JobContext, Prepared};
use crate::apps::sealed::{Machine, RequestSecrets, SystemProcesses, check_in_workspace, update_in_workspace};
use crate::base::clock::SystemClock;
use crate::base::disk::RealDisk;
use crate::control::table::{Arg, ArgKind, Command, Run};
use crate::control::{Exit, Failure, PathText, Reply};
use crate::workspace::Workspace;

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
    #[serde(default)]
    no_backup: bool,
}

fn prepare(request: Value, secrets: Option<RequestSecrets>) -> Result<Prepared, Failure> {
    // The reason is not told: it may quote what is secret.
    let not_understood = || Failure::new(Exit::Usage, "the update is not understood").hint(HINT);
    let secrets = secrets.ok_or_else(not_understood)?;
    let request: Request = serde_json::from_value(request).map_err(|_| not_understood())?;
    let names = request.file.names().filter(|names| !names.is_empty());
    let names =
        names.ok_or_else(|| Failure::new(Exit::Usage, format!("`{}` is no file of the workspace", request.file)))?;
    let path: Vec<Vec<u8>> = names.into_iter().map(<[u8]>::to_vec).collect();
    let backup = !request.no_backup;
    let shown = json!({ "file": request.file, "no_backup": request.no_backup });
    let secret = Some(secrets.digest());
    let place = path.clone();
    let check = move |workspace: &Workspace| {
        let place: Vec<&[u8]> = place.iter().map(Vec::as_slice).collect();
        Ok(check_in_workspace(workspace, &place)?)
    };
    let work = move |context: &JobContext| update(context, &path, backup, &secrets);
    Ok(Prepared { shown, secret, resume: false, outside: None, check: Some(Box::new(check)), work: Box::new(work) })
}

fn update(context: &JobContext, path: &[Vec<u8>], backup: bool, secrets: &RequestSecrets) -> Result<Reply, Failure> {
    let machine =
        Machine { disk: Arc::new(RealDisk), clock: Arc::new(SystemClock), processes: Arc::new(SystemProcesses) };
    let path: Vec<&[u8]> = path.iter().map(Vec::as_slice).collect();
    context.progress(0, 1, "opening the document and writing it anew");
    let (workspace, document) = (context.workspace(), secrets.document.as_bytes());
    let done = update_in_workspace(&machine, workspace, (&path, backup), document, &secrets.credentials)?;
    context.progress(1, 1, "written");
    let data = json!({
        "uuid": done.uuid.to_string(),
        "revision": done.result.revision,
        "bytes_free": done.result.free,
        "backup": done.backup.as_deref().map(PathText::from),
    });
    Ok(Reply::done(format!("written as revision {}", done.result.revision), data))
}
