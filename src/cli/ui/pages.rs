//! What there is to see: pages of rows, made from the answers of the workspace.

use serde_json::Value;

use crate::cli::history::data;
use crate::cli::output::{local_time, outcome, size};
use crate::cli::view::View;
use crate::control::{ChangeInfo, Exit, Failure, PathText, Request, VersionInfo};

/// Versions fetched at once.
pub const VERSIONS_MAX: usize = 200;
/// Most of a file that is shown, in bytes.
const TEXT_LEN_MAX: u64 = 512 * 1024;
/// Longest line that is shown, in characters.
const LINE_LEN_MAX: usize = 1_000;

/// Longest search for the smallest difference; after it, a larger one will do.
const SEARCH: std::time::Duration = std::time::Duration::from_secs(2);

/// How a row looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// As text.
    Plain,
    /// What there is more of.
    Added,
    /// What there is less of.
    Removed,
    /// What is another.
    Changed,
    /// Of less weight.
    Dim,
    /// What stands above others.
    Head,
}

/// What a row stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// Nothing that opens.
    #[default]
    None,
    /// A version.
    Version(String),
    /// What two versions have at a path, where the earlier one may have another name for it.
    Change { from: String, to: String, path: PathText, old: Option<PathText> },
    /// A directory of a version.
    Dir { version: String, path: PathText },
    /// A file of a version.
    File { version: String, path: PathText },
    /// A file with another beside it, in the version given.
    Conflict { version: String, path: PathText, beside: PathText },
}

/// One row.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its text; nothing in it moves the cursor.
    pub text: String,
    /// How it looks.
    pub look: Look,
    /// What it stands for.
    pub target: Target,
}

/// A screen of rows.
pub struct Page {
    /// What it is.
    pub title: String,
    /// Its rows.
    pub rows: Vec<Row>,
    /// The chosen row.
    pub selected: usize,
    /// The version that a list of versions goes on with.
    pub next: Option<String>,
    /// What is looked at as a whole.
    pub about: Target,
}

impl Row {
    fn new(text: impl AsRef<str>, look: Look, target: Target) -> Self {
        Self { text: printable(text.as_ref()), look, target }
    }

    fn plain(text: impl AsRef<str>) -> Self {
        Self::new(text, Look::Plain, Target::None)
    }
}

impl Page {
    fn new(title: impl AsRef<str>, rows: Vec<Row>, about: Target) -> Self {
        Self { title: printable(title.as_ref()), rows, selected: 0, next: None, about }
    }
}

/// A text without what a terminal would obey.
pub fn printable(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(LINE_LEN_MAX) {
        match c {
            '\t' => out.push_str("    "),
            c if c.is_control() => out.push('\u{fffd}'),
            // Marks that turn the direction of a line could make it read as another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// What a version is, in a line.
fn version_row(version: &VersionInfo) -> Row {
    let counts = version.counts;
    let names: String = version.names.iter().map(|name| format!("({name}) ")).collect();
    let what = version.message.as_deref().and_then(|message| message.lines().next()).unwrap_or(&version.origin);
    let changes = format!("+{} ~{} -{}", counts.added, counts.changed, counts.removed);
    let time = local_time(&version.time);
    let text = format!(
        "{}  {changes:12}  {:>11}  {}@{}  {names}{what}",
        time.get(..19).unwrap_or(&time),
        size(counts.bytes),
        version.user,
        version.host
    );
    let look = if version.message.is_some() || !version.names.is_empty() { Look::Plain } else { Look::Dim };
    Row::new(text, look, Target::Version(version.id.clone()))
}

/// The versions from `from` on, or from the newest.
pub fn timeline(view: &View, from: Option<String>) -> Result<Page, Failure> {
    let reply = view.ask(&Request::Log { max: Some(VERSIONS_MAX + 1), path: None, from })?;
    outcome(&reply)?;
    let mut versions: Vec<VersionInfo> = data(&reply)?;
    let next = versions.get(VERSIONS_MAX).map(|version| version.id.clone());
    versions.truncate(VERSIONS_MAX);
    let rows = versions.iter().map(version_row).collect();
    Ok(Page { next, ..Page::new(format!("Timeline: {}", reply.message), rows, Target::None) })
}

fn change_look(letter: char) -> Look {
    match letter {
        '+' => Look::Added,
        '-' => Look::Removed,
        'm' => Look::Dim,
        _ => Look::Changed,
    }
}

fn change_rows(changes: &[ChangeInfo], from: &str, to: &str) -> Vec<Row> {
    let row = |change: &ChangeInfo| {
        let slash = if change.kind == "directory" { "/" } else { "" };
        let old = change.from.as_ref().map(|old| format!("{old} -> ")).unwrap_or_default();
        let (path, before) = (change.path.clone(), change.from.clone());
        let target = Target::Change { from: from.to_owned(), to: to.to_owned(), path, old: before };
        Row::new(format!("{} {old}{}{slash}", change.letter, change.path), change_look(change.letter), target)
    };
    changes.iter().map(row).collect()
}

/// One version and what it changed.
pub fn version(view: &View, id: &str) -> Result<Page, Failure> {
    let found = view.data(&Request::Show { version: id.to_owned(), changes: true })?;
    let info: VersionInfo = parsed(&found["version"])?;
    let counts = info.counts;
    let head = |name: &str, text: &str| Row::new(format!("{name:9} {text}"), Look::Dim, Target::None);
    let mut rows = vec![
        head("recorded", &local_time(&info.time)),
        head("by", &format!("{}@{}, {}", info.user, info.host, info.origin)),
        head("holds", &format!("{} files, {} directories, {}", counts.files, counts.dirs, size(counts.bytes))),
        head("id", &info.id),
    ];
    rows.extend(info.message.iter().flat_map(|message| message.lines()).map(Row::plain));
    rows.push(Row::new(
        "files of this version",
        Look::Head,
        Target::Dir { version: info.id.clone(), path: PathText::default() },
    ));
    let first = rows.len() - 1;
    if let Some(parent) = info.parents.first() {
        let changes: Option<Vec<ChangeInfo>> = parsed(&found["changes"])?;
        rows.extend(change_rows(&changes.unwrap_or_default(), parent, &info.id));
    }
    let page = Page::new(format!("Version {}", info.names.first().unwrap_or(&info.id)), rows, Target::Version(info.id));
    Ok(Page { selected: first, ..page })
}

/// What differs between a version and now.
pub fn since(view: &View, id: &str) -> Result<Page, Failure> {
    let changes =
        view.data(&Request::Diff { from: id.to_owned(), to: None, path: PathText::default(), patch: false })?;
    let changes: Vec<ChangeInfo> = parsed(&changes)?;
    let newest = newest(view)?;
    let title = format!("{} differences since {id}", changes.len());
    Ok(Page::new(title, change_rows(&changes, id, &newest), Target::Version(id.to_owned())))
}

/// The lines that differ at a path between two versions.
pub fn change(view: &View, from: &str, to: &str, path: &PathText) -> Result<Page, Failure> {
    let (from_text, to_text) = (from.to_owned(), Some(to.to_owned()));
    let found = view.data(&Request::Diff { from: from_text, to: to_text, path: path.clone(), patch: true })?;
    let changes: Vec<ChangeInfo> = parsed(&found)?;
    let mut rows = Vec::new();
    for change in &changes {
        let Some(patch) = &change.patch else {
            rows.push(Row::new(format!("{} {}", change.letter, change.path), change_look(change.letter), Target::None));
            continue;
        };
        rows.extend(patch.lines().map(|line| Row::new(line, line_look(line), Target::None)));
    }
    let about = Target::File { version: to.to_owned(), path: path.clone() };
    Ok(Page::new(format!("Changes of {path}"), rows, about))
}

fn line_look(line: &str) -> Look {
    match line.as_bytes() {
        [b'+', b'+', b'+', ..] | [b'-', b'-', b'-', ..] => Look::Head,
        [b'+', ..] => Look::Added,
        [b'-', ..] => Look::Removed,
        [b'@', ..] => Look::Changed,
        _ => Look::Plain,
    }
}

/// A directory of a version.
pub fn dir(view: &View, version: &str, path: &PathText) -> Result<Page, Failure> {
    let listing = view.list(version, path)?;
    let mut rows = Vec::new();
    for item in &listing.items {
        let below = match path.0.is_empty() {
            true => item.name.clone(),
            false => PathText([path.0.as_slice(), b"/", &item.name.0].concat()),
        };
        let (slash, target) = match item.kind {
            "directory" => ("/", Target::Dir { version: version.to_owned(), path: below }),
            "file" => ("", Target::File { version: version.to_owned(), path: below }),
            _ => ("", Target::None),
        };
        let size = item.size.map(size).unwrap_or_default();
        let look = if target == Target::None { Look::Dim } else { Look::Plain };
        rows.push(Row::new(format!("{size:>10}  {}{slash}", item.name), look, target));
    }
    if listing.more > 0 {
        rows.push(Row::new(format!("{:>10}  and {} more", "", listing.more), Look::Dim, Target::None));
    }
    let title = format!("/{path} in version {version}");
    Ok(Page::new(title, rows, Target::Dir { version: version.to_owned(), path: path.clone() }))
}

/// The text of a file of a version.
pub fn file(view: &View, version: &str, path: &PathText) -> Result<Page, Failure> {
    let content = view.file(version, path)?;
    let bytes = content.read_first(TEXT_LEN_MAX)?;
    let mut rows: Vec<Row> = match bytes.contains(&0) {
        true => vec![Row::new(format!("no text, {}", size(content.size)), Look::Dim, Target::None)],
        false => String::from_utf8_lossy(&bytes).lines().map(Row::plain).collect(),
    };
    if content.size > bytes.len() as u64 {
        let text = format!("the first {} of {}", size(bytes.len() as u64), size(content.size));
        rows.push(Row::new(text, Look::Dim, Target::None));
    }
    let about = Target::File { version: version.to_owned(), path: path.clone() };
    Ok(Page::new(format!("{path} in version {version}"), rows, about))
}

/// What happened to a path.
pub fn history(view: &View, path: &PathText) -> Result<Page, Failure> {
    let found = view.data(&Request::Log { max: Some(VERSIONS_MAX), path: Some(path.clone()), from: None })?;
    let mut rows = Vec::new();
    for item in found.as_array().into_iter().flatten() {
        let info: VersionInfo = parsed(item)?;
        let letter = item["change"]["letter"].as_str().unwrap_or("?");
        let at: PathText = parsed(&item["change"]["path"])?;
        let row = version_row(&info);
        let target = match info.parents.first() {
            Some(parent) => {
                let old = parsed(&item["change"]["from"])?;
                Target::Change { from: parent.clone(), to: info.id.clone(), path: at, old }
            }
            None => Target::File { version: info.id.clone(), path: at },
        };
        rows.push(Row { text: format!("{letter} {}", row.text), look: row.look, target });
    }
    Ok(Page::new(format!("History of {path}"), rows, Target::None))
}

/// Who wrote which line.
pub fn blame(view: &View, path: &PathText) -> Result<Page, Failure> {
    let found = view.data(&Request::Blame { path: path.clone() })?;
    let mut rows = Vec::new();
    let mut last = String::new();
    for item in found.as_array().into_iter().flatten() {
        let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
        let version = text("version");
        let origin = match version == last {
            true => String::new(),
            false => format!("{} {}@{}", local_time(&text("time")).get(..16).unwrap_or(""), text("user"), text("host")),
        };
        let origin: String = origin.chars().take(32).collect();
        rows.push(Row::new(format!("{origin:32} │ {}", text("text")), Look::Plain, Target::Version(version.clone())));
        last = version;
    }
    Ok(Page::new(format!("Who wrote {path}"), rows, Target::None))
}

/// The files that lie beside others.
pub fn conflicts(view: &View) -> Result<Page, Failure> {
    let found = view.data(&Request::Conflicts {})?;
    let version = newest(view)?;
    let mut rows = Vec::new();
    for item in found.as_array().into_iter().flatten() {
        let (path, beside): (PathText, PathText) = (parsed(&item["path"])?, parsed(&item["beside"])?);
        let text = format!("{path}  <->  {beside}");
        rows.push(Row::new(text, Look::Plain, Target::Conflict { version: version.clone(), path, beside }));
    }
    let title = format!("Conflicts: {}", if rows.is_empty() { "none".to_owned() } else { rows.len().to_string() });
    Ok(Page::new(title, rows, Target::None))
}

/// What differs between two files, each of a version, under these names.
fn between(view: &View, files: [(&str, &PathText); 2], names: [&str; 2]) -> Result<Vec<Row>, Failure> {
    let text = |(version, path): (&str, &PathText)| -> Result<Option<String>, Failure> {
        let bytes = view.file(version, path)?.read_first(TEXT_LEN_MAX)?;
        Ok(if bytes.contains(&0) { None } else { Some(String::from_utf8_lossy(&bytes).into_owned()) })
    };
    Ok(match (text(files[0])?, text(files[1])?) {
        (Some(before), Some(after)) => {
            let diff = similar::TextDiff::configure().timeout(SEARCH).diff_lines(&before, &after);
            let patch = diff.unified_diff().header(names[0], names[1]).to_string();
            patch.lines().map(|line| Row::new(line, line_look(line), Target::None)).collect()
        }
        _ => vec![Row::new("they are no texts", Look::Dim, Target::None)],
    })
}

/// A path that has another name than before, and what differs besides.
pub fn renamed(view: &View, before: (&str, &PathText), after: (&str, &PathText)) -> Result<Page, Failure> {
    let (old, new) = (before.1.to_string(), after.1.to_string());
    let mut rows = vec![Row::new(format!("R {old} -> {new}"), Look::Changed, Target::None)];
    // What is no file has no lines.
    rows.extend(between(view, [before, after], [&old, &new]).unwrap_or_default());
    if rows.len() == 1 {
        rows.push(Row::new("nothing else differs", Look::Dim, Target::None));
    }
    let about = Target::File { version: after.0.to_owned(), path: after.1.clone() };
    Ok(Page::new(format!("Changes of {new}"), rows, about))
}

/// Both sides of a conflict, as what differs between them.
pub fn conflict(view: &View, version: &str, path: &PathText, beside: &PathText) -> Result<Page, Failure> {
    let rows = between(view, [(version, path), (version, beside)], ["ours", "theirs"])?;
    let about = Target::Conflict { version: version.to_owned(), path: path.clone(), beside: beside.clone() };
    Ok(Page::new(format!("Conflict of {path}: - ours, + theirs"), rows, about))
}

/// How the workspace is.
pub fn status(view: &View) -> Result<Page, Failure> {
    let reply = view.ask(&Request::Status { files: true })?;
    outcome(&reply)?;
    let mut rows: Vec<Row> = reply.message.lines().map(Row::plain).collect();
    let jobs = view.data(&Request::Jobs {})?;
    for job in jobs.as_array().into_iter().flatten() {
        let progress = &job["progress"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let far = format!("{}/{} {}", progress["done"], progress["total"], text(&progress["what"]));
        rows.push(Row::plain(format!("job          {}: {} {far}", text(&job["op"]), text(&job["state"]))));
    }
    Ok(Page::new("Now", rows, Target::None))
}

/// What a restore would change.
pub fn trial(view: &View, version: &str, paths: &[PathText]) -> Result<Vec<Row>, Failure> {
    let found = view.data(&Request::Restore { version: version.to_owned(), paths: paths.to_vec(), dry_run: true })?;
    let mut rows = Vec::new();
    for change in found["changes"].as_array().into_iter().flatten() {
        let letter = change["letter"].as_str().and_then(|letter| letter.chars().next()).unwrap_or('?');
        let path: PathText = parsed(&change["path"])?;
        rows.push(Row::new(format!("{letter} {path}"), change_look(letter), Target::None));
    }
    Ok(rows)
}

/// The full id of the newest version.
pub fn newest(view: &View) -> Result<String, Failure> {
    let status = view.data(&Request::Status { files: false })?;
    Ok(status["newest_version"].as_str().unwrap_or_default().to_owned())
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T, Failure> {
    serde_json::from_value(value.clone())
        .map_err(|error| Failure::new(Exit::Other, format!("the answer is not understood: {error}")))
}
