//! The live tree by example: content of all sizes, names, checkpoints, damage.

mod content;
mod journal;
mod sharing;

use kura::base::ids::Sha256;
use kura::version::entry::{Body, FileBody, Ino};
use kura::worktree::{Attr, Caller, NewNode, Reason, Wait, Worktree};

use crate::rig::Rig;

const CALLER: Caller = Caller { uid: 0, gid: 0 };

/// Reproducible noise.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend(state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// Makes an open file.
fn create(tree: &Worktree, name: &str) -> Attr {
    tree.make(Ino::ROOT, name.as_bytes(), &NewNode::File, 0o644, CALLER, true, Wait::Yes).unwrap()
}

/// Makes a file with content and closes it.
fn save(tree: &Worktree, name: &str, content: &[u8]) -> Ino {
    let ino = create(tree, name).ino;
    write(tree, ino, 0, content);
    tree.release(ino, true);
    ino
}

/// Writes in pieces, as the kernel does.
fn write(tree: &Worktree, ino: Ino, offset: u64, content: &[u8]) {
    for (number, piece) in content.chunks(1 << 20).enumerate() {
        tree.write(ino, offset + ((number as u64) << 20), piece, 0, Wait::Yes).unwrap();
    }
}

fn read(tree: &Worktree, ino: Ino) -> Vec<u8> {
    let size = usize::try_from(tree.getattr(ino, Wait::Yes).unwrap().size).unwrap();
    tree.read(ino, 0, size, Wait::Yes).unwrap()
}

fn checkpoint(tree: &Worktree) {
    tree.checkpoint(&Reason::automatic()).unwrap();
}

/// The body of a file in the newest version.
fn recorded(rig: &Rig, tree: &Worktree, name: &str) -> FileBody {
    let base = tree.base();
    let entry = base.index.root.find(&rig.pages(&base), &[name.as_bytes()]).unwrap().expect("the version has it");
    match entry.body {
        Body::File(body) => body,
        other => panic!("{other:?}"),
    }
}

fn digest(content: &[u8]) -> Option<Sha256> {
    Some(crate::rig::sha256(content))
}
