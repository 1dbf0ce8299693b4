//! Names and attributes: lookup, listing, making, linking, removing, renaming, extended attributes.

use super::attr::{Changes, FileKind, NewNode, SetTime};
use super::extents::PieceData;
use super::inode::{File, Inode, Layer, Node};
use super::journal::Position;
use super::live::{Wait, Worktree};
use super::record::{AttrSet, Bytes, Node as NodeRecord, Record};
use super::table::{Attempt, DirItem, Table};
use super::{Attr, Caller, Result, WorkError};
use crate::base::clock::Timestamp;
use crate::base::ids::FileId;
use crate::base::limits::{NAME_LEN_MAX, SYMLINK_LEN_MAX, XATTR_TOTAL_LEN_MAX, XATTR_VALUE_LEN_MAX};
use crate::version::entry::{Body, FileBody, Ino, Xattrs, name_ok};
use crate::version::tree::TreeRef;

/// How a rename treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Fail with [`WorkError::Exists`].
    NoReplace,
    /// Let the two names change places.
    Exchange,
}

/// How setting an extended attribute treats an existing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    Set,
    /// Fail with [`WorkError::Exists`] when it is there.
    Create,
    /// Fail with [`WorkError::NoData`] when it is not.
    Replace,
}

const S_ISUID: u16 = 0o4000;
const S_ISGID: u16 = 0o2000;
const S_IXGRP: u16 = 0o0010;
/// Names of a directory that are copied out together.
const LISTED_TOGETHER: usize = 1024;
/// As ext4.
const LINKS_MAX: u32 = 65_000;
/// To write so much takes a disk no longer than to be asked for anything.
const SHORT_SYNC_LEN_MAX: u64 = 1024 * 1024;

/// The mode after the bits that lend rights were taken.
pub(super) fn without_privileges(mode: u16) -> u16 {
    let mode = mode & !S_ISUID;
    if mode & S_IXGRP != 0 { mode & !S_ISGID } else { mode }
}

fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_LEN_MAX {
        return Err(WorkError::NameTooLong);
    }
    if name_ok(name) { Ok(()) } else { Err(WorkError::Invalid) }
}

impl Worktree {
    /// The inode of a name; counts as one more reference by the kernel.
    pub fn lookup(&self, parent: Ino, name: &[u8], wait: Wait) -> Result<Attr> {
        if name.len() > NAME_LEN_MAX {
            return Err(WorkError::NameTooLong);
        }
        self.run(wait, |table| {
            let ino = table.child(parent, name)?.ok_or(WorkError::NotFound)?;
            refer(table, ino)
        })
    }

    /// The directory that holds a directory; the root holds itself.
    pub fn parent(&self, dir: Ino, wait: Wait) -> Result<Ino> {
        self.run(wait, |table| Ok(table.get(dir)?.home.as_ref().map_or(Ino::ROOT, |(parent, _)| *parent)))
    }

    /// Hands the names after `cookie` to `each` until it returns false. With `refer`, every name it
    /// accepts counts as one more reference by the kernel.
    pub fn readdir(
        &self,
        dir: Ino,
        cookie: u64,
        refer: bool,
        wait: Wait,
        each: &mut dyn FnMut(&DirItem) -> bool,
    ) -> Result<()> {
        let mut after = cookie;
        self.run(wait, |table| {
            table.children(dir)?.listed = true;
            loop {
                let names: Vec<(u64, super::Name, Ino)> = table
                    .children(dir)?
                    .after(after)
                    .take(LISTED_TOGETHER)
                    .map(|(cookie, name, ino)| (cookie, name.clone(), ino))
                    .collect();
                if names.is_empty() {
                    return Ok(());
                }
                for (cookie, name, ino) in names {
                    let attr = table.find(ino).ok_or(super::table::Need::Link(ino))?.attr();
                    if !each(&DirItem { name, cookie, attr }) {
                        return Ok(());
                    }
                    after = cookie;
                    if refer {
                        table.get_mut(ino)?.lookups += 1;
                    }
                }
            }
        })
    }

    /// Whether a directory has names in it.
    pub fn is_empty_dir(&self, dir: Ino, wait: Wait) -> Result<bool> {
        self.run(wait, |table| Ok(table.children(dir)?.is_empty()))
    }

    /// Where a symbolic link points.
    pub fn readlink(&self, ino: Ino, wait: Wait) -> Result<Vec<u8>> {
        self.run(wait, |table| match &table.get(ino)?.node {
            Node::Symlink(target) => Ok(target.to_vec()),
            _ => Err(WorkError::Invalid.into()),
        })
    }

    /// Makes a node with the permission bits `mode`; counts as one reference by the kernel. With
    /// `open`, a regular file is opened for writing as well, in the same step.
    pub fn make(
        &self,
        parent: Ino,
        name: &[u8],
        node: &NewNode,
        mode: u16,
        caller: Caller,
        open: bool,
        wait: Wait,
    ) -> Result<Attr> {
        self.writable()?;
        check_name(name)?;
        if matches!(node, NewNode::Symlink(target) if target.is_empty() || target.len() > SYMLINK_LEN_MAX) {
            return Err(WorkError::NameTooLong);
        }
        self.room_for_name()?;
        let attr = self.run(wait, |table| {
            if table.child(parent, name)?.is_some() {
                return Err(WorkError::Exists.into());
            }
            table.check_name_unlocked(parent, name)?;
            let dir = table.get(parent)?;
            if dir.nlink == 0 {
                return Err(WorkError::NotFound.into());
            }
            let inherits = dir.mode & S_ISGID != 0;
            let gid = if inherits { dir.gid } else { caller.gid };
            let is_dir = matches!(node, NewNode::Directory);
            let mode = if is_dir && inherits { mode | S_ISGID } else { mode } & 0o7777;
            let ino = table.allocate_ino();
            let file_id = FileId::random();
            let node =
                NodeRecord { ino, file_id, mode, uid: caller.uid, gid, body: body_of(node), xattrs: Xattrs::new() };
            let is_file = matches!(node.body, Body::File(_));
            let mut records = vec![Record::Create { parent, name: name.to_vec(), node, time: self.now() }];
            if is_file && !open {
                records.push(Record::Resize { ino, layer: 0, size: 0, time: self.now() });
                records.push(Record::Complete { ino, layer: 0 });
            }
            self.commit(table, &records)?;
            if open {
                let inode = table.get_mut(ino)?;
                inode.opens += 1;
                inode.file_mut()?.writers += 1;
            }
            refer(table, ino)
        })?;
        if attr.kind == FileKind::File && !open {
            self.wake();
        }
        Ok(attr)
    }

    /// Gives an inode another name; counts as one reference by the kernel.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8], wait: Wait) -> Result<Attr> {
        self.writable()?;
        check_name(name)?;
        self.room_for_name()?;
        self.run(wait, |table| {
            let inode = table.get(ino)?;
            match (inode.is_dir(), inode.nlink) {
                (true, _) => return Err(WorkError::NotPermitted.into()),
                (_, 0) => return Err(WorkError::NotFound.into()),
                (_, LINKS_MAX..) => return Err(WorkError::TooManyLinks.into()),
                _ => {}
            }
            if table.child(parent, name)?.is_some() {
                return Err(WorkError::Exists.into());
            }
            if table.get(parent)?.nlink == 0 {
                return Err(WorkError::NotFound.into());
            }
            table.check_name_unlocked(parent, name)?;
            table.check_inode_unlocked(ino)?;
            self.commit(table, &[Record::Link { ino, parent, name: name.to_vec(), time: self.now() }])?;
            refer(table, ino)
        })
    }

    /// Removes a name that is not a directory's.
    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> Result<()> {
        self.writable()?;
        self.run(wait, |table| {
            let ino = table.child(parent, name)?.ok_or(WorkError::NotFound)?;
            if table.get(ino)?.is_dir() {
                return Err(WorkError::IsADirectory.into());
            }
            table.check_name_movable(parent, name)?;
            self.commit(table, &[Record::Remove { parent, name: name.to_vec(), time: self.now() }])?;
            Ok(())
        })
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8], wait: Wait) -> Result<()> {
        self.writable()?;
        self.run(wait, |table| {
            let ino = table.child(parent, name)?.ok_or(WorkError::NotFound)?;
            if !table.children(ino)?.is_empty() {
                return Err(WorkError::NotEmpty.into());
            }
            table.check_name_movable(parent, name)?;
            self.commit(table, &[Record::Remove { parent, name: name.to_vec(), time: self.now() }])?;
            Ok(())
        })
    }

    /// Moves a name.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode, wait: Wait) -> Result<()> {
        self.writable()?;
        check_name(to.1)?;
        let published = self.run(wait, |table| {
            let ino = table.child(from.0, from.1)?.ok_or(WorkError::NotFound)?;
            let target = table.child(to.0, to.1)?;
            check_rename(table, ino, from.0, to.0, target, mode)?;
            if target == Some(ino) {
                return Ok(false);
            }
            table.check_name_movable(from.0, from.1)?;
            table.check_name_movable(to.0, to.1)?;
            let mut records = Vec::new();
            let over = target.is_some() && mode == RenameMode::Replace;
            if over && let Node::File(_) = &table.get(ino)?.node {
                self.complete(table, ino, &mut records)?;
            }
            let exchange = mode == RenameMode::Exchange;
            let owned = |(dir, name): (Ino, &[u8])| (dir, name.to_vec());
            records.push(Record::Rename { from: owned(from), to: owned(to), exchange, time: self.now() });
            self.commit(table, &records)?;
            if over {
                mark_logged(table, ino);
            }
            Ok(over)
        })?;
        if published {
            self.wake();
        }
        Ok(())
    }

    /// Records that put all layers of a file into the journal as published content.
    pub(super) fn complete(&self, table: &mut Table, ino: Ino, records: &mut Vec<Record>) -> Attempt<()> {
        let inode = table.get(ino)?;
        let file = inode.file()?;
        unlogged_records(ino, file, records);
        let last = file.draft.as_ref().map(|draft| draft.id).or(file.frozen.last().map(|frozen| frozen.id));
        let layer = last.unwrap_or(file.next_layer);
        if last.is_none() && !file.is_published() {
            records.push(Record::Resize { ino, layer, size: file.size, time: inode.mtime });
        }
        if last.is_some() || !file.is_published() {
            records.push(Record::Complete { ino, layer });
        }
        Ok(())
    }

    /// Changes attributes.
    pub fn setattr(&self, ino: Ino, changes: &Changes, uid: u32, wait: Wait) -> Result<Attr> {
        self.writable()?;
        let (attr, published) = self.run(wait, |table| {
            let mut published = false;
            table.get(ino)?;
            table.check_inode_unlocked(ino)?;
            if let Some(size) = changes.size {
                // Without an open handle nobody's close will publish it.
                let inode = table.get(ino)?;
                published = inode.file()?.writers == 0 && inode.nlink > 0;
                self.resize(table, ino, size, uid, published, changes)?;
            } else if let Some(set) = attr_set(table.get(ino)?, changes, self.now()) {
                self.commit(table, &[Record::Attr { ino, set }])?;
            }
            Ok((table.get(ino)?.attr(), published))
        })?;
        if published {
            self.wake();
        }
        Ok(attr)
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8], wait: Wait) -> Result<Vec<u8>> {
        self.run(wait, |table| {
            let value = table.get(ino)?.xattrs.as_ref().and_then(|xattrs| xattrs.get(name)).cloned();
            Ok(value.ok_or(WorkError::NoData)?)
        })
    }

    /// The names of all extended attributes.
    pub fn listxattr(&self, ino: Ino, wait: Wait) -> Result<Vec<Vec<u8>>> {
        self.run(wait, |table| {
            Ok(table.get(ino)?.xattrs.as_ref().map(|xattrs| xattrs.keys().cloned().collect()).unwrap_or_default())
        })
    }

    /// Sets an extended attribute.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, wait: Wait) -> Result<()> {
        self.writable()?;
        if name.len() > NAME_LEN_MAX || value.len() > XATTR_VALUE_LEN_MAX {
            return Err(WorkError::Range);
        }
        self.room_for_name()?;
        self.run(wait, |table| {
            table.get(ino)?;
            table.check_inode_unlocked(ino)?;
            let xattrs = table.get(ino)?.xattrs.as_deref();
            let old = xattrs.and_then(|xattrs| xattrs.get(name)).map(|old| old.len() + name.len());
            match (mode, old) {
                (XattrMode::Create, Some(_)) => return Err(WorkError::Exists.into()),
                (XattrMode::Replace, None) => return Err(WorkError::NoData.into()),
                _ => {}
            }
            let total: usize =
                xattrs.map_or(0, |xattrs| xattrs.iter().map(|(name, value)| name.len() + value.len()).sum());
            if total - old.unwrap_or(0) + name.len() + value.len() > XATTR_TOTAL_LEN_MAX {
                return Err(WorkError::NoSpace.into());
            }
            self.commit(
                table,
                &[Record::Xattr { ino, name: name.to_vec(), value: Some(value.to_vec()), time: self.now() }],
            )?;
            Ok(())
        })
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8], wait: Wait) -> Result<()> {
        self.writable()?;
        self.run(wait, |table| {
            if table.get(ino)?.xattrs.as_ref().is_none_or(|xattrs| !xattrs.contains_key(name)) {
                return Err(WorkError::NoData.into());
            }
            table.check_inode_unlocked(ino)?;
            self.commit(table, &[Record::Xattr { ino, name: name.to_vec(), value: None, time: self.now() }])?;
            Ok(())
        })
    }

    /// Makes everything about an inode durable that was acknowledged; a file's content is published.
    pub fn fsync(&self, ino: Ino, wait: Wait) -> Result<()> {
        let end = self.publish_for_sync(ino, wait)?;
        self.journal.sync(end)
    }

    /// Does of an [`fsync`](Self::fsync) (of all names, without a file) what needs no waiting; true when what is left
    /// to [`sync`](Self::sync) is so little that it takes about as long as the disk needs for anything.
    pub fn begin_fsync(&self, file: Option<Ino>) -> Result<bool> {
        if !self.is_calm() {
            return Ok(false);
        }
        if let Some(ino) = file {
            self.publish_for_sync(ino, Wait::No)?;
        }
        Ok(self.journal.unsynced_len() <= SHORT_SYNC_LEN_MAX)
    }

    /// Publishes the content of a file; says up to where the journal has to be synced for all about the inode.
    fn publish_for_sync(&self, ino: Ino, wait: Wait) -> Result<Position> {
        let (end, published) = self.run(wait, |table| {
            let inode = table.get(ino)?;
            let dirty = matches!(&inode.node, Node::File(file) if file.is_dirty() || !file.is_published());
            let has_name = inode.nlink > 0;
            let mut records = Vec::new();
            if dirty && has_name {
                self.complete(table, ino, &mut records)?;
            }
            if records.is_empty() {
                return Ok((self.journal.end(), false));
            }
            let end = self.commit(table, &records)?;
            mark_logged(table, ino);
            Ok((end, true))
        })?;
        if published {
            self.wake();
        }
        Ok(end)
    }

    /// Makes everything acknowledged so far durable; that files were closed, where there is room to write it down.
    pub fn sync(&self) -> Result<()> {
        self.note_closed();
        self.journal.sync(self.journal.end())
    }
}

/// Records for the pieces of all layers that the journal does not have.
pub(super) fn unlogged_records(ino: Ino, file: &File, records: &mut Vec<Record>) {
    frozen_records(ino, file, records);
    if let Some(draft) = &file.draft {
        layer_records(ino, draft, records);
    }
}

/// Records for the pieces of the frozen layers that the journal does not have, and of their being
/// published.
pub(super) fn frozen_records(ino: Ino, file: &File, records: &mut Vec<Record>) {
    for layer in file.frozen.iter().filter(|layer| layer.extents.unlogged_len() > 0) {
        layer_records(ino, layer, records);
        records.push(Record::Complete { ino, layer: layer.id });
    }
}

fn layer_records(ino: Ino, layer: &Layer, records: &mut Vec<Record>) {
    records.extend(layer.extents.unlogged().into_iter().map(|(offset, data)| piece_record(ino, layer, offset, data)));
}

/// The record of one piece of a layer.
pub(super) fn piece_record(ino: Ino, layer: &Layer, offset: u64, data: PieceData) -> Record {
    let time = layer.mtime;
    match data {
        PieceData::Bytes(bytes) => Record::Write { ino, layer: layer.id, offset, data: Bytes(bytes), time },
        PieceData::Zeros(len) => Record::Zero { ino, layer: layer.id, offset, len, time },
    }
}

/// Notes that the journal has the frozen layers of a file.
pub(super) fn mark_frozen_logged(table: &mut Table, ino: Ino) {
    let Some(Node::File(file)) = table.find_mut(ino).map(|inode| &mut inode.node) else { return };
    for frozen in &mut file.frozen {
        if frozen.extents.unlogged_len() > 0 {
            let frozen = std::sync::Arc::make_mut(frozen);
            frozen.extents.set_logged(true);
            frozen.complete = true;
        }
    }
}

/// Notes that the journal has all layers of a file.
pub(super) fn mark_logged(table: &mut Table, ino: Ino) {
    mark_frozen_logged(table, ino);
    let Some(Node::File(file)) = table.find_mut(ino).map(|inode| &mut inode.node) else { return };
    if let Some(draft) = &mut file.draft {
        draft.extents.set_logged(true);
    }
}

fn refer(table: &mut Table, ino: Ino) -> Attempt<Attr> {
    let inode = table.get_mut(ino)?;
    inode.lookups += 1;
    Ok(inode.attr())
}

fn body_of(node: &NewNode) -> Body {
    match node {
        NewNode::File => Body::File(FileBody::default()),
        NewNode::Directory => Body::Directory { names: TreeRef::default(), subdirs: 0 },
        NewNode::Symlink(target) => Body::Symlink { target: target.clone() },
        NewNode::Fifo => Body::Fifo,
        NewNode::Socket => Body::Socket,
        NewNode::CharDevice(rdev) => Body::CharDevice { rdev: *rdev },
        NewNode::BlockDevice(rdev) => Body::BlockDevice { rdev: *rdev },
    }
}

fn check_rename(table: &mut Table, ino: Ino, from: Ino, to: Ino, target: Option<Ino>, mode: RenameMode) -> Attempt<()> {
    let is_dir = table.get(ino)?.is_dir();
    if table.get(to)?.nlink == 0 {
        return Err(WorkError::NotFound.into());
    }
    if is_dir && table.is_below(to, ino)? {
        return Err(WorkError::Invalid.into());
    }
    let Some(target) = target else {
        return if mode == RenameMode::Exchange { Err(WorkError::NotFound.into()) } else { Ok(()) };
    };
    let target_is_dir = table.get(target)?.is_dir();
    match mode {
        RenameMode::NoReplace => Err(WorkError::Exists.into()),
        RenameMode::Exchange if target_is_dir && table.is_below(from, target)? => Err(WorkError::Invalid.into()),
        RenameMode::Exchange => Ok(()),
        RenameMode::Replace if is_dir && !target_is_dir => Err(WorkError::NotADirectory.into()),
        RenameMode::Replace if !is_dir && target_is_dir => Err(WorkError::IsADirectory.into()),
        RenameMode::Replace if target_is_dir && target != ino && !table.children(target)?.is_empty() => {
            Err(WorkError::NotEmpty.into())
        }
        RenameMode::Replace => Ok(()),
    }
}

pub(super) fn attr_set(inode: &Inode, changes: &Changes, now: Timestamp) -> Option<AttrSet> {
    let time = |set: Option<SetTime>| set.map(|set| if let SetTime::At(time) = set { time } else { now });
    let chown = changes.uid.is_some() || changes.gid.is_some();
    let mode = match changes.mode {
        Some(mode) => Some(mode & 0o7777),
        None if chown && !inode.is_dir() => Some(without_privileges(inode.mode)).filter(|mode| *mode != inode.mode),
        None => None,
    };
    let set = AttrSet {
        mode,
        uid: changes.uid,
        gid: changes.gid,
        atime: time(changes.atime),
        mtime: time(changes.mtime),
        ctime: now,
    };
    let nothing = AttrSet { ctime: now, ..AttrSet::default() };
    (set != nothing || chown).then_some(set)
}
