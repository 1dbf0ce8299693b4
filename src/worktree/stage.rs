//! Content that is stored here before any name stands for it, and changes of many names that rest on what was seen.

use std::io::Read;
use std::sync::Arc;

use sha2::Digest;

use super::absorb::{Absorbed, Purpose};
use super::checkpoint::{Checkpoint, Reason};
use super::graft::GraftOp;
use super::inode::{Inode, Layer, Node};
use super::live::{Wait, Worktree};
use super::table::{Attempt, Table};
use super::{Result, WorkError};
use crate::base::clock::Timestamp;
use crate::base::ids::Sha256;
use crate::version::entry::{FileBody, Ino};

/// Bytes of content in memory at once.
const PIECE_LEN: u64 = 16 << 20;

/// Keeps content that was put away for names which are still to be given; what got no name goes when it is dropped.
pub struct Staging {
    tree: Arc<Worktree>,
    inos: Vec<Ino>,
}

/// Why content was not put away.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// Where it comes from failed.
    #[error("it cannot be read: {0}")]
    Source(std::io::Error),
    /// The tree did not take it.
    #[error(transparent)]
    Tree(#[from] WorkError),
}

/// What a path stood for when a change was planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Names from the root.
    pub path: Vec<Vec<u8>>,
    /// What was there.
    pub what: Sight,
}

/// What stood at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// Nothing.
    Nothing,
    /// A directory; which names it holds does not matter.
    Directory,
    /// This inode, last changed then.
    Inode(Ino, Timestamp),
}

impl Worktree {
    /// Begins to put content away.
    pub fn stage_content(self: &Arc<Self>) -> Staging {
        Staging { tree: self.clone(), inos: Vec::new() }
    }

    /// As [`graft`](Self::graft), unless a path has changed since it was seen; then records a version. When it fails,
    /// nothing has changed; when only the version cannot be recorded, that comes back inside of `Ok`.
    pub fn graft_seen(&self, ops: &[GraftOp], seen: &[Seen], reason: &Reason) -> Result<Result<Checkpoint>> {
        // A join would wait for this, and this for the join.
        let _joining = self.joining.lock();
        let mut state = self.checkpoint.lock();
        self.room_for_checkpoint()?;
        self.graft_if(ops, seen)?;
        Ok(self.checkpoint_in(&mut state, reason))
    }
}

impl Staging {
    /// Puts content away, all there is to read. The inode number and the body are for one [`GraftOp::Put`].
    pub fn add(&mut self, source: &mut dyn Read) -> std::result::Result<(Ino, FileBody), StageError> {
        self.tree.writable()?;
        let ino = {
            let mut table = self.tree.table();
            let ino = table.allocate_ino();
            table.staging.insert(ino, FileBody::default());
            ino
        };
        self.inos.push(ino);
        let (mut body, mut hasher) = (FileBody::default(), sha2::Sha256::new());
        loop {
            let mut piece = Vec::new();
            (&mut *source).take(PIECE_LEN).read_to_end(&mut piece).map_err(StageError::Source)?;
            if piece.is_empty() {
                break;
            }
            self.tree.make_room(piece.len() as u64, Wait::Yes)?;
            hasher.update(&piece);
            let is_last = (piece.len() as u64) < PIECE_LEN;
            body = self.append(ino, body, &piece)?;
            if is_last {
                break;
            }
        }
        body.sha256 = Some(Sha256(hasher.finalize().into()));
        Ok((ino, body))
    }

    fn append(&self, ino: Ino, body: FileBody, piece: &[u8]) -> Result<FileBody> {
        let tree = &*self.tree;
        let _absorbing = tree.absorbing.lock();
        let mut layer = Layer::new(0, body.size, Timestamp::default());
        layer.size += piece.len() as u64;
        layer.extents.write(body.size, piece, true);
        let Absorbed { body, records, .. } = tree.absorb_layers(ino, body, vec![Arc::new(layer)], Purpose::Stage)?;
        tree.append_blobs(&records)?;
        tree.table().staging.insert(ino, body.clone());
        Ok(body)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let mut table = self.tree.table();
        for ino in &self.inos {
            table.staging.remove(ino);
        }
    }
}

/// Fails when a path is no longer what it was, or a program is writing to it.
pub(super) fn check_seen(table: &mut Table, seen: &[Seen]) -> Attempt<()> {
    for Seen { path, what } in seen {
        let now = find(table, path)?;
        let is_same = match (what, now.map(|ino| table.get(ino)).transpose()?) {
            (Sight::Nothing, None) => true,
            (Sight::Directory, Some(inode)) => inode.is_dir(),
            (Sight::Inode(ino, ctime), Some(inode)) => (inode.ino, inode.ctime) == (*ino, *ctime) && is_settled(inode),
            _ => false,
        };
        if !is_same {
            let path = String::from_utf8_lossy(&path.join(&b'/')).into_owned();
            return Err(WorkError::Changed { path }.into());
        }
    }
    Ok(())
}

fn is_settled(inode: &Inode) -> bool {
    !matches!(&inode.node, Node::File(file) if file.draft.is_some())
}

fn find(table: &mut Table, path: &[Vec<u8>]) -> Attempt<Option<Ino>> {
    let mut at = Ino::ROOT;
    for name in path {
        if !table.get(at)?.is_dir() {
            return Ok(None);
        }
        match table.child(at, name)? {
            Some(ino) => at = ino,
            None => return Ok(None),
        }
    }
    Ok(Some(at))
}
