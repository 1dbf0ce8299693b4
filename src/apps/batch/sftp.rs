//! Files on an SFTP server.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Modified, Replacing, check_unchanged,
};
use super::pool::Pool;
use super::retry::Retrier;
use super::ssh::{Fields, STATUS_EOF, Ssh, SshAddress, kind, put_bytes};
use super::walk::{Kind, Listed, join, walk_tree};
use super::work::{TempFile, changed};

/// Bytes of one request, and requests under way at once.
const PIECE_LEN: u32 = 32 * 1024;
const WINDOW: usize = 32;
const CONNECTIONS_MAX: usize = 8;
/// Entries of one directory.
const ENTRIES_MAX: u32 = 4_000_000;
const POSIX_RENAME: &[u8] = b"posix-rename@openssh.com";
const FSYNC: &[u8] = b"fsync@openssh.com";
const OPEN_READ: u32 = 0x01;
const OPEN_CREATE_NEW: u32 = 0x02 | 0x08 | 0x20;

/// A directory on an SFTP server.
pub struct SftpFiles {
    at: SshAddress,
    password: Option<(Zeroizing<String>, PathBuf)>,
    root: Vec<u8>,
    address: String,
    pool: Pool<Ssh>,
}

/// What a server says of a file.
#[derive(Clone, Copy, Debug, Default)]
struct Attrs {
    size: Option<u64>,
    mode: u32,
    mtime: Option<u32>,
}

impl SftpFiles {
    /// Prepares access to a directory; the server is not asked for anything yet. A root that begins with `/~/` is
    /// relative to the user's home. A password comes with the program that hands it to `ssh` (see `connect`).
    pub fn new(at: SshAddress, root: &str, password: Option<(Zeroizing<String>, PathBuf)>) -> Result<Self> {
        let is_plain = |text: &str| !text.is_empty() && !text.starts_with('-') && !text.contains(char::is_whitespace);
        if !is_plain(&at.host) || at.user.as_ref().is_some_and(|user| !is_plain(user)) {
            return Err(BatchError::Job("the SFTP address has no usable host or user".to_owned()));
        }
        let user = at.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = at.port.map(|port| format!(":{port}")).unwrap_or_default();
        let address = format!("sftp://{user}{}{port}{root}", at.host);
        let root = root.strip_prefix("/~/").unwrap_or(root).trim_end_matches('/');
        let root = if root.is_empty() { "/" } else { root }.as_bytes().to_vec();
        Ok(Self { at, password, root, address, pool: Pool::new(CONNECTIONS_MAX) })
    }

    fn full(&self, path: &[u8]) -> Vec<u8> {
        if path.is_empty() {
            return self.root.clone();
        }
        if self.root == b"/" { [b"/", path].concat() } else { join(&self.root, path) }
    }

    /// Does something over a connection.
    fn with<T>(&self, act: impl FnOnce(&mut Ssh) -> Result<T>) -> Result<T> {
        let password = self.password.as_ref().map(|(password, askpass)| (&**askpass, password.as_str()));
        self.pool.with(|| Ssh::connect(&self.at, password), act)
    }

    fn list(&self, dir: &[u8]) -> Result<Vec<Listed>> {
        let shown = String::from_utf8_lossy(dir).into_owned();
        self.with(|ssh| {
            let handle = open_with(ssh, kind::OPENDIR, &with_path(&self.full(dir)), &shown)?;
            let (mut found, mut count) = (Vec::new(), 0);
            loop {
                let (what, body) = ssh.ask(kind::READDIR, &with_path(&handle))?;
                if what != kind::NAME {
                    match status(ssh, what, &body, &shown) {
                        Ok(STATUS_EOF) => break,
                        Ok(_) => return Err(ssh.nonsense()),
                        Err(error) => return Err(error),
                    }
                }
                // An answer without a name counts as well, or answers need never end.
                count += read_names(&body, &mut found).ok_or_else(|| ssh.nonsense())?.max(1);
                if count > ENTRIES_MAX {
                    return Err(BatchError::file(Code::Protocol, shown.clone(), "the directory has too many names"));
                }
            }
            close(ssh, &handle, &shown)?;
            Ok(found)
        })
    }
}

fn with_path(path: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(path.len() + 32);
    put_bytes(&mut body, path);
    body
}

/// The number of a status that is no failure (0 or the end); an error for every other.
fn status(ssh: &Ssh, what: u8, body: &[u8], target: &str) -> Result<u32> {
    let mut fields = Fields(body);
    if what != kind::STATUS {
        return Err(ssh.nonsense());
    }
    let number = fields.u32().ok_or_else(|| ssh.nonsense())?;
    let words = fields.bytes().map(|words| String::from_utf8_lossy(words).into_owned()).unwrap_or_default();
    let code = match number {
        0 | STATUS_EOF => return Ok(number),
        2 => Code::Vanished,
        3 => Code::Denied,
        6 | 7 => Code::Network,
        // OpenSSH has no word of its own for a full disk; proftpd says it in the text.
        4 if words.contains("space") || words.contains("quota") => Code::Full,
        4 if words.contains("too long") => Code::BadName,
        _ => Code::Protocol,
    };
    Err(BatchError::file(code, target, format!("{words} (status {number})")))
}

fn done(ssh: &mut Ssh, what: u8, body: &[u8], target: &str) -> Result<()> {
    let (what, body) = ssh.ask(what, body)?;
    status(ssh, what, &body, target).map(drop)
}

fn open_with(ssh: &mut Ssh, what: u8, body: &[u8], target: &str) -> Result<Vec<u8>> {
    let (what, body) = ssh.ask(what, body)?;
    if what == kind::HANDLE {
        return Fields(&body).bytes().map(<[u8]>::to_vec).ok_or_else(|| ssh.nonsense());
    }
    status(ssh, what, &body, target)?;
    Err(ssh.nonsense())
}

fn close(ssh: &mut Ssh, handle: &[u8], target: &str) -> Result<()> {
    done(ssh, kind::CLOSE, &with_path(handle), target)
}

fn attrs(fields: &mut Fields<'_>) -> Option<Attrs> {
    let flags = fields.u32()?;
    let mut found = Attrs::default();
    if flags & 0x1 != 0 {
        found.size = Some(fields.u64()?);
    }
    if flags & 0x2 != 0 {
        fields.u32()?;
        fields.u32()?;
    }
    if flags & 0x4 != 0 {
        found.mode = fields.u32()?;
    }
    if flags & 0x8 != 0 {
        fields.u32()?;
        found.mtime = Some(fields.u32()?);
    }
    if flags & 0x8000_0000 != 0 {
        for _ in 0..fields.u32()?.min(1000) {
            fields.bytes()?;
            fields.bytes()?;
        }
    }
    Some(found)
}

impl Attrs {
    fn kind(self) -> Kind {
        match self.mode & 0o170_000 {
            0o100_000 => Kind::File,
            0o040_000 => Kind::Directory,
            _ => Kind::Other,
        }
    }

    fn modified(self) -> Option<Modified> {
        self.mtime.map(|seconds| Modified::of_seconds(i64::from(seconds)))
    }
}

/// Reads the names of a directory, or of a part of it, from the answer to `READDIR`. Returns how many
/// there were, with those that are passed over.
pub fn read_names(body: &[u8], found: &mut Vec<Listed>) -> Option<u32> {
    let mut fields = Fields(body);
    let count = fields.u32()?;
    for _ in 0..count {
        let name = fields.bytes()?.to_vec();
        fields.bytes()?;
        let attrs = attrs(&mut fields)?;
        if name != b"." && name != b".." {
            let (kind, size, modified) = (attrs.kind(), attrs.size.unwrap_or(0), attrs.modified());
            found.push(Listed { name, kind, size, modified, etag: None });
        }
    }
    Some(count)
}

fn lstat(ssh: &mut Ssh, full: &[u8], target: &str) -> Result<Attrs> {
    let (what, body) = ssh.ask(kind::LSTAT, &with_path(full))?;
    if what == kind::ATTRS {
        return attrs(&mut Fields(&body)).ok_or_else(|| ssh.nonsense());
    }
    status(ssh, what, &body, target)?;
    Err(ssh.nonsense())
}

fn info(path: &FilePath, attrs: Attrs) -> Result<FileInfo> {
    match attrs.kind() {
        Kind::Other => Err(BatchError::file(Code::NotAFile, path.to_string(), "not a file")),
        kind => Ok(FileInfo {
            path: path.clone(),
            size: attrs.size.filter(|_| kind == Kind::File).unwrap_or(0),
            modified: attrs.modified(),
            etag: None,
            is_dir: kind == Kind::Directory,
        }),
    }
}

/// Reads from an open file, of which the server said that it has `len` bytes, to its end.
fn read_all(ssh: &mut Ssh, handle: &[u8], to: &mut dyn Write, len: Option<u64>, target: &str) -> Result<()> {
    let (mut written, mut asked, mut is_over) = (0u64, 0u64, false);
    let mut waiting: VecDeque<(u32, u64)> = VecDeque::new();
    loop {
        while !is_over && waiting.len() < WINDOW {
            let mut body = with_path(handle);
            body.extend_from_slice(&asked.to_be_bytes());
            body.extend_from_slice(&PIECE_LEN.to_be_bytes());
            waiting.push_back((ssh.send(kind::READ, &body)?, asked));
            asked += u64::from(PIECE_LEN);
        }
        let Some((id, offset)) = waiting.pop_front() else { return Ok(()) };
        let (what, body) = ssh.answer(id)?;
        if what != kind::DATA {
            status(ssh, what, &body, target)?;
            is_over = true;
            continue;
        }
        // What follows a short piece is asked for anew.
        if offset != written || is_over {
            continue;
        }
        let is_fit = |data: &&[u8]| (1..=PIECE_LEN as usize).contains(&data.len());
        let data = Fields(&body).bytes().filter(is_fit).ok_or_else(|| ssh.nonsense())?;
        if len.is_some_and(|len| written + data.len() as u64 > len) {
            return Err(changed(target));
        }
        to.write_all(data).map_err(|error| BatchError::of_io("the work directory", &error))?;
        written += data.len() as u64;
        if data.len() < PIECE_LEN as usize {
            asked = written;
        }
    }
}

fn write_all(ssh: &mut Ssh, handle: &[u8], from: &mut dyn Read, target: &str) -> Result<()> {
    let mut waiting = VecDeque::new();
    let (mut piece, mut offset) = (vec![0; PIECE_LEN as usize], 0u64);
    loop {
        let count = from.read(&mut piece).map_err(|error| BatchError::of_io("the work directory", &error))?;
        if count == 0 || waiting.len() == WINDOW {
            let kept = if count == 0 { 0 } else { WINDOW - 1 };
            while waiting.len() > kept {
                let Some(id) = waiting.pop_front() else { break };
                let (what, body) = ssh.answer(id)?;
                status(ssh, what, &body, target)?;
            }
        }
        if count == 0 {
            return Ok(());
        }
        let mut body = with_path(handle);
        body.extend_from_slice(&offset.to_be_bytes());
        put_bytes(&mut body, &piece[..count]);
        waiting.push_back(ssh.send(kind::WRITE, &body)?);
        offset += count as u64;
    }
}

impl FileSystem for SftpFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        walk_tree(filter, retrier, &mut |dir| self.list(dir), each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        let found = self.with(|ssh| lstat(ssh, &self.full(path.as_bytes()), &path.to_string()))?;
        info(path, found)
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let (full, target) = (self.full(path.as_bytes()), path.to_string());
        self.with(|ssh| {
            let found = lstat(ssh, &full, &target)?;
            let before = info(path, found)?;
            if before.is_dir {
                return Err(BatchError::file(Code::NotAFile, target.clone(), "it is a directory now"));
            }
            let mut body = with_path(&full);
            body.extend_from_slice(&OPEN_READ.to_be_bytes());
            body.extend_from_slice(&0u32.to_be_bytes());
            let handle = open_with(ssh, kind::OPEN, &body, &target)?;
            read_all(ssh, &handle, to, found.size, &target)?;
            close(ssh, &handle, &target)?;
            let after = info(path, lstat(ssh, &full, &target)?)?;
            if after != before {
                return Err(changed(&target));
            }
            Ok(after)
        })
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let path = &expected.path;
        let (full, target) = (self.full(path.as_bytes()), path.to_string());
        let partial = self.full(path.partial().as_bytes());
        self.with(|ssh| {
            let found = lstat(ssh, &full, &target)?;
            check_unchanged(expected, &info(path, found)?)?;
            if !ssh.has(POSIX_RENAME) {
                let reason = "the server cannot replace a file in one step (posix-rename@openssh.com)";
                return Err(BatchError::file(Code::Protocol, target.clone(), reason));
            }
            let put = put_beside(ssh, &partial, from, found.mode & 0o7777, &target).and_then(|()| {
                check_unchanged(expected, &info(path, lstat(ssh, &full, &target)?)?)?;
                let mut body = with_path(POSIX_RENAME);
                put_bytes(&mut body, &partial);
                put_bytes(&mut body, &full);
                done(ssh, kind::EXTENDED, &body, &target)
            });
            if let Err(error) = put {
                done(ssh, kind::REMOVE, &with_path(&partial), &target).ok();
                return Err(error);
            }
            info(path, lstat(ssh, &full, &target)?)
        })
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        self.with(|ssh| done(ssh, kind::REMOVE, &with_path(&self.full(path.as_bytes())), &path.to_string()))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Atomic, whole_run: false, connections_max: CONNECTIONS_MAX }
    }

    fn address(&self) -> &str {
        &self.address
    }

    fn close(&self) {
        self.pool.clear();
    }
}

/// Writes a temporary file, durable where the server can say so.
fn put_beside(ssh: &mut Ssh, partial: &[u8], from: &TempFile, mode: u32, target: &str) -> Result<()> {
    let mut body = with_path(partial);
    body.extend_from_slice(&OPEN_CREATE_NEW.to_be_bytes());
    let with_mode = [4u32.to_be_bytes(), mode.to_be_bytes()].concat();
    body.extend_from_slice(&with_mode);
    let handle = open_with(ssh, kind::OPEN, &body, target)?;
    let mut reader = from.reader().map_err(|error| BatchError::of_io("the work directory", &error))?;
    write_all(ssh, &handle, &mut reader, target)?;
    let mut body = with_path(&handle);
    body.extend_from_slice(&with_mode);
    done(ssh, kind::FSETSTAT, &body, target)?;
    if ssh.has(FSYNC) {
        let mut body = with_path(FSYNC);
        put_bytes(&mut body, &handle);
        done(ssh, kind::EXTENDED, &body, target)?;
    }
    close(ssh, &handle, target)
}
