//! The least that an encrypted FUSE file system costs: files in memory, nothing kept, and what is read and written
//! sealed once (a copy of it, which is dropped). What kura needs above it is kura's own.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use kura::base::ids::WorkspaceId;
use kura::crypto::{Keys, Kind};

const LASTING: Duration = Duration::from_secs(1 << 30);
const GENERATION: Generation = Generation(0);
const SETTINGS: [InitFlags; 5] = [
    InitFlags::FUSE_ATOMIC_O_TRUNC,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
];

struct Node {
    attr: FileAttr,
    bytes: Vec<u8>,
    names: BTreeMap<OsString, u64>,
}

static NEXT: AtomicU64 = AtomicU64::new(2);

/// How much is sealed together.
const FRAME_LEN: usize = 64 * 1024;

struct Ceiling(Mutex<HashMap<u64, Node>>, Keys);

/// Serves an empty file system at `dir` until it is unmounted.
pub fn serve(dir: &Path) {
    let mut nodes = HashMap::new();
    nodes.insert(1, node(1, FileType::Directory, 0o755));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("ceiling".into())];
    config.n_threads = Some(2);
    let keys = Keys::ephemeral(WorkspaceId::random());
    fuser::mount(Ceiling(Mutex::new(nodes), keys), dir, &config).unwrap();
}

fn node(ino: u64, kind: FileType, perm: u16) -> Node {
    let now = SystemTime::now();
    let (uid, gid) = (nix::unistd::getuid().as_raw(), nix::unistd::getgid().as_raw());
    let attr = FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: now,
        mtime: now,
        ctime: now,
        crtime: now,
        kind,
        perm,
        nlink: 1,
        uid,
        gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    };
    Node { attr, bytes: Vec::new(), names: BTreeMap::new() }
}

impl Ceiling {
    fn nodes(&self) -> MutexGuard<'_, HashMap<u64, Node>> {
        self.0.lock().unwrap()
    }

    fn seal(&self, data: &[u8]) {
        data.chunks(FRAME_LEN).for_each(|frame| drop(black_box(self.1.seal(Kind::Content, b"ceiling", frame))));
    }

    fn make(&self, parent: INodeNo, name: &OsStr, kind: FileType, mode: u32) -> FileAttr {
        let mut nodes = self.nodes();
        let ino = NEXT.fetch_add(1, Ordering::Relaxed);
        let made = node(ino, kind, (mode & 0o7777) as u16);
        let attr = made.attr;
        nodes.insert(ino, made);
        nodes.get_mut(&parent.0).unwrap().names.insert(name.to_owned(), ino);
        attr
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut nodes = self.nodes();
        match nodes.get_mut(&parent.0).unwrap().names.remove(name) {
            Some(ino) => {
                nodes.remove(&ino);
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }
}

impl Filesystem for Ceiling {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        SETTINGS.into_iter().for_each(|setting| config.add_capabilities(setting).unwrap());
        config.set_max_write(1 << 20).or_else(|nearest| config.set_max_write(nearest)).unwrap();
        config.set_max_background(64).unwrap();
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let nodes = self.nodes();
        let found = nodes[&parent.0].names.get(name).and_then(|ino| nodes.get(ino));
        match found {
            Some(node) => reply.entry(&LASTING, &node.attr, GENERATION),
            None => reply.entry(&LASTING, &node(0, FileType::RegularFile, 0).attr, GENERATION),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.nodes().get(&ino.0) {
            Some(node) => reply.attr(&LASTING, &node.attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut nodes = self.nodes();
        let Some(node) = nodes.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        if let Some(mode) = mode {
            node.attr.perm = (mode & 0o7777) as u16;
        }
        if let Some(size) = size {
            node.bytes.resize(size as usize, 0);
            node.attr.size = size;
        }
        reply.attr(&LASTING, &node.attr);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        reply.entry(&LASTING, &self.make(parent, name, FileType::Directory, mode), GENERATION);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.entry(&LASTING, &self.make(parent, name, FileType::Symlink, 0o777), GENERATION);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut nodes = self.nodes();
        let Some(ino) = nodes.get_mut(&parent.0).unwrap().names.remove(name) else {
            return reply.error(Errno::ENOENT);
        };
        nodes.get_mut(&to.0).unwrap().names.insert(new_name.to_owned(), ino);
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if flags.0 & libc::O_TRUNC != 0 {
            let mut nodes = self.nodes();
            let node = nodes.get_mut(&ino.0).unwrap();
            node.bytes.clear();
            node.attr.size = 0;
        }
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH);
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, _: i32, reply: ReplyCreate) {
        let attr = self.make(parent, name, FileType::RegularFile, mode);
        let flags = FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_NOFLUSH;
        reply.created(&LASTING, &attr, GENERATION, FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let nodes = self.nodes();
        let bytes = &nodes[&ino.0].bytes;
        let from = (offset as usize).min(bytes.len());
        let data = &bytes[from..(from + size as usize).min(bytes.len())];
        self.seal(data);
        reply.data(data);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.seal(data);
        let mut nodes = self.nodes();
        let Some(node) = nodes.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        let (from, end) = (offset as usize, offset as usize + data.len());
        if node.bytes.len() < end {
            node.bytes.resize(end, 0);
            node.attr.size = end as u64;
        }
        node.bytes[from..end].copy_from_slice(data);
        reply.written(data.len() as u32);
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let nodes = self.nodes();
        let names = nodes[&ino.0].names.iter().enumerate().skip(offset as usize);
        for (number, (name, ino)) in names {
            let attr = &nodes[ino].attr;
            if reply.add(attr.ino, number as u64 + 1, name, &LASTING, attr, GENERATION) {
                break;
            }
        }
        reply.ok();
    }
}
