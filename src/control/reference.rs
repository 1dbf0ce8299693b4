//! The reference of control files, made from the command table.

use super::failure::Exit;
use super::table::{Arg, ArgKind, COMMANDS, Command, Run};

/// `docs/control.md`; a test holds the file against this.
pub fn reference() -> String {
    let mut text = String::from(HEAD);
    text.push_str("\n## Codes\n\n| code | exit | errno of the write |\n|---|---|---|\n");
    for (exit, errno) in ERRNOS {
        text.push_str(&format!("| `{}` | {} | {errno} |\n", exit.word(), exit.code()));
    }
    text.push_str("\n## Commands\n");
    COMMANDS.iter().for_each(|command| text.push_str(&section(command)));
    text
}

const ERRNOS: [(Exit, &str); 13] = [
    (Exit::Ok, "none"),
    (Exit::Partial, "none; the answer says what was not done"),
    (Exit::Other, "`EIO`"),
    (Exit::Usage, "`EINVAL`"),
    (Exit::NoWorkspace, "`ENOENT`"),
    (Exit::Locked, "`EBUSY`"),
    (Exit::WrongKey, "`EACCES`"),
    (Exit::Damaged, "`EIO`"),
    (Exit::Denied, "`EACCES`"),
    (Exit::Unreachable, "`EHOSTUNREACH`"),
    (Exit::RolledBack, "`ESTALE`"),
    (Exit::Conflict, "`ESTALE`"),
    (Exit::Interrupted, "`ECANCELED`"),
];

const HEAD: &str = r#"# Control files

Made from the command table of the program; a test keeps it true.

Each command has a file in `.kura/ctl`, for the owner of the mount alone. Write a request, read the answer from
the same descriptor; another descriptor reads the file's last answer. `.kura/ctl/run` takes any command: a JSON
object with `op`, or a line that begins with the command's name; it always answers with JSON, and its writes do
not fail for what was asked.

A request is **a line** (the arguments, with the quoting of a shell and nothing expanded) or **one JSON
object**. A line is complete with a newline outside of quotes, or when a descriptor is closed; an object with
its last brace. It may come in several writes, through duplicated descriptors, at any offset; `O_TRUNC` and
`O_APPEND` change nothing. No other file can be made in `.kura/ctl` and none renamed to a command, so an editor
has to save in place. What is not complete when the last descriptor is closed is not run, and
`.kura/ctl/last_error` says so.

An answer in JSON is one line: `ok`, `code` (a stable word), `exit` (the exit code of the command line),
`message`, perhaps `hint`, and `data`. The answer to a line is the message, the hint, and, where there is a
list, its items, each a line of JSON.

Paths are from the folder whose `.kura` it is; with a `/` before them, from the workspace's root. In JSON, a
path that is not UTF-8 is `{"hex": "…"}`.

Every request can carry, in JSON or as `--id`, `--expect-parent` and `--dry-run`:

| field | what |
|---|---|
| `id` | 1 to 128 bytes. What was asked with it is answered and not run again; for commands that change |
| `expect_parent` | selects a version. Unless it is the newest as the request begins (a job: is taken), `conflict` |
| `dry_run` | only checks the request (of `update` also the file, no password), or says what it would do where it can |

A field that is not known is refused, as is a request of more than 1 MiB.

## Jobs

The answer to a command that is a job has `data.job`, its id. `.kura/jobs/ID/` holds:

| file | what |
|---|---|
| `request` | what was asked, without secrets |
| `status` | a word: `queued`, `running`, `done`, `failed`, `cancelled` or `interrupted` |
| `progress` | `DONE/TOTAL WHAT` |
| `log` | a line for each thing it said, with its time |
| `result` | the answer in JSON; empty until it ends |
| `cancel` | write anything to end the job |
"#;

fn section(command: &Command) -> String {
    let kind = match command.run {
        Run::Look => "",
        Run::Change => " Changes the workspace.",
        Run::Job(_) => " A job.",
        Run::Reading(_) => " A job; changes nothing.",
    };
    let mut text =
        format!("\n### `{}`\n\n{}.{kind}\n\n```text\n{}\n```\n", command.name, command.summary, command.usage());
    if !command.args.is_empty() {
        text.push_str("\n| field | type | what |\n|---|---|---|\n");
        command.args.iter().for_each(|arg| text.push_str(&row(arg)));
    }
    text
}

fn row(arg: &Arg) -> String {
    let kind = match arg.kind {
        ArgKind::Flag => "true or false",
        ArgKind::Text => "text",
        ArgKind::Number => "number",
        ArgKind::DurationMs => "milliseconds; `30s` in a line",
        ArgKind::Size => "bytes; `20MiB` in a line",
        ArgKind::Path => "path",
        ArgKind::OutsidePath => "absolute path outside",
        ArgKind::Json => "JSON",
    };
    let many = if arg.many { "list of " } else { "" };
    let needed = if arg.required { " (needed)" } else { "" };
    format!("| `{}` | {many}{kind} | {}{needed} |\n", arg.name, arg.help)
}
