//! The library's trait: each handler unpacks its request, serves it, and packs the reply.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use zeroize::Zeroizing;

use super::convert::{
    fallocate_mode, file_attr, file_type, ino, is_write, new_node, nothing, open_flags, open_how, permissions,
    rename_mode, set_time, ttl, xattr_mode,
};
use super::counters::Operation;
use super::permission::is_allowed;
use super::serve::{Server, guarded, refuse, refuse_logged};
use crate::base::limits::NAME_LEN_MAX;
use crate::fs::{Caching, Fs, FsError, Handle, Listing, Named, Opened, Shown, Space};
use crate::worktree::{Caller, Changes, NewNode, Wait, WorkError};

/// The largest write in one request; the kernel takes no more.
const WRITE_BYTES_MAX: u32 = 1024 * 1024;
/// Requests that the kernel keeps under way in the background.
const BACKGROUND_MAX: u16 = 64;
const BLOCK_BYTES: u32 = 4096;
const GENERATION: Generation = Generation(0);

/// What is asked of the kernel, as far as it can do it. Writes are not cached there (their sizes and
/// times would be unknown here), locks are left to it, and data is invalidated by us alone. Opening
/// with `O_TRUNC` is not asked to cut here: the kernel asks before it has looked whether the file is a
/// program that runs, which would be destroyed though the call fails.
const CAPABILITIES: [InitFlags; 7] = [
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_MAX_PAGES,
];

/// Answers the kernel.
pub(super) struct Adapter {
    pub(super) server: Arc<Server>,
    /// Whether the kernel takes "not implemented" for an answer to opening a directory.
    has_no_opendir: bool,
    /// Set when the connection to the kernel has ended.
    ended: Arc<AtomicBool>,
}

impl Adapter {
    pub(super) fn new(server: Arc<Server>, ended: Arc<AtomicBool>) -> Self {
        Self { server, has_no_opendir: false, ended }
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid() }
}

fn bytes(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

fn entry(reply: ReplyEntry, Named(shown): Named) {
    reply.entry(&ttl(shown.lasting), &file_attr(&shown.attr), GENERATION);
}

fn attributes(reply: ReplyAttr, shown: Shown) {
    reply.attr(&ttl(shown.lasting), &file_attr(&shown.attr));
}

fn empty(_: &Fs, reply: ReplyEmpty, (): ()) {
    reply.ok();
}

fn named(_: &Fs, reply: ReplyEntry, named: Named) {
    entry(reply, named);
}

/// The value itself, or its size when that is asked for.
fn sized(reply: ReplyXattr, value: &[u8], size: u32) {
    match u32::try_from(value.len()) {
        Ok(len) if size == 0 => reply.size(len),
        Ok(len) if len <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

fn fill(fs: &Fs, mut reply: ReplyDirectory, listing: &Listing) {
    let filled = fs.fill(listing, false, &mut |line| {
        let attr = &line.shown.attr;
        !reply.add(INodeNo(attr.ino.0), line.offset, file_type(attr.kind), OsStr::from_bytes(line.name))
    });
    match filled {
        Ok(()) => reply.ok(),
        Err(error) => refuse_logged(Operation::Readdir, reply, &error),
    }
}

fn fill_plus(fs: &Fs, mut reply: ReplyDirectoryPlus, listing: &Listing) {
    let filled = fs.fill(listing, true, &mut |line| {
        let attr = file_attr(&line.shown.attr);
        let name = OsStr::from_bytes(line.name);
        !reply.add(attr.ino, line.offset, name, &ttl(line.shown.lasting), &attr, GENERATION)
    });
    match filled {
        Ok(()) => reply.ok(),
        Err(error) => refuse_logged(Operation::Readdirplus, reply, &error),
    }
}

fn statfs(reply: ReplyStatfs, space: Space) {
    let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
    let free = blocks(space.free_bytes);
    let name_len = u32::try_from(NAME_LEN_MAX).unwrap_or(255);
    let total = blocks(space.used_bytes) + free;
    reply.statfs(total, free, free, space.files + free, free, BLOCK_BYTES, name_len, BLOCK_BYTES);
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in CAPABILITIES {
            if config.add_capabilities(capability).is_err() {
                tracing::info!("the kernel lacks {capability:?}");
            }
        }
        self.has_no_opendir = config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT);
        // A value out of range is answered with the nearest one.
        config.set_max_write(WRITE_BYTES_MAX).or_else(|nearest| config.set_max_write(nearest)).ok();
        config.set_max_background(BACKGROUND_MAX).ok();
        Ok(())
    }

    fn destroy(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let asked = self.server.asked(Operation::Lookup, request, parent, Some(name));
        let (caller, name) = (caller(request), bytes(name));
        self.server.serve(
            asked,
            reply,
            move |fs, wait| fs.lookup(caller, ino(parent), &name, wait),
            |_, reply, found| match found {
                Some(found) => entry(reply, found),
                None => reply.entry(&ttl(true), &nothing(), GENERATION),
            },
        );
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.server.counters.count(Operation::Forget);
        guarded(Operation::Forget, || self.server.fs.forget(ino(node), count));
    }

    fn getattr(&self, request: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let asked = self.server.asked(Operation::Getattr, request, node, None);
        let answer = |_: &Fs, reply, shown| attributes(reply, shown);
        self.server.serve(asked, reply, move |fs, wait| fs.getattr(ino(node), wait), answer);
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let asked = self.server.asked(Operation::Setattr, request, node, None);
        let caller = caller(request);
        let changes = Changes {
            mode: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let work = move |fs: &Fs, wait| fs.setattr(caller.uid, ino(node), &changes, wait);
        self.server.serve(asked, reply, work, |_, reply, shown| attributes(reply, shown));
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        let asked = self.server.asked(Operation::Readlink, request, node, None);
        let answer = |_: &Fs, reply: ReplyData, target: Vec<u8>| reply.data(&target);
        self.server.serve(asked, reply, move |fs, wait| fs.readlink(ino(node), wait), answer);
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let asked = self.server.asked(Operation::Mknod, request, parent, Some(name));
        let Some(node) = new_node(mode, rdev) else { return reply.error(Errno::EINVAL) };
        let (caller, name, mode) = (caller(request), bytes(name), permissions(mode));
        let work = move |fs: &Fs, wait| fs.make(caller, ino(parent), &name, &node, mode, wait);
        self.server.serve(asked, reply, work, named);
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        let asked = self.server.asked(Operation::Mkdir, request, parent, Some(name));
        let (caller, name, mode) = (caller(request), bytes(name), permissions(mode));
        let work = move |fs: &Fs, wait| fs.make(caller, ino(parent), &name, &NewNode::Directory, mode, wait);
        self.server.serve(asked, reply, work, named);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let asked = self.server.asked(Operation::Unlink, request, parent, Some(name));
        let name = bytes(name);
        self.server.serve(asked, reply, move |fs, wait| fs.unlink(ino(parent), &name, wait), empty);
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let asked = self.server.asked(Operation::Rmdir, request, parent, Some(name));
        let (caller, name) = (caller(request), bytes(name));
        self.server.serve(asked, reply, move |fs, wait| fs.rmdir(caller, ino(parent), &name, wait), empty);
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let asked = self.server.asked(Operation::Symlink, request, parent, Some(name));
        let (caller, name) = (caller(request), bytes(name));
        let node = NewNode::Symlink(bytes(target.as_os_str()));
        let work = move |fs: &Fs, wait| fs.make(caller, ino(parent), &name, &node, 0o777, wait);
        self.server.serve(asked, reply, work, named);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let asked = self.server.asked(Operation::Rename, request, parent, Some(name));
        let Some(mode) = rename_mode(flags.bits()) else { return reply.error(Errno::EINVAL) };
        let (name, new_name) = (bytes(name), bytes(new_name));
        let work = move |fs: &Fs, wait| fs.rename((ino(parent), &name), (ino(new_parent), &new_name), mode, wait);
        self.server.serve(asked, reply, work, empty);
    }

    fn link(&self, request: &Request, node: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let asked = self.server.asked(Operation::Link, request, new_parent, Some(new_name));
        let name = bytes(new_name);
        let work = move |fs: &Fs, wait| fs.link(ino(node), ino(new_parent), &name, wait);
        self.server.serve(asked, reply, work, named);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let asked = self.server.asked(Operation::Open, request, node, None);
        let (caller, how) = (caller(request), open_how(flags.0, request.pid()));
        self.server.serve(
            asked,
            reply,
            move |fs, wait| fs.open(caller, ino(node), how, wait),
            |_, reply, opened| reply.opened(FileHandle(opened.handle.0), open_flags(&opened)),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let asked = self.server.asked(Operation::Create, request, parent, Some(name));
        let how = open_how(flags, request.pid());
        let (caller, name, mode) = (caller(request), bytes(name), permissions(mode));
        self.server.serve(
            asked,
            reply,
            move |fs, wait| fs.create(caller, ino(parent), &name, mode, how, wait),
            |_, reply, (Named(shown), opened)| {
                let (handle, flags) = (FileHandle(opened.handle.0), open_flags(&opened));
                reply.created(&ttl(shown.lasting), &file_attr(&shown.attr), GENERATION, handle, flags);
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let asked = self.server.asked(Operation::Read, request, node, None);
        let (node, handle, len) = (ino(node), Handle(fh.0), size as usize);
        guarded(Operation::Read, || {
            let fs = &self.server.fs;
            let ahead = fs.ahead_due(node, offset, len);
            let is_near = fs.reads_near(node);
            let turn = if is_near { self.server.near.enter_reading() } else { None };
            let wait = if turn.is_some() { Wait::Yes } else { Wait::No };
            let read = self.server.check_served().and_then(|()| fs.read(node, handle, offset, len, wait));
            let is_due = ahead.is_some();
            let fetch = move |fs: &Fs| ahead.into_iter().for_each(|ahead| fs.read_ahead(ahead));
            match read {
                Ok(data) => {
                    asked.told(None);
                    reply.data(&data);
                    if is_due {
                        self.server.in_background(Operation::Read, fetch);
                    }
                }
                Err(error) if error.would_block() && is_near => self.server.put_off_near(
                    asked,
                    reply,
                    move |fs| fs.read(node, handle, offset, len, Wait::Yes),
                    |_, reply, data| reply.data(&data),
                ),
                Err(error) if error.would_block() => self.server.put_off(
                    if fs.is_access_log(node) { asked.counted_as(Operation::Control) } else { asked },
                    reply,
                    move |fs| fs.read(node, handle, offset, len, Wait::Yes),
                    |_, reply, data| reply.data(&data),
                    fetch,
                ),
                Err(error) => refuse(asked, reply, &error),
            }
            // Others may have left it something to do.
            drop(turn);
        });
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _open_flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let is_live = self.server.fs.is_live(ino(node));
        if !is_live {
            if self.server.wiper.takes(data) {
                return reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
            }
            self.server.wiper.received(data.len());
        }
        let asked = self.server.asked(Operation::Write, request, node, None);
        // The kernel says when the writer may not keep set-uid bits; that is known better there than here.
        let drops = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let uid = if drops { request.uid().max(1) } else { 0 };
        let (node, handle, len) = (ino(node), Handle(fh.0), u32::try_from(data.len()).unwrap_or(u32::MAX));
        let write = || self.server.fs.write(uid, node, handle, offset, data, Wait::No);
        guarded(Operation::Write, || match self.server.check_served().and_then(|()| write()) {
            Ok(()) => {
                asked.told(None);
                reply.written(len);
            }
            Err(error) if error.would_block() => {
                // What is written to a control file may be secret.
                let data = Zeroizing::new(data.to_vec());
                self.server.put_off(
                    if is_live { asked } else { asked.counted_as(Operation::Control) },
                    reply,
                    move |fs| fs.write(uid, node, handle, offset, &data, Wait::Yes),
                    move |_, reply, ()| reply.written(len),
                    |_| {},
                );
            }
            Err(error) => refuse(asked, reply, &error),
        });
    }

    fn flush(&self, request: &Request, node_no: INodeNo, fh: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let (node, handle, thread) = (ino(node_no), Handle(fh.0), request.pid());
        // Closing a control file may run a request.
        let operation = if self.server.fs.is_live(node) { Operation::Flush } else { Operation::Control };
        let asked = self.server.asked(operation, request, node_no, None);
        self.server.serve(asked, reply, move |fs, wait| fs.flush(node, handle, thread, wait), empty);
    }

    fn release(
        &self,
        request: &Request,
        node: INodeNo,
        fh: FileHandle,
        flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let asked = self.server.asked(Operation::Release, request, node, None);
        guarded(Operation::Release, || {
            let (write, caching) = (is_write(flags.0), Caching::Kept);
            let opened = Opened { ino: ino(node), handle: Handle(fh.0), write, caching };
            let unfinished = self.server.fs.release(&opened);
            asked.told(None);
            reply.ok();
            if let Some(unfinished) = unfinished {
                self.server.in_background(Operation::Control, move |fs| fs.finish(unfinished));
            }
        });
    }

    fn fsync(&self, request: &Request, node: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let asked = self.server.asked(Operation::Fsync, request, node, None);
        let begin = |fs: &Fs| fs.begin_fsync(Some(ino(node)));
        self.server.sync(asked, reply, begin, move |fs, wait| fs.fsync(ino(node), wait));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.server.counters.count(Operation::Opendir);
        // Once for the whole mount: directories need no handle, and the kernel may keep their listings.
        if self.has_no_opendir { reply.error(Errno::ENOSYS) } else { reply.opened(FileHandle(0), FopenFlags::empty()) }
    }

    fn readdir(&self, request: &Request, node: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectory) {
        let asked = self.server.asked(Operation::Readdir, request, node, None);
        let work = move |fs: &Fs, wait| fs.list(ino(node), offset, wait);
        self.server.serve(asked, reply, work, |fs, reply, listing| fill(fs, reply, &listing));
    }

    fn readdirplus(&self, request: &Request, node: INodeNo, _: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        let asked = self.server.asked(Operation::Readdirplus, request, node, None);
        let work = move |fs: &Fs, wait| fs.list(ino(node), offset, wait);
        self.server.serve(asked, reply, work, |fs, reply, listing| fill_plus(fs, reply, &listing));
    }

    fn fsyncdir(&self, request: &Request, node: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let asked = self.server.asked(Operation::Fsyncdir, request, node, None);
        let begin = |fs: &Fs| fs.begin_fsync(None);
        self.server.sync(asked, reply, begin, move |fs, wait| fs.fsync_dir(ino(node), wait));
    }

    fn statfs(&self, request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let asked = self.server.asked(Operation::Statfs, request, node, None);
        self.server.serve(asked, reply, |fs, _| fs.space(), |_, reply, space| statfs(reply, space));
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let asked = self.server.asked(Operation::Setxattr, request, node, None);
        let Some(mode) = xattr_mode(flags) else { return reply.error(Errno::EINVAL) };
        let (name, value) = (bytes(name), value.to_vec());
        let work = move |fs: &Fs, wait| fs.setxattr(ino(node), &name, &value, mode, wait);
        self.server.serve(asked, reply, work, empty);
    }

    fn getxattr(&self, request: &Request, node: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let asked = self.server.asked(Operation::Getxattr, request, node, None);
        let name = bytes(name);
        let work = move |fs: &Fs, wait| fs.getxattr(ino(node), &name, wait);
        self.server.serve(asked, reply, work, move |_, reply, value| sized(reply, &value, size));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let asked = self.server.asked(Operation::Listxattr, request, node, None);
        let uid = request.uid();
        let work = move |fs: &Fs, wait| fs.listxattr(uid, ino(node), wait);
        self.server.serve(asked, reply, work, move |_, reply, names| sized(reply, &names, size));
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let asked = self.server.asked(Operation::Removexattr, request, node, None);
        let name = bytes(name);
        self.server.serve(asked, reply, move |fs, wait| fs.removexattr(ino(node), &name, wait), empty);
    }

    fn access(&self, request: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty) {
        let asked = self.server.asked(Operation::Access, request, node, None);
        let work = move |fs: &Fs, wait| match is_allowed(&fs.getattr(ino(node), wait)?, mask) {
            true => Ok(()),
            false => Err(FsError::from(WorkError::Denied)),
        };
        self.server.serve(asked, reply, work, empty);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _cmd: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        self.server.counters.count(Operation::Other);
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let asked = self.server.asked(Operation::Fallocate, request, node, None);
        let Some(mode) = fallocate_mode(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let uid = request.uid();
        let work = move |fs: &Fs, wait| fs.fallocate(uid, ino(node), (offset, length), mode, wait);
        self.server.serve(asked, reply, work, empty);
    }

    fn lseek(&self, request: &Request, node: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let asked = self.server.asked(Operation::Lseek, request, node, None);
        let data = match whence {
            libc::SEEK_DATA => true,
            libc::SEEK_HOLE => false,
            _ => return reply.error(Errno::EINVAL),
        };
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        self.server.serve(
            asked,
            reply,
            move |fs, wait| fs.seek(ino(node), offset, data, wait),
            |_, reply, found| match i64::try_from(found) {
                Ok(found) => reply.offset(found),
                Err(_) => reply.error(Errno::EOVERFLOW),
            },
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let asked = self.server.asked(Operation::CopyFileRange, request, to, None);
        let uid = request.uid();
        self.server.serve(
            asked,
            reply,
            move |fs, wait| fs.copy_range(uid, (ino(from), from_offset), (ino(to), to_offset), len, wait),
            |_, reply, copied| match u32::try_from(copied) {
                Ok(copied) => reply.written(copied),
                Err(_) => refuse_logged(Operation::CopyFileRange, reply, &FsError::Work(WorkError::TooLarge)),
            },
        );
    }
}
