//! Files that others changed while they were being written here: when ours is published, the policy decides.

use std::collections::HashMap;
use std::sync::Arc;

use super::graft::{GraftOp, Plan, load_path};
use super::inode::{File, Inode};
use super::join::Merging;
use super::live::{LOADS_MAX, Worktree};
use super::load::load;
use super::local_blobs::Own;
use super::open::Base;
use super::record::{Bytes, Contest, Record};
use super::table::{Attempt, Stop, Table};
use super::{Invalidation, Result, WorkError};
use crate::base::clock::Timestamp;
use crate::base::ids::{BlobId, FileId};
use crate::blob::{BlobKind, codec};
use crate::version::entry::{Body, Entry, FileBody, Ino};
use crate::version::merge::{BACKUP_DIR, Clash, Conflict, Policy, backup_name, conflict_name};
use crate::version::refs::Policies;
use crate::version::tree::TreeRef;

/// What else a policy may need: the text of both, merged, if ours is still this.
struct Texts {
    ours: FileBody,
    merged: FileBody,
}

impl Worktree {
    /// Settles what was published since.
    pub(super) fn settle_contests(&self, base: &Base) -> Result<()> {
        let open: Vec<Ino> = self.table().contests.keys().copied().collect();
        if open.is_empty() {
            return Ok(());
        }
        let policies = Policies::read(&base.refs, &self.pages())?;
        for ino in open {
            let texts = self.merge_contest(ino, &policies).unwrap_or_else(|error| {
                tracing::warn!("{} is not merged and both states are kept: {error}", self.describe(ino));
                None
            });
            self.settle_contest(ino, &policies, texts.as_ref())?;
        }
        Ok(())
    }

    fn settle_contest(&self, ino: Ino, policies: &Policies, texts: Option<&Texts>) -> Result<()> {
        // Not under `run`: this is done also while other changes have to wait.
        for _ in 0..LOADS_MAX {
            let order = {
                // Nobody is about to refer to blobs of what is published here, or to drop them.
                let _absorbing = self.absorbing.lock();
                let mut table = self.table();
                match self.settle(&mut table, ino, policies, texts) {
                    Ok(invalidations) => {
                        drop(table);
                        self.tell(invalidations);
                        return Ok(());
                    }
                    Err(Stop::Failed(error)) => return Err(error),
                    // Tried again with the next version.
                    Err(Stop::Held) => return Ok(()),
                    Err(Stop::Need(need)) => table.order(need),
                }
            };
            let loaded = load(&self.pages(), order)?;
            self.table().install(loaded);
        }
        Ok(())
    }

    /// The texts of both sides merged, where the policy asks for it and it can be done.
    fn merge_contest(&self, ino: Ino, policies: &Policies) -> Result<Option<Texts>> {
        let (contest, ours) = {
            let table = self.table();
            let (Some(contest), Some(ours)) = (table.contests.get(&ino), table.settled_body(ino)) else {
                return Ok(None);
            };
            if Table::policy_of(&table.locks, policies, &table.home_path(ino).join(&b'/')) != Policy::Merge {
                return Ok(None);
            }
            (contest.clone(), ours)
        };
        let Body::File(theirs) = &contest.theirs.body else { return Ok(None) };
        if same(&ours, theirs) || same(&ours, &contest.base) {
            return Ok(None);
        }
        let io = self.pages();
        let merging = Merging::new(self, &io);
        let Some(merged) = merging.join(&contest.base, &ours, theirs)? else { return Ok(None) };
        let mut made = merging.into_made();
        made.retain(|id, _| !self.parts.blobs.is_stored(id).unwrap_or(false));
        if !made.is_empty() {
            let _absorbing = self.absorbing.lock();
            self.append_blobs(&self.made_blobs(ino, made))?;
        }
        Ok(Some(Texts { ours, merged }))
    }

    /// Records of new content.
    fn made_blobs(&self, owner: Ino, made: HashMap<BlobId, Vec<u8>>) -> Vec<Record> {
        let record = |(id, bytes): (BlobId, Vec<u8>)| match self.local.own(&id, owner) {
            Own::Known => None,
            Own::New => Some(Record::Share { owner, id }),
            Own::Absent => {
                let sealed = codec::encode(&self.parts.keys, BlobKind::Content, id, &bytes);
                let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
                Some(Record::Blob { owner, id, page: false, len, sealed: Bytes(Arc::new(sealed.into_bytes())) })
            }
        };
        made.into_iter().filter_map(record).collect()
    }

    fn settle(
        &self,
        table: &mut Table,
        ino: Ino,
        policies: &Policies,
        texts: Option<&Texts>,
    ) -> Attempt<Vec<Invalidation>> {
        let Some(contest) = table.contests.get(&ino).cloned() else { return Ok(Vec::new()) };
        if table.find(ino).is_none_or(|inode| inode.nlink == 0) {
            table.contests.remove(&ino);
            return Ok(Vec::new());
        }
        let (Some(body), Some(inode)) = (table.settled_body(ino), table.find(ino)) else { return Ok(Vec::new()) };
        let Ok(File { published: Some(published), next_layer, .. }) = inode.file() else {
            return Ok(Vec::new());
        };
        let (ours, layer) = (inode.to_entry(Some(published)), *next_layer);
        let path = table.home_path(ino);
        let merged = texts.filter(|texts| texts.ours == body).map(|texts| &texts.merged);
        let policy = Table::policy_of(&table.locks, policies, &path.join(&b'/'));
        let outcome = decide(&contest, &ours, policy, merged);
        let mut plan = Plan::new(self.now());
        let beside = match outcome.aside {
            Some(aside) if !path.is_empty() => Some(put_aside(table, &mut plan, &path, &aside)?),
            _ => None,
        };
        self.share_content(ino, &mut plan);
        if let Some((body, mtime)) = outcome.stays {
            plan.records.push(Record::Publish { ino, layer, body, mtime });
            plan.invalidations.push(Invalidation::Inode(ino));
        }
        plan.records.push(Record::Contest { ino, contest: None });
        self.commit_group(table, plan.records)?;
        if outcome.is_conflict {
            let beside = beside.map(|names| names.join(&b'/'));
            self.settled.lock().push(Conflict { path: path.join(&b'/'), clash: Clash::Edited, beside });
        }
        Ok(plan.invalidations)
    }

    /// What is put aside needs the content of the file, too, which may be known by its owner alone.
    fn share_content(&self, ino: Ino, plan: &mut Plan) {
        let put = plan.records.iter().find_map(|record| match record {
            Record::Graft { inode, .. } if matches!(inode.body, Body::File(_)) => Some(inode.ino),
            _ => None,
        });
        let Some(owner) = put else { return };
        let mut owned = Vec::new();
        self.local.each(&mut |id, blob| owned.extend(blob.owners.contains(&ino).then_some(*id)));
        let shared = owned.into_iter().filter(|id| matches!(self.local.own(id, owner), Own::New));
        plan.records.extend(shared.map(|id| Record::Share { owner, id }));
    }

    /// Conflicts that were settled when a file was closed, since this was asked last.
    pub fn take_settled(&self) -> Vec<Conflict> {
        std::mem::take(&mut *self.settled.lock())
    }
}

/// Puts what lost beside the file, or into `backup/`. Returns where.
fn put_aside(table: &mut Table, plan: &mut Plan, path: &[Vec<u8>], aside: &Aside) -> Attempt<Vec<Vec<u8>>> {
    let (name, dirs) = path.split_last().ok_or(WorkError::Invalid)?;
    let mut target = dirs.to_vec();
    if aside.is_backup {
        target.insert(0, BACKUP_DIR.to_vec());
        load_path(table, &target)?;
        if leads_through_file(table, &target)? {
            target = dirs.to_vec();
        }
    }
    let is_backup = target.len() > dirs.len();
    load_path(table, &target)?;
    for len in 1..=target.len() {
        let path = target[..len].to_vec();
        if find_path(table, &path)?.is_none() {
            let body = Body::Directory { names: TreeRef::default(), subdirs: 0 };
            let (file_id, xattrs) = (FileId::random(), Default::default());
            let entry = Box::new(Entry { body, file_id, xattrs, mode: 0o755, ..aside.entry.clone() });
            plan.add(table, &GraftOp::Put { path, entry, linked: false })?;
        }
    }
    let parent = find_path(table, &target)?;
    let mut number = 0;
    let name = loop {
        let candidate = match is_backup {
            true => backup_name(aside.time, name, number),
            false => conflict_name(aside.time, name, number),
        };
        match parent {
            Some(parent) if table.child(parent, &candidate)?.is_some() => number += 1,
            _ => break candidate,
        }
    };
    target.push(name);
    let entry = Box::new(Entry { file_id: FileId::random(), ..aside.entry.clone() });
    plan.add(table, &GraftOp::Put { path: target.clone(), entry, linked: false })?;
    Ok(target)
}

/// What a path of names leads to.
fn find_path(table: &mut Table, path: &[Vec<u8>]) -> Attempt<Option<Ino>> {
    let mut at = Ino::ROOT;
    for name in path {
        match table.child(at, name)? {
            Some(ino) => at = ino,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}

/// Whether something on the way is no directory.
fn leads_through_file(table: &mut Table, path: &[Vec<u8>]) -> Attempt<bool> {
    let mut at = Ino::ROOT;
    for name in path {
        match table.child(at, name)? {
            Some(ino) if table.get(ino)?.is_dir() => at = ino,
            Some(_) => return Ok(true),
            None => return Ok(false),
        }
    }
    Ok(false)
}

/// A state that is put somewhere else, and when it was recorded or written.
struct Aside {
    entry: Entry,
    time: Timestamp,
    is_backup: bool,
}

#[derive(Default)]
struct Outcome {
    /// What the file has from now on, when it is not what was published here.
    stays: Option<(FileBody, Timestamp)>,
    aside: Option<Aside>,
    /// Whether both changed it in ways that cannot both stand.
    is_conflict: bool,
}

fn same(a: &FileBody, b: &FileBody) -> bool {
    a.size == b.size && (a.content == b.content || a.sha256.is_some() && a.sha256 == b.sha256)
}

fn decide(contest: &Contest, ours: &Entry, policy: Policy, merged: Option<&FileBody>) -> Outcome {
    let (Body::File(body), Body::File(theirs)) = (&ours.body, &contest.theirs.body) else {
        return Outcome::default();
    };
    if same(body, theirs) {
        return Outcome::default();
    }
    let they_stay = || Some((theirs.clone(), contest.theirs.mtime));
    if same(body, &contest.base) {
        return Outcome { stays: they_stay(), ..Outcome::default() };
    }
    if let (Policy::Merge, Some(merged)) = (policy, merged) {
        let mtime = ours.mtime.max(contest.theirs.mtime);
        return Outcome { stays: Some((merged.clone(), mtime)), ..Outcome::default() };
    }
    let put_by = |is_backup| Some(Aside { entry: contest.theirs.clone(), time: contest.time, is_backup });
    let our_loss = || Some(Aside { entry: ours.clone(), time: ours.mtime, is_backup: true });
    let is_newer = contest.theirs.mtime > ours.mtime;
    let (stays, aside) = match policy {
        Policy::KeepBoth | Policy::Merge => (None, put_by(false)),
        Policy::Ours => (None, None),
        Policy::LastWriteWins if !is_newer => (None, put_by(true)),
        Policy::LastWriteWins => (they_stay(), our_loss()),
        // No version has ours, so that it is not in the history.
        Policy::Theirs => (they_stay(), our_loss()),
        Policy::Yield => (they_stay(), our_loss().map(|aside| Aside { is_backup: false, ..aside })),
    };
    Outcome { stays, aside, is_conflict: true }
}

impl Table {
    /// The content of a file that nobody is changing.
    fn settled_body(&self, ino: Ino) -> Option<FileBody> {
        let file = self.find(ino)?.file().ok()?;
        let published = file.published.as_ref()?;
        (file.draft.is_none() && file.frozen.is_empty()).then(|| published.body.clone())
    }

    /// The names that lead to a file, one of several.
    fn home_path(&self, ino: Ino) -> Vec<Vec<u8>> {
        let any_name = || self.names_of(&[ino].into()).remove(&ino)?.into_iter().min();
        let Some((dir, name)) = self.find(ino).and_then(|inode| inode.home.clone()).or_else(any_name) else {
            return Vec::new();
        };
        let mut path = self.path_of(dir);
        path.push(name.to_vec());
        path
    }

    /// Files with unpublished content, or that may get some.
    pub(super) fn written(&self) -> Vec<&Inode> {
        let is_written =
            |inode: &&Inode| inode.nlink > 0 && inode.file().is_ok_and(|file| file.writers > 0 || file.draft.is_some());
        self.all().filter(is_written).collect()
    }

    /// The names that lead to a directory.
    pub(super) fn path_of(&self, dir: Ino) -> Vec<Vec<u8>> {
        let mut path = Vec::new();
        let mut at = dir;
        while let Some((parent, name)) = self.find(at).and_then(|inode| inode.home.clone()) {
            path.push(name.to_vec());
            at = parent;
            if path.len() > self.len() {
                break;
            }
        }
        path.reverse();
        path
    }
}
