//! Files that others changed while they were being written here: when ours is published, the policy decides.

use super::inode::{Inode, Node};
use super::live::Worktree;
use super::open::Base;
use super::record::{Contest, Record};
use super::table::{Attempt, Stop, Table};
use super::{Invalidation, Name, Result};
use crate::base::clock::Timestamp;
use crate::base::ids::FileId;
use crate::version::entry::{Body, Entry, FileBody, Ino};
use crate::version::merge::{Policy, conflict_name};
use crate::version::refs::Policies;

impl Worktree {
    /// Settles what was published since.
    pub(super) fn settle_contests(&self, base: &Base) -> Result<()> {
        let open: Vec<Ino> = self.table().contests.keys().copied().collect();
        if open.is_empty() {
            return Ok(());
        }
        let policies = Policies::read(&base.refs, &self.pages())?;
        for ino in open {
            let _absorbing = self.absorbing.lock();
            // Not under `run`: this is done also while other changes have to wait.
            let mut table = self.table();
            match self.settle(&mut table, ino, &policies) {
                Ok(invalidations) => {
                    drop(table);
                    self.tell(invalidations);
                }
                Err(Stop::Failed(error)) => return Err(error),
                // Tried again with the next version.
                Err(Stop::Need(_) | Stop::Held) => {}
            }
        }
        Ok(())
    }

    fn settle(&self, table: &mut Table, ino: Ino, policies: &Policies) -> Attempt<Vec<Invalidation>> {
        let Some(contest) = table.contests.get(&ino).cloned() else { return Ok(Vec::new()) };
        let Some(inode) = table.find(ino).filter(|inode| inode.nlink > 0) else {
            table.contests.remove(&ino);
            return Ok(Vec::new());
        };
        let Node::File(file) = &inode.node else { return Ok(Vec::new()) };
        if file.draft.is_some() || !file.frozen.is_empty() {
            return Ok(Vec::new());
        }
        let Some(published) = &file.published else { return Ok(Vec::new()) };
        let ours = inode.to_entry(Some(published));
        let layer = file.next_layer;
        let any_name = |ino| table.names_of(&[ino].into()).remove(&ino)?.into_iter().min();
        let home = inode.home.clone().or_else(|| any_name(ino));
        let mut path = home.as_ref().map(|(dir, _)| table.path_of(*dir)).unwrap_or_default();
        path.extend(home.iter().map(|(_, name)| name.to_vec()));
        let outcome = decide(&contest, &ours, Table::policy_of(&table.locks, policies, &path.join(&b'/')));
        let mut records = Vec::new();
        let mut told = Vec::new();
        if let (Some((loser, time)), Some((parent, name))) = (&outcome.aside, &home) {
            let name = self.free_name(table, *parent, name, *time)?;
            let fresh = Entry { ino: table.allocate_ino(), file_id: FileId::random(), ..loser.clone() };
            told.push(Invalidation::Name { parent: *parent, name: name.clone() });
            told.push(Invalidation::Inode(*parent));
            let inode = Box::new(fresh);
            records.push(Record::Graft { parent: *parent, name: name.to_vec(), inode, published: true });
        }
        if let (true, Body::File(body)) = (outcome.theirs_stays, &contest.theirs.body) {
            records.push(Record::Publish { ino, layer, body: body.clone(), mtime: contest.theirs.mtime });
            told.push(Invalidation::Inode(ino));
        }
        records.push(Record::Contest { ino, contest: None });
        self.append(table, &records)?;
        for record in &records {
            table.apply(record)?;
        }
        Ok(told)
    }

    fn free_name(&self, table: &mut Table, parent: Ino, name: &[u8], time: Timestamp) -> Attempt<Name> {
        let children = table.children(parent)?;
        let mut number = 0;
        loop {
            let candidate = Name::from(conflict_name(time, name, number));
            if children.get(&candidate).is_none() {
                return Ok(candidate);
            }
            number += 1;
        }
    }
}

struct Outcome {
    theirs_stays: bool,
    /// The state that is put beside the file, and when it was recorded.
    aside: Option<(Entry, Timestamp)>,
}

fn decide(contest: &Contest, ours: &Entry, policy: Policy) -> Outcome {
    let same = |a: &FileBody, b: &FileBody| {
        a.size == b.size && (a.content == b.content || a.sha256.is_some() && a.sha256 == b.sha256)
    };
    let (Body::File(body), Body::File(theirs)) = (&ours.body, &contest.theirs.body) else {
        return Outcome { theirs_stays: false, aside: None };
    };
    if same(body, theirs) {
        return Outcome { theirs_stays: false, aside: None };
    }
    if same(body, &contest.base) {
        return Outcome { theirs_stays: true, aside: None };
    }
    let theirs_is_newer = contest.theirs.mtime >= ours.mtime;
    let theirs = || Some((contest.theirs.clone(), contest.time));
    match policy {
        Policy::KeepBoth | Policy::Merge => Outcome { theirs_stays: false, aside: theirs() },
        Policy::Ours => Outcome { theirs_stays: false, aside: None },
        Policy::LastWriteWins if !theirs_is_newer => Outcome { theirs_stays: false, aside: theirs() },
        Policy::LastWriteWins | Policy::Theirs | Policy::Yield => {
            Outcome { theirs_stays: true, aside: Some((ours.clone(), ours.mtime)) }
        }
    }
}

impl Table {
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
