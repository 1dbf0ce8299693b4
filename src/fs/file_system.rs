//! Names and attributes: every operation is routed to the live tree or to [`Outside`].

use std::sync::Arc;

use parking_lot::Mutex;

use super::access::AccessLog;
use super::ahead::ReadAhead;
use super::control::{Outside, SHA256_XATTR, VERSION_XATTR, is_outside};
use super::open_files::OpenFiles;
use super::types::{FsOptions, Line, Listing, Named, OpenHow, Opened, Shown, Space};
use super::{FsError, Result};
use crate::control::Dispatcher;
use crate::version::entry::{CONTROL_NAME, Ino};
use crate::workspace::Workspace;
use crate::worktree::{
    Attr, Caller, Changes, FileKind, FileState, Invalidation, NewNode, RenameMode, Wait, WorkError, Worktree, XattrMode,
};

/// The file system of one mount.
pub struct Fs {
    pub(super) workspace: Arc<Workspace>,
    pub(super) options: FsOptions,
    pub(super) outside: Outside,
    pub(super) ahead: Mutex<ReadAhead>,
    pub(super) files: Arc<OpenFiles>,
    access: Arc<AccessLog>,
}

/// The label of SELinux, which `ls -l` asks for.
const LABEL_XATTR: &[u8] = b"security.selinux";
/// Extended attributes of ours; not listed, so that copying a file does not try to set them.
const OWN_XATTRS: &[u8] = b"user.kura.";
const STATE_XATTR: &[u8] = b"user.kura.state";
/// Its value where a version in the store has it.
const IN_STORE: &str = "published";
/// `user@host` of who has locked the path.
const LOCK_XATTR: &[u8] = b"user.kura.lock";
/// Namespaces that are kept. Access control lists are not enforced, so they are not taken either.
const XATTR_NAMESPACES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

impl Named {
    fn live(attr: Attr) -> Self {
        Named(Shown { attr, lasting: true })
    }
}

impl Fs {
    /// The file system of `workspace`. `control` answers what is written below `.kura/ctl`.
    pub fn new(workspace: Arc<Workspace>, options: FsOptions, control: Arc<Dispatcher>) -> Self {
        let (files, access) = (Arc::<OpenFiles>::default(), Arc::<AccessLog>::default());
        let outside = Outside::new(workspace.clone(), options, control, files.clone(), access.clone());
        Self { workspace, options, outside, ahead: Mutex::default(), files, access }
    }

    pub(super) fn tree(&self) -> &Worktree {
        self.workspace.tree()
    }

    /// Whether an inode is of the live tree, and not of a past version or a control file.
    pub fn is_live(&self, ino: Ino) -> bool {
        !is_outside(ino)
    }

    /// Whether a program has a file open.
    pub fn is_in_use(&self) -> bool {
        self.files.any()
    }

    /// The log of requests.
    pub fn access(&self) -> &AccessLog {
        &self.access
    }

    /// Whether an inode is `.kura/access-log`, whose readers wait for what happens.
    pub fn is_access_log(&self, ino: Ino) -> bool {
        is_outside(ino) && self.outside.is_access_log(ino)
    }

    /// The path of an inode for people, as far as it is in memory.
    pub fn describe(&self, ino: Ino) -> String {
        if is_outside(ino) { self.outside.describe(ino) } else { self.tree().describe(ino) }
    }

    /// How the file system behaves.
    pub fn options(&self) -> FsOptions {
        self.options
    }

    /// Who is told what the kernel must forget.
    pub fn on_invalidation(&self, notify: impl Fn(Vec<Invalidation>) + Send + Sync + 'static) {
        self.tree().on_invalidation(notify);
    }

    /// Who is told that a request came that may be secret, before it is answered; and whether there is time to wait.
    pub fn on_secret(&self, tell: impl Fn(Wait) + Send + Sync + 'static) {
        self.outside.on_secret(Box::new(tell));
    }

    /// What a name stands for; `None` when there is no such name, which stays so until an invalidation.
    pub fn lookup(&self, caller: Caller, parent: Ino, name: &[u8], wait: Wait) -> Result<Option<Named>> {
        if is_outside(parent) || name == CONTROL_NAME {
            return self.outside.lookup(caller, parent, name, wait).map(Some);
        }
        match self.tree().lookup(parent, name, wait) {
            Ok(attr) => Ok(Some(Named::live(attr))),
            Err(WorkError::NotFound) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The kernel drops `count` references to an inode.
    pub fn forget(&self, ino: Ino, count: u64) {
        if is_outside(ino) { self.outside.forget(ino, count) } else { self.tree().forget(ino, count) }
    }

    /// The attributes of an inode.
    pub fn getattr(&self, ino: Ino, wait: Wait) -> Result<Shown> {
        if is_outside(ino) {
            return self.outside.getattr(ino, wait);
        }
        Ok(Shown { attr: self.tree().getattr(ino, wait)?, lasting: true })
    }

    /// Changes attributes. `uid` is who asks.
    pub fn setattr(&self, uid: u32, ino: Ino, changes: &Changes, wait: Wait) -> Result<Shown> {
        if is_outside(ino) {
            return self.outside.setattr(ino, changes, wait);
        }
        Ok(Shown { attr: self.tree().setattr(ino, changes, uid, wait)?, lasting: true })
    }

    /// Where a symbolic link points.
    pub fn readlink(&self, ino: Ino, wait: Wait) -> Result<Vec<u8>> {
        if is_outside(ino) { self.outside.readlink(ino, wait) } else { Ok(self.tree().readlink(ino, wait)?) }
    }

    fn check_new_name(&self, parent: Ino, name: &[u8]) -> Result<()> {
        if is_outside(parent) {
            return Err(self.outside.refusal(parent));
        }
        if name == CONTROL_NAME { Err(WorkError::NotPermitted.into()) } else { Ok(()) }
    }

    /// Makes a node with the permission bits `mode`.
    pub fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        node: &NewNode,
        mode: u16,
        wait: Wait,
    ) -> Result<Named> {
        if is_outside(parent) && *node == NewNode::Directory {
            return self.outside.mkdir(caller, parent, name, wait);
        }
        self.check_new_name(parent, name)?;
        Ok(Named::live(self.tree().make(parent, name, node, mode, caller, false, wait)?))
    }

    /// Makes and opens a regular file; opens it when it is there and `how` does not forbid that.
    pub fn create(
        &self,
        caller: Caller,
        parent: Ino,
        name: &[u8],
        mode: u16,
        how: OpenHow,
        wait: Wait,
    ) -> Result<(Named, Opened)> {
        self.check_new_name(parent, name)?;
        let tree = self.tree();
        match tree.make(parent, name, &NewNode::File, mode, caller, true, wait) {
            Ok(attr) => {
                if !how.write {
                    // Made open for writing; the handle is for reading alone.
                    tree.open(attr.ino, false, false, caller.uid, wait)?;
                    tree.release(attr.ino, true);
                }
                Ok((Named::live(attr), self.note_open(attr.ino, how.write)))
            }
            Err(WorkError::Exists) if !how.exclusive => {
                let attr = tree.lookup(parent, name, wait)?;
                self.open_found(caller, attr, how, wait).inspect_err(|_| tree.forget(attr.ino, 1))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn open_found(&self, caller: Caller, attr: Attr, how: OpenHow, wait: Wait) -> Result<(Named, Opened)> {
        if attr.kind == FileKind::Directory {
            return Err(WorkError::IsADirectory.into());
        }
        let opened = self.open(caller, attr.ino, how, wait)?;
        let attr = self.tree().getattr(attr.ino, wait).inspect_err(|_| drop(self.release(&opened)))?;
        Ok((Named::live(attr), opened))
    }

    /// Gives an inode another name.
    pub fn link(&self, ino: Ino, parent: Ino, name: &[u8], wait: Wait) -> Result<Named> {
        if is_outside(ino) && !is_outside(parent) {
            return Err(FsError::CrossesVersions);
        }
        self.check_new_name(parent, name)?;
        Ok(Named::live(self.tree().link(ino, parent, name, wait)?))
    }

    fn check_old_name(&self, parent: Ino, name: &[u8]) -> Result<()> {
        if is_outside(parent) {
            return Err(self.outside.refusal(parent));
        }
        if name == CONTROL_NAME { Err(WorkError::NotPermitted.into()) } else { Ok(()) }
    }

    /// Removes a name that is not a directory's.
    pub fn unlink(&self, parent: Ino, name: &[u8], wait: Wait) -> Result<()> {
        self.check_old_name(parent, name)?;
        Ok(self.tree().unlink(parent, name, wait)?)
    }

    /// Removes an empty directory, or a version's tag from `.kura/snapshots`.
    pub fn rmdir(&self, caller: Caller, parent: Ino, name: &[u8], wait: Wait) -> Result<()> {
        if is_outside(parent) {
            return self.outside.rmdir(caller, parent, name, wait);
        }
        self.check_old_name(parent, name)?;
        Ok(self.tree().rmdir(parent, name, wait)?)
    }

    /// Moves a name.
    pub fn rename(&self, from: (Ino, &[u8]), to: (Ino, &[u8]), mode: RenameMode, wait: Wait) -> Result<()> {
        self.check_old_name(from.0, from.1)?;
        self.check_new_name(to.0, to.1)?;
        if mode == RenameMode::Exchange {
            self.check_new_name(from.0, from.1)?;
        }
        Ok(self.tree().rename(from, to, mode, wait)?)
    }

    /// Gets a directory ready to be listed after `offset` (0 for its beginning).
    pub fn list(&self, dir: Ino, offset: u64, wait: Wait) -> Result<Listing> {
        if is_outside(dir) {
            return self.outside.list(dir, offset, wait);
        }
        let parent = self.tree().parent(dir, wait)?;
        // Asks for the first name, so that it and the directory are in memory.
        self.tree().readdir(dir, offset.saturating_sub(2), false, wait, &mut |_| false)?;
        Ok(Listing { dir, offset, parent, items: None })
    }

    /// Hands the lines of a listing to `each` until it returns false. With `refer`, every line it
    /// accepts, but `.` and `..`, counts as one reference by the kernel.
    pub fn fill(&self, listing: &Listing, refer: bool, each: &mut dyn FnMut(&Line<'_>) -> bool) -> Result<()> {
        let dots = [(b".".as_slice(), listing.dir), (b"..".as_slice(), listing.parent)];
        for ((name, ino), offset) in dots.into_iter().zip(1..) {
            let shown = Shown { attr: directory_attr(ino, self.options), lasting: false };
            if offset > listing.offset && !each(&Line { name, offset, shown }) {
                return Ok(());
            }
        }
        match &listing.items {
            Some(items) => {
                self.outside.fill(items, refer, each);
                Ok(())
            }
            None => self.fill_live(listing, refer, each),
        }
    }

    fn fill_live(&self, listing: &Listing, refer: bool, each: &mut dyn FnMut(&Line<'_>) -> bool) -> Result<()> {
        let any = std::cell::Cell::new(false);
        let cookie = listing.offset.saturating_sub(2);
        let mut fill = |wait| {
            self.tree().readdir(listing.dir, cookie, refer, wait, &mut |item| {
                any.set(true);
                let shown = Shown { attr: item.attr, lasting: true };
                each(&Line { name: &item.name, offset: item.cookie + 2, shown })
            })
        };
        match fill(Wait::No) {
            // The lines so far are an answer; the next request goes on after them.
            Err(WorkError::WouldBlock) if any.get() => Ok(()),
            // The names left memory again after they were made ready.
            Err(WorkError::WouldBlock) => Ok(fill(Wait::Yes)?),
            filled => Ok(filled?),
        }
    }

    /// Whether an fsync waits for the store.
    pub fn fsync_waits_for_store(&self) -> bool {
        self.workspace.fsync_waits_for_store()
    }

    /// How much is used and free.
    pub fn space(&self) -> Result<Space> {
        let space = self.tree().space()?;
        Ok(Space { used_bytes: space.used_bytes, free_bytes: space.free_bytes, files: space.names + 1 })
    }

    fn check_xattr(&self, name: &[u8]) -> Result<()> {
        if !self.options.xattrs {
            return Err(FsError::SwitchedOff);
        }
        match XATTR_NAMESPACES.into_iter().find(|namespace| name.starts_with(namespace)) {
            Some(namespace) if name.len() > namespace.len() => Ok(()),
            Some(_) => Err(WorkError::Invalid.into()),
            None => Err(WorkError::NotSupported.into()),
        }
    }

    /// The value of an extended attribute.
    pub fn getxattr(&self, ino: Ino, name: &[u8], wait: Wait) -> Result<Vec<u8>> {
        self.check_xattr(name)?;
        if is_outside(ino) {
            return self.outside.getxattr(ino, name, wait);
        }
        if name == STATE_XATTR {
            return self.state_of(ino, wait);
        }
        if name == SHA256_XATTR {
            let digest = self.tree().sha256(ino, wait)?.ok_or(WorkError::NoData)?;
            return Ok(digest.to_string().into_bytes());
        }
        if name == LOCK_XATTR {
            let lock = self.tree().lock_of(ino, wait)?.ok_or(WorkError::NoData)?;
            return Ok(lock.holder.into_bytes());
        }
        if name == VERSION_XATTR {
            return self.version_of(ino, wait);
        }
        match self.tree().getxattr(ino, name, wait) {
            // A program that lists files then asks for no other file's.
            Err(WorkError::NoData) if name == LABEL_XATTR => Err(WorkError::NotSupported.into()),
            value => Ok(value?),
        }
    }

    /// A word for where the content of an inode stands: in the store only when that is known.
    fn state_of(&self, ino: Ino, wait: Wait) -> Result<Vec<u8>> {
        let state = self.tree().file_state(ino, wait)?;
        if state != FileState::Recorded {
            return Ok(state.word().as_bytes().to_vec());
        }
        if wait == Wait::No {
            return Err(WorkError::WouldBlock.into());
        }
        let path = self.tree().path_of(ino).ok();
        // What cannot be found out is not known to be there.
        let is_in_store = self.workspace.is_in_store(path.as_deref()).unwrap_or(false);
        let word = if is_in_store { IN_STORE } else { state.word() };
        Ok(word.as_bytes().to_vec())
    }

    /// The version that made an inode what it is; none has what changed since.
    fn version_of(&self, ino: Ino, wait: Wait) -> Result<Vec<u8>> {
        if wait == Wait::No {
            return Err(WorkError::WouldBlock.into());
        }
        if self.tree().file_state(ino, wait)? != FileState::Recorded {
            return Err(WorkError::NoData.into());
        }
        let path = self.tree().path_of(ino).map_err(|_| WorkError::NoData)?;
        let mut found = None;
        self.workspace.trace(&path, &mut |step| {
            found = step.entry.is_some().then_some(step.record.id);
            false
        })?;
        Ok(found.ok_or(WorkError::NoData)?.to_string().into_bytes())
    }

    /// The names of all extended attributes that `uid` may see, each closed by a NUL.
    pub fn listxattr(&self, uid: u32, ino: Ino, wait: Wait) -> Result<Vec<u8>> {
        if !self.options.xattrs {
            return Err(FsError::SwitchedOff);
        }
        let names =
            if is_outside(ino) { self.outside.listxattr(ino, wait)? } else { self.tree().listxattr(ino, wait)? };
        let visible = names.into_iter().filter(|name| uid == 0 || !name.starts_with(b"trusted."));
        Ok(visible.flat_map(|name| [name, vec![0]].concat()).collect())
    }

    fn check_xattr_change(&self, ino: Ino, name: &[u8]) -> Result<()> {
        self.check_xattr(name)?;
        if is_outside(ino) {
            return Err(self.outside.refusal(ino));
        }
        if name.starts_with(OWN_XATTRS) { Err(WorkError::NotPermitted.into()) } else { Ok(()) }
    }

    /// Sets an extended attribute.
    pub fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], mode: XattrMode, wait: Wait) -> Result<()> {
        self.check_xattr_change(ino, name)?;
        Ok(self.tree().setxattr(ino, name, value, mode, wait)?)
    }

    /// Removes an extended attribute.
    pub fn removexattr(&self, ino: Ino, name: &[u8], wait: Wait) -> Result<()> {
        self.check_xattr_change(ino, name)?;
        Ok(self.tree().removexattr(ino, name, wait)?)
    }
}

/// What a listing says of `.` and `..`: only kind and number count.
fn directory_attr(ino: Ino, options: FsOptions) -> Attr {
    Attr {
        ino,
        kind: FileKind::Directory,
        mode: 0o700,
        nlink: 2,
        uid: options.owner_uid,
        gid: options.owner_gid,
        rdev: 0,
        size: 0,
        blocks: 0,
        atime: Default::default(),
        mtime: Default::default(),
        ctime: Default::default(),
    }
}
