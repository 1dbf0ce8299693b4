//! What keys do.

use std::time::{Duration, Instant};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::pages::{self, Look, Page, Row, Target};
use crate::cli::output::outcome;
use crate::cli::view::View;
use crate::control::{Failure, PathText, Request};

/// Files beside others are looked for at most so often.
const CONFLICTS_EVERY: Duration = Duration::from_secs(15);
/// Rows that a page key goes.
const FAR: usize = 20;

/// The state of the screen.
pub struct App<'a> {
    view: &'a View,
    /// Pages on each other; the last is shown.
    pub pages: Vec<Page>,
    /// Which of the four screens they began at.
    pub tab: usize,
    /// What is asked, if anything.
    pub question: Option<Question>,
    /// The last thing to say.
    pub said: String,
    /// How the workspace is, in a word or two.
    pub state: String,
    /// Whether all is well.
    pub is_well: bool,
    /// So many files lie beside another one, in which version, and when that was looked at.
    beside: (usize, String, Option<Instant>),
    is_over: bool,
}

/// A question, in front of everything.
pub struct Question {
    /// What is asked.
    pub title: String,
    /// What would happen, or what there is to know.
    pub rows: Vec<Row>,
    /// What is typed, where something is.
    pub typed: Option<String>,
    /// The first row that is shown.
    pub first: usize,
    /// What is done for a yes; nothing when it only tells.
    act: Option<Request>,
}

impl<'a> App<'a> {
    /// The timeline.
    pub fn new(view: &'a View) -> Self {
        let state = String::new();
        let mut app = Self {
            view,
            pages: Vec::new(),
            tab: 0,
            question: None,
            said: view.name(),
            state,
            is_well: true,
            beside: (0, String::new(), None),
            is_over: false,
        };
        app.top(0, pages::timeline(view, None));
        app.refresh();
        app
    }

    /// Whether to end.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Asks how the workspace is.
    pub fn refresh(&mut self) {
        let status = match self.view.data(&Request::Status { files: false }) {
            Ok(status) => status,
            Err(failure) => {
                (self.state, self.is_well) = (pages::printable(&failure.message), false);
                return;
            }
        };
        let waiting = status["unpublished_versions"].as_u64().unwrap_or(0);
        let conflicts = self.count_conflicts(status["newest_version"].as_str().unwrap_or_default());
        let state = match () {
            () if !status["blocked"].is_null() => "publishing stopped".to_owned(),
            () if !status["offline"].is_null() => format!("offline, {waiting} versions wait"),
            () if waiting > 0 => format!("publishing {waiting} versions"),
            () if status["unrecorded_changes"] == true => "changed".to_owned(),
            () => "published".to_owned(),
        };
        self.is_well = status["blocked"].is_null() && status["offline"].is_null() && conflicts == 0;
        self.state = match conflicts {
            0 => state,
            1 => format!("{state}, 1 conflict"),
            conflicts => format!("{state}, {conflicts} conflicts"),
        };
        if self.pages.len() == 1 && self.pages[0].title == "Now" {
            let selected = self.pages[0].selected;
            if let Ok(page) = pages::status(self.view) {
                self.pages[0] = Page { selected: selected.min(page.rows.len().saturating_sub(1)), ..page };
            }
        }
    }

    /// A mount counts the conflicts that it saw itself, settled or not; what lies beside other files is what there is.
    fn count_conflicts(&mut self, newest: &str) -> usize {
        let (_, known, looked) = &self.beside;
        if known != newest && looked.is_none_or(|looked| looked.elapsed() > CONFLICTS_EVERY) {
            let found = self.view.data(&Request::Conflicts {}).ok();
            self.beside.2 = Some(Instant::now());
            // When the store is away, what was known stays.
            if let Some(count) = found.and_then(|found| found.as_array().map(Vec::len)) {
                (self.beside.0, self.beside.1) = (count, newest.to_owned());
            }
        }
        self.beside.0
    }

    fn fail(&mut self, failure: &Failure) {
        let hint = failure.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        self.said = pages::printable(&format!("{}{hint}", failure.message));
    }

    fn push(&mut self, page: Result<Page, Failure>) {
        match page {
            Ok(page) => {
                self.said.clear();
                self.pages.push(page);
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn top(&mut self, tab: usize, page: Result<Page, Failure>) {
        let before = std::mem::take(&mut self.pages);
        self.push(page);
        match self.pages.is_empty() {
            true => self.pages = before,
            false => self.tab = tab,
        }
    }

    /// What the chosen row stands for, or else the whole page.
    fn target(&self) -> Target {
        let Some(page) = self.pages.last() else { return Target::None };
        let row = page.rows.get(page.selected).map(|row| row.target.clone()).unwrap_or_default();
        if row == Target::None { page.about.clone() } else { row }
    }

    /// Takes a key.
    pub fn key(&mut self, key: KeyEvent) {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            self.is_over |= key.code == KeyCode::Char('c');
            return;
        }
        if let Some(question) = self.question.take() {
            return self.answer(question, key.code);
        }
        match key.code {
            KeyCode::Char('q') => self.is_over = true,
            KeyCode::Char('1') => self.top(0, pages::timeline(self.view, None)),
            KeyCode::Char('2') => {
                let root = pages::newest(self.view);
                self.top(1, root.and_then(|version| pages::dir(self.view, &version, &PathText::default())));
            }
            KeyCode::Char('3') => self.top(2, pages::conflicts(self.view)),
            KeyCode::Char('4') => self.top(3, pages::status(self.view)),
            KeyCode::Esc | KeyCode::Backspace | KeyCode::Left if self.pages.len() > 1 => {
                self.pages.pop();
                self.said.clear();
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1, true),
            KeyCode::Up | KeyCode::Char('k') => self.step(1, false),
            KeyCode::PageDown | KeyCode::Char(' ') => self.step(FAR, true),
            KeyCode::PageUp => self.step(FAR, false),
            KeyCode::Home | KeyCode::Char('g') => self.step(usize::MAX, false),
            KeyCode::End | KeyCode::Char('G') => self.step(usize::MAX, true),
            KeyCode::Enter | KeyCode::Right => self.open(),
            KeyCode::Char(key) => self.act(key),
            _ => {}
        }
    }

    fn step(&mut self, by: usize, down: bool) {
        let Some(page) = self.pages.last_mut() else { return };
        let last = page.rows.len().saturating_sub(1);
        page.selected =
            if down { page.selected.saturating_add(by).min(last) } else { page.selected.saturating_sub(by) };
        if page.selected < last || page.next.is_none() {
            return;
        }
        match pages::timeline(self.view, page.next.clone()) {
            Ok(more) => {
                page.rows.extend(more.rows);
                page.next = more.next;
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn open(&mut self) {
        let Some(page) = self.pages.last() else { return };
        let target = page.rows.get(page.selected).map(|row| row.target.clone()).unwrap_or_default();
        match target {
            Target::None => {}
            Target::Version(id) => self.push(pages::version(self.view, &id)),
            Target::Change { from, to, path, old: None } => self.push(pages::change(self.view, &from, &to, &path)),
            Target::Change { from, to, path, old: Some(old) } => {
                self.push(pages::renamed(self.view, (&from, &old), (&to, &path)));
            }
            Target::Dir { version, path } => self.push(pages::dir(self.view, &version, &path)),
            Target::File { version, path } => self.push(pages::file(self.view, &version, &path)),
            Target::Conflict { version, path, beside } => {
                self.push(pages::conflict(self.view, &version, &path, &beside));
            }
        }
    }

    fn act(&mut self, key: char) {
        match (key, self.target()) {
            ('?', _) => self.question = Some(help()),
            ('s', _) => {
                let act = Request::Snapshot { message: None, name: None };
                self.ask("Take a snapshot. What is this state?", Vec::new(), act);
                self.question = self.question.take().map(|asked| Question { typed: Some(String::new()), ..asked });
            }
            ('d', Target::Version(id) | Target::Dir { version: id, .. }) => self.push(pages::since(self.view, &id)),
            ('r', Target::Version(id)) => self.restore(&id, Vec::new()),
            ('r', Target::Dir { version, path }) if path.0.is_empty() => self.restore(&version, Vec::new()),
            ('r', Target::Dir { version, path } | Target::File { version, path }) => self.restore(&version, vec![path]),
            ('r', Target::Change { to, path, .. }) => self.restore(&to, vec![path]),
            ('u', Target::Version(version)) => {
                self.ask(
                    "Undo what this version changed, and keep what came after?",
                    Vec::new(),
                    Request::Revert { version },
                );
            }
            ('h', Target::File { path, .. } | Target::Change { path, .. } | Target::Conflict { path, .. }) => {
                self.push(pages::history(self.view, &path));
            }
            ('b', Target::File { path, .. } | Target::Change { path, .. }) => {
                self.push(pages::blame(self.view, &path));
            }
            ('v', Target::Change { to: version, path, .. }) => self.push(pages::file(self.view, &version, &path)),
            ('o' | 't' | 'a' | 'm', Target::Conflict { path, .. }) => {
                let (take, what) = match key {
                    'o' => ("ours", "Ours stays; the other one goes"),
                    't' => ("theirs", "The other one takes the name; ours goes"),
                    'a' => ("both", "Both stay; the other one gets a name of its own"),
                    _ => ("merge", "Both texts are joined line by line"),
                };
                let title = format!("{what} ({path})?");
                self.ask(&title, Vec::new(), Request::Resolve { path, take: take.to_owned() });
            }
            _ => {}
        }
    }

    fn ask(&mut self, title: &str, rows: Vec<Row>, act: Request) {
        self.question = Some(Question { title: pages::printable(title), rows, typed: None, first: 0, act: Some(act) });
    }

    fn restore(&mut self, version: &str, paths: Vec<PathText>) {
        match pages::trial(self.view, version, &paths) {
            Ok(rows) if rows.is_empty() => self.said = "nothing differs from that version".to_owned(),
            Ok(rows) => {
                let title = format!("Restore? {} paths would change:", rows.len());
                self.ask(&title, rows, Request::Restore { version: version.to_owned(), paths, dry_run: false });
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn answer(&mut self, mut question: Question, key: KeyCode) {
        match (key, &mut question.typed) {
            (KeyCode::Esc, _) => {}
            _ if question.act.is_none() => {}
            (KeyCode::Backspace, Some(typed)) => {
                typed.pop();
                self.question = Some(question);
            }
            (KeyCode::Char(c), Some(typed)) => {
                typed.push(c);
                self.question = Some(question);
            }
            (KeyCode::Down | KeyCode::Char('j'), None) => {
                question.first = (question.first + 1).min(question.rows.len().saturating_sub(1));
                self.question = Some(question);
            }
            (KeyCode::Up | KeyCode::Char('k'), None) => {
                question.first = question.first.saturating_sub(1);
                self.question = Some(question);
            }
            (KeyCode::Enter, _) | (KeyCode::Char('y'), None) => self.perform(question),
            (KeyCode::Char('n'), None) => {}
            _ => self.question = Some(question),
        }
    }

    fn perform(&mut self, question: Question) {
        let request = match (question.act, question.typed) {
            (None, _) => return,
            (Some(Request::Snapshot { name, .. }), Some(typed)) => {
                Request::Snapshot { message: Some(typed).filter(|typed| !typed.is_empty()), name }
            }
            (Some(request), _) => request,
        };
        let done = self.view.ask(&request).and_then(|reply| outcome(&reply).map(|_| reply.message));
        match done {
            Ok(message) => {
                // Whatever was done, others may lie beside each other now.
                (self.beside.1, self.beside.2) = (String::new(), None);
                match matches!(request, Request::Resolve { .. }) {
                    true => self.top(2, pages::conflicts(self.view)),
                    false => self.top(0, pages::timeline(self.view, None)),
                }
                self.said = pages::printable(&message);
            }
            Err(failure) => self.fail(&failure),
        }
        self.refresh();
    }
}

fn help() -> Question {
    let keys = [
        "1 2 3 4      timeline, files, conflicts, now",
        "j k ↓ ↑      next, previous row; space, PageUp, g, G go further",
        "Enter →      open",
        "Esc ←        back",
        "d            what differs between this version and now",
        "r            restore this version, directory or file (asks first)",
        "u            undo this version (asks first)",
        "h b v        of a file: its history, who wrote which line, its text",
        "o t a m      of a conflict: take ours, theirs, both (all), or merge (asks first)",
        "s            take a snapshot",
        "q            end",
    ];
    let row = |text: &&str| Row { text: (*text).to_owned(), look: Look::Plain, target: Target::None };
    Question { title: "Keys".to_owned(), rows: keys.iter().map(row).collect(), typed: None, first: 0, act: None }
}

impl Question {
    /// Which keys answer it.
    pub fn keys(&self) -> &'static str {
        match (&self.act, &self.typed) {
            (None, _) => "Esc",
            (Some(_), Some(_)) => "Enter does it, Esc does not",
            (Some(_), None) => "y does it, Esc does not",
        }
    }
}
