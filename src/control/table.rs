//! The command table: what can be asked, in which words. The command line and the control files take the same.

use super::jobs::Prepare;

/// What an argument is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArgKind {
    /// Given or not.
    Flag,
    /// Any text.
    Text,
    /// A whole number.
    Number,
    /// `500ms`, `30s`, `5m`, `2h`; in JSON a number of milliseconds.
    DurationMs,
    /// `4096`, `500MiB`; in JSON a number of bytes.
    Size,
    /// A path, from the folder that the `.kura` belongs to; with a `/` before it, from the workspace's root.
    Path,
    /// An absolute path outside of the workspace.
    OutsidePath,
    /// Any JSON value; a secret one, or one that has no text form. Only in JSON.
    Json,
}

/// One argument of a command.
#[derive(Clone, Copy, Debug)]
pub struct Arg {
    /// Its name in JSON.
    pub name: &'static str,
    /// Its option in the text form, without dashes; `None` when it stands by its place.
    pub option: Option<&'static str>,
    /// Its short option.
    pub short: Option<char>,
    /// What it is.
    pub kind: ArgKind,
    /// Whether it must be given.
    pub required: bool,
    /// Whether it may be given again; a list in JSON.
    pub many: bool,
    /// What the option means without a value.
    pub implied: Option<&'static str>,
    /// What it is for.
    pub help: &'static str,
}

impl Arg {
    const fn new(name: &'static str, kind: ArgKind, help: &'static str) -> Self {
        Self { name, option: Some(name), short: None, kind, required: false, many: false, implied: None, help }
    }

    /// An option that takes a value, or a flag.
    pub const fn option(name: &'static str, kind: ArgKind, help: &'static str) -> Self {
        Self::new(name, kind, help)
    }

    /// An argument that stands by its place and must be given.
    pub const fn place(name: &'static str, kind: ArgKind, help: &'static str) -> Self {
        Self { option: None, required: true, ..Self::new(name, kind, help) }
    }

    /// Another name for the option in the text form.
    pub const fn called(self, option: &'static str) -> Self {
        Self { option: Some(option), ..self }
    }

    /// A short option.
    pub const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// May be left out.
    pub const fn optional(self) -> Self {
        Self { required: false, ..self }
    }

    /// May be given again.
    pub const fn many(self) -> Self {
        Self { many: true, required: false, ..self }
    }

    /// What the option means without a value.
    pub const fn implied(self, value: &'static str) -> Self {
        Self { implied: Some(value), ..self }
    }
}

/// How a command is run.
#[derive(Clone, Copy)]
pub enum Run {
    /// It is a [`Request`](super::Request) of the same name and only looks.
    Look,
    /// It is a request of the same name and changes something.
    Change,
    /// It is work that goes on after the reply.
    Job(Prepare),
    /// As [`Job`](Self::Job), and it changes nothing in the workspace.
    Reading(Prepare),
}

impl Run {
    /// What prepares the work of a job.
    pub(super) fn prepare(self) -> Option<Prepare> {
        match self {
            Run::Look | Run::Change => None,
            Run::Job(prepare) | Run::Reading(prepare) => Some(prepare),
        }
    }
}

/// One command.
#[derive(Clone, Copy)]
pub struct Command {
    /// Its name: the operation in JSON, the file in `.kura/ctl`, the command of the command line.
    pub name: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Its arguments, those with a place in their order.
    pub args: &'static [Arg],
    /// How it is run.
    pub run: Run,
}

const fn look(name: &'static str, summary: &'static str, args: &'static [Arg]) -> Command {
    Command { name, summary, args, run: Run::Look }
}

const fn change(name: &'static str, summary: &'static str, args: &'static [Arg]) -> Command {
    Command { name, summary, args, run: Run::Change }
}

pub(super) const VERSION: Arg =
    Arg::place("version", ArgKind::Text, "the version: `latest~2`, an id or its first digits, a name, a time");
pub(super) const PATHS: Arg = Arg::place("paths", ArgKind::Path, "the paths; everything when there are none").many();
const SOME_PATHS: Arg = Arg { required: true, ..Arg::place("paths", ArgKind::Path, "the paths").many() };
pub(super) const READ_DATA: Arg =
    Arg::option("read_data", ArgKind::Text, "read content as well: a share (5%) or so many bytes (10GiB)")
        .called("read-data")
        .implied("100%");

/// All commands, by name.
pub const COMMANDS: &[Command] = &[
    super::jobs::batch::COMMAND,
    look(
        "blame",
        "Which version each line of a text file comes from",
        &[Arg::place("path", ArgKind::Path, "the file")],
    ),
    look("cancel", "Ends a job that is not needed any more", &[JOB]),
    super::jobs::reading::CHECK,
    look("config", "The settings that the mount began with, and where each came from", &[]),
    look("conflicts", "The files that lie beside others after conflicts", &[]),
    look(
        "diff",
        "What differs between two versions, or a version and the live tree",
        &[
            Arg::place("from", ArgKind::Text, "the version before"),
            Arg::place("to", ArgKind::Text, "the version after; the live tree when missing").optional(),
            Arg::place("path", ArgKind::Path, "only this path and what is below it").optional(),
            Arg::option("patch", ArgKind::Flag, "say which lines of text files differ").short('p'),
        ],
    ),
    super::jobs::reading::EXPORT,
    look(
        "find",
        "Paths by name, also deleted ones",
        &[
            Arg::place("pattern", ArgKind::Text, "what the last name must match, with `*` and `?`").optional(),
            Arg::option("below", ArgKind::Path, "only at and below this path"),
            Arg::option("deleted", ArgKind::Flag, "what earlier versions have and the newest does not"),
        ],
    ),
    change(
        "flush",
        "Records what changed and publishes everything",
        &[Arg::option("wait_ms", ArgKind::DurationMs, "how long to wait for the store; 0 tries once")
            .called("wait")
            .implied("600s")],
    ),
    change(
        "forget",
        "Takes versions from the list that no rule keeps",
        &[
            Arg::option(
                "keep",
                ArgKind::Json,
                "what to keep, e.g. {\"last\": 10}; the policy of the workspace when missing",
            ),
            Arg::option("mode", ArgKind::Text, "`apply`, `dry-run` or `set-policy`"),
        ],
    ),
    change(
        "gc",
        "Says what nobody needs, or frees it",
        &[
            Arg::option("delete", ArgKind::Flag, "free it"),
            Arg::option(
                "grace_ms",
                ArgKind::DurationMs,
                "how long objects stay after nobody needs them; a day when missing",
            )
            .called("grace"),
        ],
    ),
    look("job", "How a job is", &[JOB]),
    look("jobs", "The jobs, newest first", &[]),
    change(
        "lock",
        "Locks paths, so that only this client can change them and what is below them",
        &[
            SOME_PATHS,
            Arg::option("for_ms", ArgKind::DurationMs, "for how long; while it is mounted when missing").called("for"),
            Arg::option("break", ArgKind::Flag, "take away the locks of others"),
        ],
    ),
    look("locks", "The locks of all clients", &[]),
    look(
        "log",
        "The versions, newest first",
        &[
            Arg::option("max", ArgKind::Number, "at most so many").short('n'),
            Arg::option("from", ArgKind::Text, "begin with this version instead of the newest"),
            Arg::place("path", ArgKind::Path, "only those that changed this path, through its renames").optional(),
        ],
    ),
    look("metrics", "What the workspace and its mount count", &[]),
    change("pin", "Keeps the content of paths on this machine; lists what is kept without any", &[PATHS]),
    change(
        "policy",
        "Shows the policies for conflicts, after setting one",
        &[
            Arg::place(
                "policy",
                ArgKind::Text,
                "`keep-both`, `last-write-wins`, `ours`, `theirs`, `merge`, or `default`",
            )
            .optional(),
            Arg::place("pattern", ArgKind::Text, "for these paths only, with `*` and `?`").optional(),
        ],
    ),
    change("prefetch", "Fetches the content of paths into the cache of this machine", &[SOME_PATHS]),
    super::jobs::profile::COMMAND,
    change(
        "reencrypt",
        "Stores everything anew that is sealed under an earlier key epoch",
        &[Arg::option("limit", ArgKind::Size, "at most so many bytes a second")],
    ),
    super::jobs::release::COMMAND,
    change(
        "repair",
        "Checks, and repairs what can be repaired",
        &[READ_DATA, Arg::option("cut", ArgKind::Flag, "take out what is lost")],
    ),
    change(
        "resolve",
        "Settles the conflict of a path",
        &[
            Arg::place("path", ArgKind::Path, "the file, or the one beside it"),
            Arg {
                required: true,
                ..Arg::option("take", ArgKind::Text, "what stays: `ours`, `theirs`, `both` or `merge`")
            },
        ],
    ),
    change(
        "restore",
        "Makes the live tree, or paths in it, equal to a version",
        &[
            VERSION,
            PATHS,
            Arg::option("dry_run", ArgKind::Flag, "only say what would change").called("dry-run").short('n'),
        ],
    ),
    change("revert", "Undoes what a version changed, keeping what came after", &[VERSION]),
    look(
        "show",
        "One version",
        &[VERSION, Arg::option("changes", ArgKind::Flag, "list what it changed against its first parent")],
    ),
    change(
        "snapshot",
        "Records a version now",
        &[
            Arg::option("message", ArgKind::Text, "what to say of it").short('m'),
            Arg::option("name", ArgKind::Text, "a name to select it by"),
        ],
    ),
    look(
        "status",
        "The state of the workspace",
        &[Arg::option("files", ArgKind::Flag, "name the files that wait to be published")],
    ),
    look("stored", "What the store holds, and how that grew", &[]),
    change("sync", "Takes in what others published, and publishes", &[]),
    change("tag", "Gives a version a name", &[VERSION, Arg::place("name", ArgKind::Text, "the name")]),
    change(
        "undelete",
        "Brings back what was deleted, from the newest version that has it",
        &[
            Arg { required: true, ..Arg::place("paths", ArgKind::Path, "the paths").many() },
            Arg::option("dry_run", ArgKind::Flag, "only say what would come back").called("dry-run").short('n'),
        ],
    ),
    change("unlock", "Gives up locks of this client", &[SOME_PATHS]),
    change("unpin", "Keeps the content of paths no longer", &[SOME_PATHS]),
    change(
        "untag",
        "Takes a name away from a version; the version stays",
        &[Arg::place("name", ArgKind::Text, "the name")],
    ),
    super::jobs::update::COMMAND,
];

const JOB: Arg = Arg::place("job", ArgKind::Text, "the id of the job");

/// The command of a name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

impl Command {
    /// Whether it changes something.
    pub fn changes(&self) -> bool {
        !matches!(self.run, Run::Look | Run::Reading(_))
    }

    /// The text form, as a line of help.
    pub fn usage(&self) -> String {
        let mut words = vec![self.name.to_owned()];
        for arg in self.args.iter().filter(|arg| arg.kind != ArgKind::Json) {
            let value = arg.name.to_uppercase();
            words.push(match (arg.option, arg.kind, arg.implied) {
                (None, ..) if arg.many => format!("[{value}...]"),
                (None, ..) if arg.required => value,
                (None, ..) => format!("[{value}]"),
                (Some(option), ArgKind::Flag, _) => format!("[--{option}]"),
                (Some(option), _, Some(_)) => format!("[--{option}[={value}]]"),
                (Some(option), _, None) if arg.required => format!("--{option} {value}"),
                (Some(option), _, None) => format!("[--{option} {value}]"),
            });
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::Request;

    /// Operations that are not commands of their own: parts of unmounting, and what jobs do.
    const INNER: [&str; 4] = ["leave", "stop", "check", "export"];

    /// The words in backticks that follow "expected" in what serde says of a wrong word.
    fn expected(request: &serde_json::Value) -> Vec<String> {
        let said = serde_json::from_value::<Request>(request.clone()).unwrap_err().to_string();
        let list = said.split_once("expected").map_or("", |(_, list)| list);
        let mut words: Vec<String> = list.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        words.sort();
        words
    }

    #[test]
    fn the_table_holds_every_request_with_every_field() {
        let mut requests = expected(&serde_json::json!({ "op": "-" }));
        requests.retain(|name| !INNER.contains(&name.as_str()));
        let table = COMMANDS.iter().filter(|command| command.run.prepare().is_none());
        let mut names: Vec<&str> = table.clone().map(|command| command.name).collect();
        names.sort_unstable();
        assert_eq!(names, requests);
        for command in table {
            let mut args: Vec<&str> = command.args.iter().map(|arg| arg.name).collect();
            args.sort_unstable();
            assert_eq!(args, expected(&serde_json::json!({ "op": command.name, "-": 0 })), "{}", command.name);
        }
    }

    #[test]
    fn names_and_arguments_are_unambiguous() {
        assert!(COMMANDS.is_sorted_by_key(|command| command.name), "the table is sorted by name");
        for command in COMMANDS {
            assert!(command.args.iter().all(|arg| !["id", "expect_parent", "op"].contains(&arg.name)));
            let places: Vec<&Arg> = command.args.iter().filter(|arg| arg.option.is_none()).collect();
            let (optional, many) = (
                places.iter().position(|arg| !arg.required).unwrap_or(places.len()),
                places.iter().position(|arg| arg.many),
            );
            assert!(places[optional..].iter().all(|arg| !arg.required), "{}", command.name);
            assert!(many.is_none_or(|at| at + 1 == places.len()), "{}", command.name);
        }
    }
}
