//! A change of many paths that becomes one version.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::MutexGuard;

use crate::base::clock::Timestamp;
use crate::base::ids::{FileId, Sha256, VersionId};
use crate::version::entry::{Body, Content, Entry, FileBody, Ino, Xattrs};
use crate::version::index::{IndexRecord, Origin};
use crate::version::pages::Pages;
use crate::version::tree::TreeRef;
use crate::workspace::opened::Workspace;
use crate::workspace::restore::entries;
use crate::workspace::{Result, WorkspaceError, split_path};
use crate::worktree::{Checkpoint, GraftOp, Reason, Seen, Sight, StageError, Staging};

/// Bytes of content read at once.
const PIECE_LEN: usize = 1 << 20;
const S_IRWXUGO: u16 = 0o777;

type Names = Vec<Vec<u8>>;

/// What is at a path.
#[derive(Clone, Debug)]
pub enum Spot {
    /// Nothing.
    Free,
    /// This.
    Taken(Box<Entry>),
    /// Something above the path is no directory: its path, and what it is.
    Blocked(String, &'static str),
}

/// Why content could not be put.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Where it comes from failed.
    #[error("it cannot be read: {0}")]
    Source(std::io::Error),
    /// It is not what it should be.
    #[error("it has SHA-256 {found} and should have {wanted}")]
    Digest {
        /// What it should have.
        wanted: Sha256,
        /// What it has.
        found: Sha256,
    },
    /// The workspace refused.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
}

impl From<StageError> for PutError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::Source(error) => Self::Source(error),
            StageError::Tree(error) => Self::Workspace(error.into()),
        }
    }
}

/// Content that is put away before a change names it. Nobody waits meanwhile.
pub struct Stage(Staging);

/// Content that a [`Stage`] keeps, for one path of one change that is committed while the stage lives.
#[derive(Clone, Debug)]
pub struct Staged {
    ino: Ino,
    body: FileBody,
}

/// What shall become of paths. Other operations on history wait while it lives; dropped, it leaves nothing behind.
pub struct Change<'a> {
    workspace: &'a Workspace,
    present: Arc<IndexRecord>,
    staging: Staging,
    seen: BTreeMap<Names, Sight>,
    removed: BTreeSet<Names>,
    /// Directories that go when nothing is left in them.
    emptied: BTreeSet<Names>,
    puts: BTreeMap<Names, GraftOp>,
    _history: MutexGuard<'a, ()>,
}

impl Workspace {
    /// Begins a change of many paths, after recording what was changed before.
    pub fn begin_change(&self) -> Result<Change<'_>> {
        let history = self.history.lock();
        Ok(Change {
            present: self.present()?,
            workspace: self,
            staging: self.tree().stage_content(),
            seen: BTreeMap::new(),
            removed: BTreeSet::new(),
            emptied: BTreeSet::new(),
            puts: BTreeMap::new(),
            _history: history,
        })
    }

    /// Begins to put content away, for a change to come.
    pub fn stage(&self) -> Stage {
        Stage(self.tree().stage_content())
    }

    /// Reads a file of some version from its beginning.
    pub fn content(&self, body: FileBody) -> ContentReader<'_> {
        ContentReader { workspace: self, body, offset: 0 }
    }

    /// The names in a directory of a version with what they stand for; none when it is no directory.
    pub fn names_in(&self, version: &IndexRecord, path: impl AsRef<[u8]>) -> Result<Vec<(Vec<u8>, Entry)>> {
        let Some(dir) = self.find(version, &split_path(path.as_ref()))? else { return Ok(Vec::new()) };
        let pages = Pages(self.blobs());
        let resolve = |(name, entry)| Ok((name, version.root.resolve(&pages, entry)?));
        entries(&pages, &dir)?.into_iter().map(resolve).collect()
    }

    /// The names in a directory of a version that begin so; none when it is no directory.
    pub fn names_that_begin(
        &self,
        version: &IndexRecord,
        path: impl AsRef<[u8]>,
        beginning: &[u8],
    ) -> Result<Vec<Vec<u8>>> {
        let dir = self.find(version, &split_path(path.as_ref()))?;
        let Some(Body::Directory { names, .. }) = dir.map(|dir| dir.body) else { return Ok(Vec::new()) };
        let mut found = Vec::new();
        names.scan(&Pages(self.blobs()), Bound::Included(beginning), &mut |name, _| {
            let begins = name.starts_with(beginning);
            found.extend(begins.then(|| name.to_vec()));
            begins
        })?;
        Ok(found)
    }

    /// The SHA-256 of a file's content; computed when it is not known.
    pub fn digest(&self, body: &FileBody) -> Result<Sha256> {
        if let Some(digest) = body.sha256 {
            return Ok(digest);
        }
        if let Some(digest) = self.tree().digest_of(body)? {
            return Ok(digest);
        }
        let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
        let mut offset = 0;
        while offset < body.size {
            let bytes = self.read_file(body, offset, PIECE_LEN)?;
            offset += bytes.len() as u64;
            sha2::Digest::update(&mut hasher, &bytes);
            if bytes.is_empty() {
                break;
            }
        }
        Ok(Sha256(sha2::Digest::finalize(hasher).into()))
    }

    /// The present moment by this workspace's clock.
    pub fn now(&self) -> Timestamp {
        self.parts.options.clock.now()
    }
}

impl Stage {
    /// Puts content away; with `wanted`, only that content.
    pub fn add(&mut self, source: &mut dyn Read, wanted: Option<Sha256>) -> std::result::Result<Staged, PutError> {
        let staged = add(&mut self.0, source)?;
        staged.check(wanted).map(|_| staged)
    }
}

impl Staged {
    /// The digest of the content, if it is the one that is wanted.
    fn check(&self, wanted: Option<Sha256>) -> std::result::Result<Sha256, PutError> {
        let found = self.body.sha256.unwrap_or(Sha256([0; 32]));
        match wanted.filter(|wanted| *wanted != found) {
            Some(wanted) => Err(PutError::Digest { wanted, found }),
            None => Ok(found),
        }
    }
}

fn add(staging: &mut Staging, source: &mut dyn Read) -> std::result::Result<Staged, StageError> {
    staging.add(source).map(|(ino, body)| Staged { ino, body })
}

/// Content of a file of some version.
pub struct ContentReader<'a> {
    workspace: &'a Workspace,
    body: FileBody,
    offset: u64,
}

impl Read for ContentReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let len = buffer.len().min(PIECE_LEN);
        let bytes = self.workspace.read_file(&self.body, self.offset, len).map_err(std::io::Error::other)?;
        buffer[..bytes.len()].copy_from_slice(&bytes);
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }
}

impl Change<'_> {
    /// The version that the change starts from.
    pub fn base(&self) -> VersionId {
        self.present.id
    }

    /// The record of that version.
    pub fn record(&self) -> &IndexRecord {
        &self.present
    }

    /// What is at a path; the change rests on its staying so.
    pub fn look(&mut self, path: &str) -> Result<Spot> {
        self.look_at(names(path))
    }

    /// What is at a path given by its names from the root; the change rests on its staying so.
    pub fn look_at(&mut self, names: Vec<Vec<u8>>) -> Result<Spot> {
        for depth in 1..names.len() {
            let above = names[..depth].to_vec();
            if self.removed.contains(&above) {
                return Ok(Spot::Free);
            }
            match self.find(&above)? {
                None => {
                    self.seen.insert(above, Sight::Nothing);
                    return Ok(Spot::Free);
                }
                Some(entry) if entry.is_dir() => {
                    self.seen.insert(above, Sight::Directory);
                }
                Some(entry) => {
                    let path = String::from_utf8_lossy(&above.join(&b'/')).into_owned();
                    return Ok(Spot::Blocked(path, kind(&entry)));
                }
            }
        }
        let found = self.find(&names)?;
        let sight = match &found {
            None => Sight::Nothing,
            Some(entry) if entry.is_dir() => Sight::Directory,
            Some(entry) => Sight::Inode(entry.ino, entry.ctime),
        };
        self.seen.insert(names, sight);
        Ok(found.map_or(Spot::Free, |entry| Spot::Taken(Box::new(entry))))
    }

    fn find(&self, names: &[Vec<u8>]) -> Result<Option<Entry>> {
        let names: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        self.workspace.find(&self.present, &names)
    }

    /// The content of a small file, at most `len_max` bytes; `None` when there is no such file.
    pub fn read_small(&mut self, path: &str, len_max: u64) -> Result<Option<Vec<u8>>> {
        let unfit = |reason: String| WorkspaceError::Unfit { path: path.into(), reason };
        let entry = match self.look(path)? {
            Spot::Free => return Ok(None),
            Spot::Blocked(above, what) => return Err(unfit(format!("{above} is {what}"))),
            Spot::Taken(entry) => entry,
        };
        let Body::File(body) = &entry.body else { return Err(unfit(format!("it is {}", kind(&entry)))) };
        if body.size > len_max {
            return Err(unfit(format!("it is longer than {len_max} bytes")));
        }
        let len = usize::try_from(body.size).unwrap_or(usize::MAX);
        Ok(Some(self.workspace.read_file(body, 0, len)?))
    }

    /// Puts a file; directories above it are made. With `wanted`, only that content is taken.
    pub fn put(
        &mut self,
        path: &str,
        source: &mut dyn Read,
        mode: u16,
        wanted: Option<Sha256>,
    ) -> std::result::Result<Sha256, PutError> {
        let staged = add(&mut self.staging, source)?;
        let found = staged.check(wanted)?;
        self.put_staged(path, staged, mode)?;
        Ok(found)
    }

    /// Puts a file whose content a [`Stage`] keeps; directories above it are made.
    pub fn put_staged(&mut self, path: &str, staged: Staged, mode: u16) -> Result<()> {
        let old = match self.look(path)? {
            Spot::Taken(entry) if !entry.is_dir() => Some(entry),
            Spot::Free => None,
            Spot::Taken(_) | Spot::Blocked(..) => {
                let reason = "a directory, or something that is none, is in the way".to_owned();
                return Err(WorkspaceError::Unfit { path: path.into(), reason });
            }
        };
        self.make_dirs(path)?;
        let time = self.workspace.now();
        let file_id = old.map_or_else(FileId::random, |old| old.file_id);
        let entry = Entry { file_id, ..new_entry(staged.ino, mode & S_IRWXUGO, Body::File(staged.body), time) };
        self.put_entry(names(path), entry);
        Ok(())
    }

    fn make_dirs(&mut self, path: &str) -> Result<()> {
        let names = names(path);
        for depth in 1..names.len() {
            let above = names[..depth].to_vec();
            let is_there = self.find(&above)?.is_some() && !self.removed.contains(&above);
            if !is_there && !self.puts.contains_key(&above) {
                let body = Body::Directory { names: TreeRef::default(), subdirs: 0 };
                let entry = new_entry(Ino::ROOT, 0o755, body, self.workspace.now());
                self.put_entry(above, entry);
            }
        }
        Ok(())
    }

    /// Directories that this change makes, from the root.
    pub fn made_dirs(&self) -> Vec<String> {
        let is_dir = |op: &&GraftOp| matches!(op, GraftOp::Put { entry, .. } if entry.is_dir());
        let dirs = self.puts.iter().filter(|(_, op)| is_dir(op));
        dirs.map(|(names, _)| String::from_utf8_lossy(&names.join(&b'/')).into_owned()).collect()
    }

    /// Gives a file that was looked at new content; everything else of it stays.
    pub fn replace(
        &mut self,
        path: Vec<Vec<u8>>,
        old: &Entry,
        source: &mut dyn Read,
    ) -> std::result::Result<(), PutError> {
        let (ino, body) = self.staging.add(source)?;
        let time = self.workspace.now();
        self.put_entry(path, Entry { ino, mtime: time, body: Body::File(body), ..old.clone() });
        Ok(())
    }

    /// Gives the content of a file to a new one as well, which shares what is stored. The path was looked at, and is
    /// free.
    pub fn copy(&mut self, old: &Entry, to: Vec<Vec<u8>>, mode: u16) {
        self.put_entry(to, Entry { file_id: FileId::random(), mode, xattrs: Xattrs::default(), ..old.clone() });
    }

    /// Makes a directory at a path that was looked at, and is free; it belongs to the owner of `like`.
    pub fn make_dir(&mut self, path: Vec<Vec<u8>>, like: &Entry, mode: u16) {
        let body = Body::Directory { names: TreeRef::default(), subdirs: 0 };
        let entry = Entry { uid: like.uid, gid: like.gid, ..new_entry(Ino::ROOT, mode, body, self.workspace.now()) };
        self.put_entry(path, entry);
    }

    fn put_entry(&mut self, path: Names, entry: Entry) {
        let op = GraftOp::Put { path: path.clone(), entry: Box::new(entry), linked: false };
        self.puts.insert(path, op);
    }

    /// Sets permission bits of what is there.
    pub fn set_mode(&mut self, path: &str, mode: u16) -> Result<()> {
        if let Spot::Taken(entry) = self.look(path)? {
            let names = names(path);
            let entry = Box::new(Entry { mode: mode & S_IRWXUGO, ..*entry });
            self.puts.insert(names.clone(), GraftOp::Attributes { path: names, entry });
        }
        Ok(())
    }

    /// Removes a name; the caller has looked at it.
    pub fn remove(&mut self, path: &str) {
        self.remove_at(names(path));
    }

    /// Removes a name given by its names from the root; the caller has looked at it.
    pub fn remove_at(&mut self, path: Vec<Vec<u8>>) {
        self.removed.insert(path);
    }

    /// Removes a directory when the change leaves nothing in it.
    pub fn remove_empty_dir(&mut self, path: &str) {
        self.emptied.insert(names(path));
    }

    /// Whether nothing would be done.
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.puts.is_empty()
    }

    /// Does all of it, as one version: its id. When it fails, nothing has changed. `None` when the version itself
    /// cannot be recorded for now: what was done is durable all the same.
    pub fn commit(self, message: &str) -> Result<Option<VersionId>> {
        self.workspace.check_writable()?;
        let holds_put = |dir: &Names| self.puts.keys().any(|put| put.len() > dir.len() && put.starts_with(dir));
        let dirs = self.emptied.iter().filter(|dir| !holds_put(dir));
        let mut removals: Vec<Names> = self.removed.iter().chain(dirs).cloned().collect();
        removals.sort();
        removals.dedup();
        let mut ops: Vec<GraftOp> = removals.into_iter().rev().map(|path| GraftOp::Remove { path }).collect();
        ops.extend(self.puts.into_values());
        let seen: Vec<Seen> = self.seen.into_iter().map(|(path, what)| Seen { path, what }).collect();
        let message = Some(message.to_owned());
        let reason = Reason { origin: Origin::Import, message, tag: None, always: false };
        let recorded = self.workspace.tree().graft_seen(&ops, &seen, &reason)?;
        drop(self.staging);
        match recorded {
            Ok(Checkpoint::Recorded(recorded)) => {
                self.workspace.publish_soon();
                Ok(Some(recorded.record.id))
            }
            Ok(Checkpoint::Unchanged) => Ok(None),
            Err(error) => {
                // Then it has to be durable by itself.
                self.workspace.tree().sync()?;
                tracing::warn!("done, and in no version yet: {error}");
                Ok(None)
            }
        }
    }
}

fn new_entry(ino: Ino, mode: u16, body: Body, time: Timestamp) -> Entry {
    Entry {
        ino,
        file_id: FileId::random(),
        mode,
        uid: nix::unistd::Uid::effective().as_raw(),
        gid: nix::unistd::Gid::effective().as_raw(),
        atime: time,
        mtime: time,
        ctime: time,
        xattrs: Xattrs::default(),
        body,
    }
}

fn names(path: &str) -> Names {
    split_path(path.as_bytes()).into_iter().map(<[u8]>::to_vec).collect()
}

fn kind(entry: &Entry) -> &'static str {
    match entry.body {
        Body::File(_) => "a file",
        Body::Directory { .. } => "a directory",
        Body::Symlink { .. } => "a symbolic link",
        Body::Fifo | Body::Socket | Body::CharDevice { .. } | Body::BlockDevice { .. } | Body::Link => "a special file",
    }
}

impl Spot {
    /// What the spot is for a decision; the digest is computed when it is not known.
    pub fn now(&self, workspace: &Workspace) -> Result<super::Now> {
        Ok(match self {
            Spot::Free => super::Now::Absent,
            Spot::Blocked(_, what) => super::Now::Other(what),
            Spot::Taken(entry) => match &entry.body {
                Body::File(FileBody { size: 0, content: Content::Empty, .. }) => {
                    super::Now::File(crate::version::index::sha256(b""))
                }
                Body::File(body) => super::Now::File(workspace.digest(body)?),
                _ => super::Now::Other(kind(entry)),
            },
        })
    }
}
