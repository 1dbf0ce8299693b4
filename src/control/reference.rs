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
    text.push_str("| `usage`, of a request that is too long | 2 | `EMSGSIZE`, also of `run` |\n");
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
the same descriptor; a file that is opened later begins with the last answer it gave to anybody. `.kura/ctl/run`
takes any command: a JSON object with `op`, or a line that begins with the command's name; it always answers with
JSON, and its writes do not fail for what was asked. Opened for reading only, it has the last answer it gave; opened
for writing, too, nothing until something was asked. Of an answer longer than 1 MiB, who did not ask gets the message
without the list.

A request is **a line** (the arguments, with the quoting of a shell and nothing expanded) or **one JSON
object**, in which no field may be given twice. A line is complete with a newline outside of quotes; an object with
its last brace, and only blanks may follow either in the same write. A request may come in several writes, through
duplicated descriptors, at any offset; `O_TRUNC` and `O_APPEND` change nothing. No other file can be made in
`.kura/ctl` and none renamed to a command, so an editor has to save in place.

A line without a newline ends when the process that opened the file closes its last descriptor of it, and that close
fails where the request does, which many programs do not look at. Descriptors that others inherited end nothing, so the
commands of `{ …; } > .kura/ctl/restore` write one line together. If another process is the last one to close
the file, the line is run then, with nobody to tell but `.kura/ctl/last_error`. An object that is not complete by then
is not run, and `last_error` says so; text that cannot become one, whatever follows, fails with the opener's last close.

While a request is begun and not complete, reading gives nothing. The position in the file is moved by what is written
and read, as in any file, and the answer begins where its first read is; reading before that place begins it anew. So
writing and reading may take turns, with or without seeking back:

```python
with open(".kura/ctl/run", "r+") as run:      # or buffering=0 and "rb+"
    run.write('{"op": "log", "max": 5}')
    run.flush()
    answer = json.loads(run.read())
```

```sh
exec 3<>.kura/ctl/run; echo 'log --max 5' >&3; cat <&3; exec 3>&-
```

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
| `dry_run` | fails as the request would, as far as can be looked up (no password is tried), or says what it would do |

A field that is not known is refused, as is a request of more than 1 MiB; after that a descriptor takes nothing more.

## Ending a mount

Two operations have no file of their own and are asked of `run`, in JSON. `{"op": "stop"}` publishes, for 30 seconds at
most, and then unmounts; close the descriptor once it has answered. `{"op": "leave", "wait_ms": 5000}` is for who
unmounts by other means: it fails (`partial`) while something written exists in memory alone because the disk is
full, and says how long the store is waited for when the mount ends. `kura unmount` asks `leave`, then `flush`, and
unmounts then.

## Extended attributes

Files and directories have these, which are not listed and cannot be set (unless mounted with `-o noxattr`):

| attribute | value |
|---|---|
| `user.kura.state` | where its content stands: see below |
| `user.kura.version` | the version that made it what it is, once that is recorded; of a past file, the one it is in |
| `user.kura.sha256` | what `sha256sum` prints, of what was closed last; missing while that is not known |
| `user.kura.lock` | `user@host` of who has locked the path; missing where nobody has |

The SHA-256 is not known while the file is written, for a moment after that, and for longer after edits inside of large
files. The states:

| state | what |
|---|---|
| `draft` | it is being written, or was not closed yet |
| `recovered` | a draft that was found after a kill; it is in versions once it is written and closed again, or synced |
| `closed` | on this machine, in no version yet |
| `recorded` | in a version, which waits on this machine, or of which it is not known whether the store has it |
| `published` | in a version in the store: the loss of this machine does not reach it |

Past files (`.kura/versions`, `.kura/history`) have `version` and `sha256` alone.

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
