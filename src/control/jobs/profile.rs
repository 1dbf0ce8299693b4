//! The job `profile`: installs, upgrades, lists and takes away sets of files.

use serde_json::{Map, Value, json};

use super::{JobContext, Prepared};
use crate::apps::profile::Request;
use crate::apps::sealed::RequestSecrets;
use crate::control::table::{Arg, ArgKind, Command, Run};
use crate::control::{Exit, Failure, profile_done};

/// The command.
pub const COMMAND: Command = Command {
    name: "profile",
    summary: "Installs, upgrades, lists and takes away sets of files, each change as one version",
    args: &[
        Arg::place(
            "do",
            ArgKind::Text,
            "`plan`, `install`, `upgrade`, `uninstall`, `rollback`, `resolve`, `list`, `verify`",
        ),
        Arg::place("name", ArgKind::Text, "the profile").optional(),
        Arg::option("from", ArgKind::OutsidePath, "the directory that holds one directory for each profile"),
        Arg::option("from_workspace", ArgKind::Path, "the same, inside the workspace").called("from-workspace"),
        Arg::option("force", ArgKind::Flag, "put new files beside those that are in the way"),
        Arg::option("restore_missing", ArgKind::Flag, "bring back files that were removed").called("restore-missing"),
        Arg::option("frozen", ArgKind::Flag, "refuse anything that is not what the lock file says"),
        Arg::option("commit", ArgKind::Text, "the commit it is made from"),
        Arg::option("provider", ArgKind::Text, "who provides it"),
        Arg::option("source", ArgKind::Text, "where the provider has it from"),
        Arg::option("to", ArgKind::Text, "the install that `rollback` goes back to"),
        Arg::option("path", ArgKind::Path, "the file that `resolve` is about; it may stand by its place"),
        Arg::option("take", ArgKind::Text, "what `resolve` leaves: `mine`, `theirs` or `both`"),
        Arg::option("dry_run", ArgKind::Flag, "only say what would be done").called("dry-run").short('n'),
    ],
    run: Run::Job(prepare),
};

/// What stands by its place after `resolve` is the path of a file, and no profile.
pub(in crate::control) fn place(fields: &mut Map<String, Value>) {
    let resolves = fields.get("do").is_some_and(|word| word == "resolve");
    if resolves
        && !fields.contains_key("path")
        && let Some(path) = fields.remove("name")
    {
        fields.insert("path".to_owned(), path);
    }
}

fn prepare(mut request: Value, _: Option<RequestSecrets>) -> Result<Prepared, Failure> {
    if let Some(fields) = request.as_object_mut() {
        if fields.get("do").is_some_and(|word| word == "plan") {
            fields.insert("do".to_owned(), "install".into());
            fields.insert("dry_run".to_owned(), true.into());
        }
        if let Some(Value::String(dir)) = fields.get("from") {
            let place = json!({ "directory": dir });
            fields.insert("from".to_owned(), place);
        }
        if let Some(path) = fields.remove("from_workspace") {
            let path = path.as_str().map(|path| path.trim_start_matches('/').to_owned());
            fields.insert("from".to_owned(), json!({ "workspace": path }));
        }
        if let Some(Value::String(path)) = fields.get("path") {
            let path = path.trim_start_matches('/').to_owned();
            fields.insert("path".to_owned(), path.into());
        }
    }
    let asked: Request = serde_json::from_value(request.clone())
        .map_err(|error| Failure::new(Exit::Usage, format!("the request is not understood: {error}")))?;
    let work = move |context: &JobContext| Ok(profile_done(context.workspace(), &asked));
    Ok(Prepared { shown: request, secret: None, resume: false, outside: None, check: None, work: Box::new(work) })
}
