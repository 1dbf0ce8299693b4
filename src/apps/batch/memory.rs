//! Files in memory: for tests, and for trying a job out.

use std::collections::BTreeMap;
use std::io::Write;

use parking_lot::Mutex;

use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Modified, Replacing, check_unchanged,
};
use super::retry::Retrier;
use super::walk::{Kind, Listed, walk_tree};
use super::work::{TempFile, copy};

/// Files in memory, with a clock of their own that ticks at every change.
#[derive(Default)]
pub struct MemoryFiles(Mutex<State>);

#[derive(Default)]
struct State {
    files: BTreeMap<Vec<u8>, (Vec<u8>, i64)>,
    now: i64,
}

impl MemoryFiles {
    /// No files.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes or replaces a file.
    pub fn put(&self, path: &[u8], content: &[u8]) {
        let mut state = self.0.lock();
        state.now += 1;
        let now = state.now;
        state.files.insert(path.to_vec(), (content.to_vec(), now));
    }

    /// A file's content.
    pub fn get(&self, path: &[u8]) -> Option<Vec<u8>> {
        self.0.lock().files.get(path).map(|(content, _)| content.clone())
    }

    fn list(&self, dir: &[u8]) -> Vec<Listed> {
        let prefix = if dir.is_empty() { Vec::new() } else { [dir, b"/"].concat() };
        let state = self.0.lock();
        let mut names: BTreeMap<Vec<u8>, Listed> = BTreeMap::new();
        for (path, (content, time)) in state.files.range(prefix.clone()..) {
            let Some(rest) = path.strip_prefix(&*prefix) else { break };
            let slash = rest.iter().position(|byte| *byte == b'/');
            let name = rest[..slash.unwrap_or(rest.len())].to_vec();
            let (kind, size) = match slash {
                Some(_) => (Kind::Directory, 0),
                None => (Kind::File, content.len() as u64),
            };
            let modified = Some(Modified { unix_ns: *time, step_ns: 1 });
            names.entry(name.clone()).or_insert(Listed { name, kind, size, modified, etag: None });
        }
        names.into_values().collect()
    }
}

impl State {
    fn info(&self, path: &FilePath) -> Result<FileInfo> {
        let (content, time) = self
            .files
            .get(path.as_bytes())
            .ok_or_else(|| BatchError::file(Code::Vanished, path.to_string(), "no such file"))?;
        let modified = Some(Modified { unix_ns: *time, step_ns: 1 });
        Ok(FileInfo { path: path.clone(), size: content.len() as u64, modified, etag: None, is_dir: false })
    }
}

impl FileSystem for MemoryFiles {
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        walk_tree(filter, retrier, &mut |dir| Ok(self.list(dir)), each)
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        self.0.lock().info(path)
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let (info, content) = {
            let state = self.0.lock();
            (state.info(path)?, state.files[path.as_bytes()].0.clone())
        };
        to.write_all(&content).map_err(|error| BatchError::of_io(path.to_string(), &error))?;
        Ok(info)
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let mut content = Vec::new();
        let read = from.reader().and_then(|mut reader| copy(&mut reader, &mut content));
        read.map_err(|error| BatchError::of_io("the work directory", &error))?;
        let mut state = self.0.lock();
        check_unchanged(expected, &state.info(&expected.path)?)?;
        state.now += 1;
        let now = state.now;
        state.files.insert(expected.path.as_bytes().to_vec(), (content, now));
        state.info(&expected.path)
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        self.0.lock().files.remove(path.as_bytes());
        Ok(())
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Conditional, whole_run: false, connections_max: usize::MAX }
    }

    fn address(&self) -> &str {
        "memory:"
    }
}
