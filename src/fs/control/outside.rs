//! Operations on what is outside of the live tree.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use super::handles::{Handles, Open, Talk, Unfinished};
use super::jobs;
use super::names::{Item, link_target};
use super::nodes::{Fixed, JobFile, Key, Node, Nodes, Way, is_outside};
use super::past::Past;
use super::process::{last_closer, process_of};
use crate::base::clock::{Clock, SystemClock, Timestamp};
use crate::blob::ChunkRef;
use crate::control::{Answer, Dispatcher, Exit, Failure, Reply, conflicts_text};
use crate::fs::access::AccessLog;
use crate::fs::open_files::OpenFiles;
use crate::fs::{Caching, FsError, FsOptions, Handle, Line, Listing, Named, OpenHow, Opened, Result, Shown};
use crate::version::entry::{Body, Ino};
use crate::workspace::Workspace;
use crate::worktree::{Attr, Caller, Changes, FileKind, Wait, WorkError};

/// Who is told of secret requests, and whether there is time to wait.
pub(crate) type TellSecret = Box<dyn Fn(Wait) + Send + Sync>;

/// Everything outside of the live tree.
pub(crate) struct Outside {
    pub(super) workspace: Arc<Workspace>,
    options: FsOptions,
    pub(super) control: Arc<Dispatcher>,
    nodes: Nodes,
    handles: Handles,
    /// What was closed before a version is asked for shall be in it.
    files: Arc<OpenFiles>,
    access: Arc<AccessLog>,
    /// Told of secret requests.
    secret: OnceLock<TellSecret>,
    /// When it was mounted.
    since: Timestamp,
}

/// The SHA-256 of a past file, when its version knows it.
pub(crate) const SHA256_XATTR: &[u8] = b"user.kura.sha256";

/// The version that made a file what it is; of a past file, the version it is in.
pub(crate) const VERSION_XATTR: &[u8] = b"user.kura.version";

/// What waits for the store, the disk or the workspace is put off.
fn may_wait(wait: Wait) -> Result<()> {
    if wait == Wait::No { Err(WorkError::WouldBlock.into()) } else { Ok(()) }
}

impl Outside {
    pub(crate) fn new(
        workspace: Arc<Workspace>,
        options: FsOptions,
        control: Arc<Dispatcher>,
        files: Arc<OpenFiles>,
        access: Arc<AccessLog>,
    ) -> Self {
        let (nodes, handles, secret, since) =
            (Nodes::default(), Handles::default(), OnceLock::new(), SystemClock.now());
        Self { workspace, options, control, nodes, handles, files, access, secret, since }
    }

    /// Who is told of secret requests; the first to ask for it.
    pub(crate) fn on_secret(&self, tell: TellSecret) {
        self.secret.set(tell).ok();
    }

    fn tell_secret(&self, wait: Wait) {
        if let Some(tell) = self.secret.get() {
            tell(wait);
        }
    }

    fn check_owner(&self, caller: Caller) -> Result<()> {
        if caller.uid == self.options.owner_uid { Ok(()) } else { Err(WorkError::Denied.into()) }
    }

    fn node(&self, ino: Ino) -> Result<Node> {
        Ok(self.nodes.find(ino).ok_or(WorkError::NotFound)?)
    }

    /// What an inode of a version is; a version's root is read when it is first needed.
    fn past(&self, ino: Ino, node: &Node) -> Result<Arc<Past>> {
        match (&node.past, &node.key) {
            (Some(past), _) => Ok(past.clone()),
            (None, Key::Root(Way { folder, tag }, version)) => {
                let parent = if tag.is_some() { Fixed::Snapshots } else { Fixed::ById };
                let parent = self.nodes.ino(&Key::Fixed(*folder, parent));
                let past = Arc::new(self.folder_at(self.workspace.version(*version)?, *folder, parent)?);
                self.nodes.set_past(ino, past.clone());
                Ok(past)
            }
            (None, _) => Err(WorkError::Invalid.into()),
        }
    }

    /// Whether an inode is the log of requests.
    pub(crate) fn is_access_log(&self, ino: Ino) -> bool {
        matches!(self.nodes.find(ino), Some(Node { key: Key::Fixed(_, Fixed::AccessLog), .. }))
    }

    /// Words for an inode in a message.
    pub(crate) fn describe(&self, ino: Ino) -> String {
        match self.nodes.find(ino).map(|node| node.key) {
            Some(Key::Root(_, version)) => format!("version {version}"),
            Some(Key::Past(_, version, inside)) => format!("inode {} of version {version}", inside.0),
            _ => "a control file".to_owned(),
        }
    }

    /// Why an inode cannot be changed, nor names in it.
    pub(crate) fn refusal(&self, ino: Ino) -> FsError {
        match self.nodes.find(ino).map(|node| node.key) {
            Some(Key::Root(..) | Key::Past(..)) => WorkError::ReadOnly.into(),
            _ => WorkError::NotPermitted.into(),
        }
    }

    pub(crate) fn lookup(&self, caller: Caller, parent: Ino, name: &[u8], wait: Wait) -> Result<Named> {
        self.check_owner(caller)?;
        if !is_outside(parent) {
            return self.enter(&Key::Fixed(parent, Fixed::Control), None);
        }
        let node = self.node(parent)?;
        if let Key::Fixed(folder, dir) = node.key
            && let Some(key) = dir.child(folder, name)
        {
            return self.enter(&key, None);
        }
        if let Key::Job(_, job) = node.key {
            let file = jobs::files(job).find(|(known, _)| known == name).map(|(_, key)| key);
            return self.enter(&file.ok_or(WorkError::NotFound)?, None);
        }
        may_wait(wait)?;
        if let Key::Fixed(folder, dir) = node.key {
            let key = self.find_name(folder, dir, name)?.ok_or(WorkError::NotFound)?;
            return self.enter(&key, None);
        }
        if let Key::History(folder, path) = &node.key {
            let (key, past) = self.history_name(*folder, path, name)?.ok_or(WorkError::NotFound)?;
            return self.enter(&key, past.map(Arc::new));
        }
        let past = self.past(parent, &node)?;
        let found = past.find(&*self.workspace.pages(), parent, name)?.ok_or(WorkError::NotFound)?;
        self.enter(&key_inside(&node.key, found.entry.ino), Some(Arc::new(found)))
    }

    /// The kernel gets a reference.
    fn enter(&self, key: &Key, past: Option<Arc<Past>>) -> Result<Named> {
        let ino = self.nodes.refer(key, past);
        self.getattr(ino, Wait::Yes).map(Named).inspect_err(|_| self.nodes.forget(ino, 1))
    }

    pub(crate) fn forget(&self, ino: Ino, count: u64) {
        self.nodes.forget(ino, count);
    }

    pub(crate) fn getattr(&self, ino: Ino, wait: Wait) -> Result<Shown> {
        let node = self.node(ino)?;
        if matches!((&node.key, &node.past), (Key::Root(..), None)) {
            may_wait(wait)?;
            let past = self.past(ino, &node)?;
            return Ok(self.show(ino, &node.key, Some(&past)));
        }
        Ok(self.show(ino, &node.key, node.past.as_deref()))
    }

    fn show(&self, ino: Ino, key: &Key, past: Option<&Past>) -> Shown {
        match (key, past) {
            // A tag can be taken away; everything else about a version stays.
            (Key::Root(Way { folder, tag }, _), Some(past)) => {
                Shown { attr: past.attr(ino), lasting: tag.is_none() && *folder == Ino::ROOT }
            }
            (_, Some(past)) => Shown { attr: past.attr(ino), lasting: true },
            (Key::Fixed(_, Fixed::Run) | Key::Command(..), None) => {
                // Editors look at the time to find out whether others wrote to a file, too.
                let attr = self.own_attr(ino, FileKind::File, Fixed::Run.mode(), 0);
                Shown { attr: Attr { mtime: self.since, ctime: self.since, ..attr }, lasting: false }
            }
            (Key::Fixed(_, fixed), None) => {
                Shown { attr: self.own_attr(ino, fixed.kind(), fixed.mode(), 0), lasting: false }
            }
            (Key::Job(..) | Key::History(..), None) => {
                Shown { attr: self.own_attr(ino, FileKind::Directory, 0o500, 0), lasting: false }
            }
            (Key::JobFile(_, file), None) => {
                Shown { attr: self.own_attr(ino, FileKind::File, file.mode(), 0), lasting: false }
            }
            (Key::Link(dir, version), None) => {
                let len = link_target(*dir, *version).len() as u64;
                Shown { attr: self.own_attr(ino, FileKind::Symlink, 0o777, len), lasting: false }
            }
            (Key::Root(..) | Key::Past(..), None) => {
                Shown { attr: self.own_attr(ino, FileKind::Directory, 0o500, 0), lasting: false }
            }
        }
    }

    /// Attributes of what is not from a version. Its times are the present, so that the kernel
    /// does not take a listing for what is still right.
    fn own_attr(&self, ino: Ino, kind: FileKind, mode: u16, size: u64) -> Attr {
        let now = SystemClock.now();
        Attr {
            ino,
            kind,
            mode,
            nlink: if kind == FileKind::Directory { 2 } else { 1 },
            uid: self.options.owner_uid,
            gid: self.options.owner_gid,
            rdev: 0,
            size,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
        }
    }

    pub(crate) fn setattr(&self, ino: Ino, changes: &Changes, wait: Wait) -> Result<Shown> {
        let node = self.node(ino)?;
        // A shell cuts a file before it writes to it.
        let cuts_only = changes.mode.is_none() && changes.uid.is_none() && changes.gid.is_none();
        let takes_requests =
            matches!(node.key, Key::Fixed(_, Fixed::Run) | Key::Command(..) | Key::JobFile(_, JobFile::Cancel));
        if takes_requests && cuts_only {
            return self.getattr(ino, wait);
        }
        Err(self.refusal(ino))
    }

    pub(crate) fn readlink(&self, ino: Ino, wait: Wait) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if let Key::Link(dir, version) = node.key {
            return Ok(link_target(dir, version));
        }
        may_wait(wait)?;
        self.past(ino, &node)?.target()
    }

    pub(crate) fn mkdir(&self, caller: Caller, parent: Ino, name: &[u8], wait: Wait) -> Result<Named> {
        self.check_owner(caller)?;
        let Key::Fixed(folder, Fixed::Snapshots) = self.node(parent)?.key else { return Err(self.refusal(parent)) };
        may_wait(wait)?;
        self.files.settle();
        let key = self.record(folder, name)?;
        self.enter(&key, None)
    }

    pub(crate) fn rmdir(&self, caller: Caller, parent: Ino, name: &[u8], wait: Wait) -> Result<()> {
        self.check_owner(caller)?;
        let Key::Fixed(_, Fixed::Snapshots) = self.node(parent)?.key else { return Err(self.refusal(parent)) };
        may_wait(wait)?;
        self.unrecord(name)
    }

    pub(crate) fn open(&self, caller: Caller, ino: Ino, how: OpenHow, wait: Wait) -> Result<Opened> {
        self.check_owner(caller)?;
        let node = self.node(ino)?;
        let opened = |handle, caching| Opened { ino, handle, write: how.write, caching };
        match node.key {
            Key::Fixed(folder, Fixed::Run) => {
                // Who writes gets the answer to that alone.
                let last = if how.write { Vec::new() } else { self.control.last(None) };
                let talk = Talk::new(None, folder, process_of(how.thread), last);
                Ok(opened(self.handles.open(Open::Talk(talk)), Caching::Talk))
            }
            Key::Command(folder, command) => {
                let last = self.control.last(Some(command));
                let talk = Talk::new(Some(command), folder, process_of(how.thread), last);
                Ok(opened(self.handles.open(Open::Talk(talk)), Caching::Talk))
            }
            Key::JobFile(job, JobFile::Cancel) => Ok(opened(self.handles.open(Open::Button(job)), Caching::Stream)),
            _ if how.write || how.truncate => Err(self.refusal(ino)),
            // Told at once: whoever asks may want to know why nothing else is.
            Key::Fixed(_, fixed @ (Fixed::Status | Fixed::StatusJson)) => {
                let text = self.status(fixed == Fixed::StatusJson);
                Ok(opened(self.handles.open(Open::Text(text)), Caching::Never))
            }
            Key::Fixed(_, Fixed::Events) => {
                let (lines, _) = self.workspace.events(0);
                let text = lines.into_iter().map(|line| line + "\n").collect::<String>();
                Ok(opened(self.handles.open(Open::Text(text.into_bytes())), Caching::Never))
            }
            Key::Fixed(_, Fixed::Conflicts) => {
                may_wait(wait)?;
                let text = conflicts_text(&self.workspace)?.into_bytes();
                Ok(opened(self.handles.open(Open::Text(text)), Caching::Never))
            }
            Key::Fixed(_, Fixed::Config) => {
                Ok(opened(self.handles.open(Open::Text(self.control.settings())), Caching::Never))
            }
            Key::Fixed(_, Fixed::Metrics) => {
                Ok(opened(self.handles.open(Open::Text(self.control.prometheus())), Caching::Never))
            }
            Key::Fixed(_, Fixed::AccessLog) => {
                let reader = self.access.reader().ok_or(FsError::Refused(Exit::Locked))?;
                Ok(opened(self.handles.open(Open::Log(reader)), Caching::Stream))
            }
            Key::Fixed(_, Fixed::LastError) => {
                Ok(opened(self.handles.open(Open::Text(self.control.last_error())), Caching::Never))
            }
            Key::JobFile(job, file) => {
                let text = self.job_text(job, file).ok_or(WorkError::NotFound)?;
                Ok(opened(self.handles.open(Open::Text(text)), Caching::Never))
            }
            _ => Ok(opened(Handle(0), Caching::Kept)),
        }
    }

    fn status(&self, json: bool) -> Vec<u8> {
        let status = self.workspace.status();
        let text = if json {
            serde_json::to_string_pretty(&status).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"))
        } else {
            status.to_string()
        };
        (text.trim_end().to_owned() + "\n").into_bytes()
    }

    /// The last descriptor is closed. A line that has no end is to be run where waiting is fine.
    pub(crate) fn release(&self, handle: Handle) -> Option<Unfinished> {
        let open = self.handles.close(handle)?;
        // A request that still runs has it locked, and is complete.
        let is_line = match open.try_lock().as_deref() {
            Some(Open::Talk(talk)) if talk.is_at_end() => true,
            Some(Open::Talk(talk)) if talk.is_unfinished() => {
                self.control.abandoned(talk.command);
                self.tell_secret(Wait::No);
                false
            }
            _ => false,
        };
        is_line.then_some(Unfinished(open))
    }

    /// Runs a line that was closed without a newline.
    pub(crate) fn finish(&self, Unfinished(open): Unfinished) {
        let Open::Talk(talk) = &mut *open.lock() else { return };
        if let Err(error) = talk.end(|talk, request| self.answer(talk, request)) {
            tracing::debug!("a request that was ended by its last close: {error}");
        }
    }

    /// A descriptor of a control file is closed by a thread.
    pub(crate) fn flush(&self, ino: Ino, handle: Handle, thread: u32, wait: Wait) -> Result<()> {
        if handle == Handle(0) {
            return Ok(());
        }
        let open = self.handles.find(handle)?;
        // Nothing waits to be run, as a rule.
        if open.try_lock().is_some_and(|open| !matches!(&*open, Open::Talk(talk) if talk.is_unfinished())) {
            return Ok(());
        }
        may_wait(wait)?;
        match &mut *open.lock() {
            Open::Talk(talk) if talk.is_unfinished() => {
                talk.close(last_closer(thread, ino), |talk, request| self.answer(talk, request))
            }
            Open::Talk(_) | Open::Text(_) | Open::Log(_) | Open::Button(_) => Ok(()),
        }
    }

    fn answer(&self, talk: &Talk, request: &[u8]) -> Answer {
        self.files.settle();
        let answer = match self.base(talk.folder) {
            Ok(base) => self.control.answer(talk.command, &base, request),
            Err(error) => {
                let failure = Failure::new(Exit::Other, format!("the folder of this `.kura` is gone: {error}"));
                Answer { exit: failure.exit, bytes: Reply::from(failure).line(), is_secret: true }
            }
        };
        if answer.is_secret {
            self.tell_secret(Wait::Yes);
        }
        answer
    }

    pub(crate) fn read(&self, ino: Ino, handle: Handle, offset: u64, len: usize, wait: Wait) -> Result<Vec<u8>> {
        if handle != Handle(0) {
            let open = self.handles.find(handle)?;
            // Another thread may be waiting for the reply to its request.
            let mut open = match wait {
                Wait::Yes => open.lock(),
                Wait::No => open.try_lock().ok_or(WorkError::WouldBlock)?,
            };
            if let Open::Log(reader) = &mut *open {
                return Ok(reader.read(len, wait == Wait::Yes).ok_or(WorkError::WouldBlock)?);
            }
            return Ok(open.read(offset, len));
        }
        may_wait(wait)?;
        let past = self.past(ino, &self.node(ino)?)?;
        Ok(self.workspace.read_file(past.file()?, offset, len)?)
    }

    pub(crate) fn write(&self, ino: Ino, handle: Handle, data: &[u8], wait: Wait) -> Result<()> {
        if handle == Handle(0) {
            return Err(self.refusal(ino));
        }
        may_wait(wait)?;
        match &mut *self.handles.find(handle)?.lock() {
            Open::Talk(talk) => {
                let written = talk.write(data, |talk, request| self.answer(talk, request));
                if matches!(written, Err(FsError::RequestTooLong)) {
                    self.control.too_long(talk.command);
                    self.tell_secret(Wait::Yes);
                }
                written
            }
            Open::Button(job) => {
                self.control.jobs().cancel(*job);
                Ok(())
            }
            Open::Text(_) | Open::Log(_) => Err(FsError::BadHandle),
        }
    }

    pub(crate) fn seek(&self, ino: Ino, offset: u64, data: bool, wait: Wait) -> Result<u64> {
        may_wait(wait)?;
        let past = self.past(ino, &self.node(ino)?)?;
        past.seek(&*self.workspace.pages(), offset, data)?.ok_or(FsError::NothingThere)
    }

    pub(crate) fn chunks_ahead(&self, ino: Ino, range: &Range<u64>) -> Vec<ChunkRef> {
        let past = self.node(ino).and_then(|node| self.past(ino, &node));
        past.and_then(|past| past.chunks(&*self.workspace.pages(), range)).unwrap_or_default()
    }

    pub(crate) fn getxattr(&self, ino: Ino, name: &[u8], wait: Wait) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if !is_past(&node.key) {
            return Err(WorkError::NoData.into());
        }
        if let (Key::Root(_, version) | Key::Past(_, version, _), VERSION_XATTR) = (&node.key, name) {
            return Ok(version.to_string().into_bytes());
        }
        may_wait(wait)?;
        let past = self.past(ino, &node)?;
        if let (Body::File(file), SHA256_XATTR) = (&past.entry.body, name) {
            let digest = self.workspace.tree().digest_of(file)?.ok_or(WorkError::NoData)?;
            return Ok(digest.to_string().into_bytes());
        }
        Ok(past.entry.xattrs.get(name).cloned().ok_or(WorkError::NoData)?)
    }

    pub(crate) fn listxattr(&self, ino: Ino, wait: Wait) -> Result<Vec<Vec<u8>>> {
        let node = self.node(ino)?;
        if !is_past(&node.key) {
            return Ok(Vec::new());
        }
        may_wait(wait)?;
        Ok(self.past(ino, &node)?.entry.xattrs.keys().cloned().collect())
    }

    pub(crate) fn list(&self, dir: Ino, offset: u64, wait: Wait) -> Result<Listing> {
        may_wait(wait)?;
        let node = self.node(dir)?;
        let own = match &node.key {
            Key::Fixed(folder, fixed) => {
                let parent = fixed.parent().map_or(*folder, |parent| self.nodes.ino(&Key::Fixed(*folder, parent)));
                Some((self.names(*folder, *fixed)?, parent))
            }
            Key::Job(folder, job) => {
                Some((jobs::files(*job).collect(), self.nodes.ino(&Key::Fixed(*folder, Fixed::Jobs))))
            }
            Key::History(folder, path) => {
                let parent = self.nodes.ino(&Key::Fixed(*folder, Fixed::History));
                Some((self.history_names(*folder, path)?, parent))
            }
            _ => None,
        };
        let (items, parent): (Vec<Item>, Ino) = if let Some((names, parent)) = own {
            let items = names.into_iter().zip(3..);
            let items = items.map(|((name, key), offset)| Item { name, offset, key, past: None });
            (items.filter(|item| item.offset > offset).collect(), parent)
        } else {
            let past = self.past(dir, &node)?;
            let listed = past.list(&*self.workspace.pages(), dir, offset)?;
            let item = |(name, offset, found): (Vec<u8>, u64, Past)| {
                let key = key_inside(&node.key, found.entry.ino);
                Item { name, offset, key, past: Some(Arc::new(found)) }
            };
            (listed.into_iter().map(item).collect(), past.parent)
        };
        Ok(Listing { dir, offset, parent, items: Some(items.into()) })
    }

    pub(crate) fn fill(&self, items: &[Item], refer: bool, each: &mut dyn FnMut(&Line<'_>) -> bool) {
        for item in items {
            let ino = if refer { self.nodes.refer(&item.key, item.past.clone()) } else { self.nodes.ino(&item.key) };
            let shown = self.show(ino, &item.key, item.past.as_deref());
            if !each(&Line { name: &item.name, offset: item.offset, shown }) {
                if refer {
                    self.nodes.forget(ino, 1);
                }
                return;
            }
        }
    }
}

/// The key of an inode of the same version, entered the same way.
fn key_inside(dir: &Key, ino: Ino) -> Key {
    match dir {
        Key::Root(way, version) | Key::Past(way, version, _) => Key::Past(way.clone(), *version, ino),
        _ => dir.clone(),
    }
}

fn is_past(key: &Key) -> bool {
    matches!(key, Key::Root(..) | Key::Past(..))
}
