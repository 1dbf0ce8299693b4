//! Looking at conflicts and settling them afterwards; policies; joining on request.

use super::opened::Workspace;
use super::restore::entries;
use super::{Result, WorkspaceError, split_path};
use crate::sync::SyncError;
use crate::version::entry::{Body, Entry};
use crate::version::index::{IndexRecord, Origin};
use crate::version::merge::{Policy, Unmerged, merge_lines};
use crate::version::pages::Pages;
use crate::version::refs::{Policies, set_policy};
use crate::version::tree::Edits;
use crate::worktree::{GraftOp, Reason, Wait};

/// Longest file that is merged on request, in bytes.
const TEXT_LEN_MAX: u64 = 16 * 1024 * 1024;

/// A file that was put beside another because both sides had changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beside {
    /// The file that kept its name.
    pub path: Vec<u8>,
    /// The file beside it.
    pub beside: Vec<u8>,
}

/// Which state stays when a conflict is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// The one that kept its name; what lies beside it goes.
    Ours,
    /// The one beside; it takes the name.
    Theirs,
    /// Both; the one beside becomes `STEM.theirs.EXTENSION`.
    Both,
    /// Both texts, merged line by line.
    Merge,
}

/// `conflict-YYYYMMDD.HHmmss.NAME`: the name it was made for, with a number perhaps.
fn original(name: &[u8]) -> Option<&[u8]> {
    let rest = name.strip_prefix(b"conflict-")?;
    let are_digits = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_digit);
    let (date, rest) = rest.split_at_checked(8)?;
    let (time, rest) = rest.strip_prefix(b".")?.split_at_checked(6)?;
    let name = rest.strip_prefix(b".")?;
    (are_digits(date) && are_digits(time) && !name.is_empty()).then_some(name)
}

/// Without `-n` at the end.
fn unnumbered(name: &[u8]) -> &[u8] {
    let digits = name.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
    match name[..name.len() - digits].strip_suffix(b"-") {
        Some(stem) if digits > 0 && !stem.is_empty() => stem,
        _ => name,
    }
}

/// Whether a name is that of a file which was put beside another of this name.
pub fn is_beside(name: &[u8], other: &[u8]) -> bool {
    original(name).is_some_and(|made_for| made_for == other || unnumbered(made_for) == other)
}

fn joined(dir: &[u8], name: &[u8]) -> Vec<u8> {
    crate::version::diff::join(dir, name).to_vec()
}

fn names(path: &[u8]) -> Vec<Vec<u8>> {
    split_path(path).into_iter().map(<[u8]>::to_vec).collect()
}

impl Workspace {
    /// Records what changed, takes in what others published, and publishes; true when something came in.
    pub fn sync(&self) -> Result<bool> {
        self.check_writable()?;
        self.record(Reason::automatic())?;
        let has_joined = self.pull()?;
        match self.publish(&|| self.background.is_stopping()) {
            Ok(_) | Err(SyncError::Stopped) => Ok(has_joined),
            Err(error) => Err(error.into()),
        }
    }

    /// All files that lie beside another one after a conflict, found by their names.
    pub fn conflicts(&self) -> Result<Vec<Beside>> {
        let known = self.parts.events.open_conflicts();
        let present = self.present()?;
        let mut found = Vec::new();
        let mut dirs = vec![(Vec::new(), present.root.dir.clone())];
        while let Some((dir, entry)) = dirs.pop() {
            let here = entries(&Pages(self.blobs()), &entry)?;
            for (name, _) in &here {
                if let Some(made_for) = original(name) {
                    let is_there = here.iter().any(|(other, _)| other == made_for);
                    let made_for = if is_there { made_for } else { unnumbered(made_for) };
                    found.push(Beside { path: joined(&dir, made_for), beside: joined(&dir, name) });
                }
            }
            dirs.extend(
                here.into_iter().filter(|(_, entry)| entry.is_dir()).map(|(name, entry)| (joined(&dir, &name), entry)),
            );
        }
        found.sort_by(|a, b| (&a.path, &a.beside).cmp(&(&b.path, &b.beside)));
        self.parts.events.listed(known, found.len());
        Ok(found)
    }

    /// Settles the conflicts of a path (either file's); says which.
    pub fn resolve(&self, path: &[u8], take: Take) -> Result<Vec<Beside>> {
        let _history = self.history.lock();
        self.check_writable()?;
        let path = split_path(path).join(&b'/');
        let mut chosen = self.conflicts()?;
        chosen.retain(|conflict| conflict.path == path || conflict.beside == path);
        for conflict in &chosen {
            let present = self.present()?;
            let Some(theirs) = self.find(&present, &split_path(&conflict.beside))? else { continue };
            let ours = self.find(&present, &split_path(&conflict.path))?;
            let remove = GraftOp::Remove { path: names(&conflict.beside) };
            let ops = match take {
                Take::Ours => vec![remove],
                Take::Theirs => {
                    let file_id = ours.as_ref().map_or(theirs.file_id, |ours| ours.file_id);
                    let entry = Box::new(Entry { file_id, ..theirs });
                    vec![remove, GraftOp::Put { path: names(&conflict.path), entry, linked: false }]
                }
                Take::Both => {
                    let path = names(&self.free_name(&present, &conflict.path)?);
                    vec![remove, GraftOp::Put { path, entry: Box::new(theirs), linked: false }]
                }
                Take::Merge => {
                    self.merge_texts(&present, conflict, ours.as_ref(), &theirs)?;
                    vec![remove]
                }
            };
            self.tree().graft(&ops)?;
        }
        if !chosen.is_empty() {
            self.parts.events.settled(chosen.len());
            let message = Some(format!("resolve {}", String::from_utf8_lossy(&path)));
            self.record(Reason { origin: Origin::Snapshot, message, tag: None, always: false })?;
        }
        Ok(chosen)
    }

    /// `STEM.theirs.EXTENSION`, numbered where that is taken.
    fn free_name(&self, present: &IndexRecord, path: &[u8]) -> Result<Vec<u8>> {
        let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let (dir, name) = path.split_at(at);
        let dot = name.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0).unwrap_or(name.len());
        let mut number = 0;
        loop {
            let tail = if number == 0 { String::new() } else { format!("-{number}") };
            let candidate = [dir, &name[..dot], b".theirs", tail.as_bytes(), &name[dot..]].concat();
            if self.find(present, &split_path(&candidate))?.is_none() {
                return Ok(candidate);
            }
            number += 1;
        }
    }

    fn text(&self, entry: Option<&Entry>) -> Result<Option<Vec<u8>>> {
        let Some(Entry { body: Body::File(file), .. }) = entry else { return Ok(None) };
        if file.size > TEXT_LEN_MAX {
            return Ok(None);
        }
        let bytes = self.read_file(file, 0, usize::try_from(file.size).unwrap_or(0))?;
        Ok((!bytes.contains(&0)).then_some(bytes))
    }

    /// Merges what lies beside a file into it.
    fn merge_texts(
        &self,
        present: &IndexRecord,
        conflict: &Beside,
        ours: Option<&Entry>,
        theirs: &Entry,
    ) -> Result<()> {
        let unmergeable = |reason: &str| WorkspaceError::Unmerged {
            path: String::from_utf8_lossy(&conflict.path).into_owned(),
            reason: reason.to_owned(),
        };
        let (Some(ours), Some(theirs)) = (self.text(ours)?, self.text(Some(theirs))?) else {
            return Err(unmergeable("it is no text on both sides, or too long"));
        };
        let base = self.text(self.before_conflict(conflict)?.as_ref())?.unwrap_or_default();
        let merged = merge_lines(&base, &ours, &theirs).map_err(|why| match why {
            Unmerged::Overlapping => unmergeable("both changed the same lines"),
            Unmerged::TooDifferent => unmergeable("too much differs to merge it line by line"),
        })?;
        let tree = self.tree();
        let Some(entry) = self.find(present, &split_path(&conflict.path))? else { return Ok(()) };
        tree.open(entry.ino, true, true, 0, Wait::Yes)?;
        let written = tree.write(entry.ino, 0, &merged, 0, Wait::Yes);
        tree.release(entry.ino, true);
        Ok(written?)
    }

    /// The file as it was before both sides changed it: in the ancestor of the merge that brought the conflict.
    fn before_conflict(&self, conflict: &Beside) -> Result<Option<Entry>> {
        let beside = split_path(&conflict.beside);
        for listed in self.newest_first()? {
            let listed = listed?;
            let [ours, theirs] = listed.summary.parents[..] else { continue };
            let (ours, theirs) = (self.version(ours)?, self.version(theirs)?);
            let brought = self.find(&*self.version(listed.id)?, &beside)?.is_some()
                && self.find(&ours, &beside)?.is_none()
                && self.find(&theirs, &beside)?.is_none();
            if brought {
                let ancestor = self.parts.publisher.common_ancestor(&ours, &theirs)?;
                return match ancestor {
                    Some(ancestor) => self.find(&ancestor, &split_path(&conflict.path)),
                    None => Ok(None),
                };
            }
        }
        Ok(None)
    }

    /// The patterns of paths that have a policy; the empty one is for everything.
    pub fn policies(&self) -> Result<Vec<(Vec<u8>, Policy)>> {
        let policies = Policies::read(&self.tree().base().refs, &Pages(self.blobs()))?;
        Ok(policies.all().map(|(pattern, policy)| (pattern.to_vec(), policy)).collect())
    }

    /// Sets what happens to files that both sides changed, or (`None`) leaves it to shorter patterns.
    pub fn set_policy(&self, pattern: &[u8], policy: Option<Policy>) -> Result<()> {
        self.check_writable()?;
        let _history = self.history.lock();
        let mut edits = Edits::new();
        set_policy(&mut edits, pattern, policy);
        self.tree().edit_refs(&edits)?;
        self.background.publish_now();
        Ok(())
    }
}
