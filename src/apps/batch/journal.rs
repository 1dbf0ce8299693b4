//! What is about to be uploaded: written down and durable before the upload begins, so that a run that was killed
//! between an upload and its record knows its own result when it meets it, and never processes it again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::error::{BatchError, Result};
use super::filesystem::FilePath;
use super::frames::{FrameReader, FrameWriter};
use super::status::hex;
use crate::base::disk::{Disk, DiskFile};
use crate::base::ids::Sha256;
use crate::crypto::Keys;

const WHAT: &str = "batch journal";
/// The journal is cut when it is longer than this, in bytes.
pub const CUT_LEN: u64 = 4 << 20;

/// An upload that is about to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The file.
    pub path: FilePath,
    /// Its content before.
    #[serde(with = "hex")]
    pub before: Sha256,
    /// Its content after.
    #[serde(with = "hex")]
    pub after: Sha256,
}

/// The journal of one job.
pub struct Journal {
    disk: Arc<dyn Disk>,
    keys: Keys,
    path: PathBuf,
    state: Mutex<State>,
    /// Intents that are durable, by number; held while syncing, so that one sync serves all who wait.
    synced: Mutex<u64>,
}

struct State {
    frames: FrameWriter,
    written: u64,
}

impl Journal {
    /// Hands out what an earlier run intended and may not have recorded.
    pub fn left(disk: &dyn Disk, path: &Path, keys: &Keys, each: &mut dyn FnMut(Intent) -> Result<()>) -> Result<()> {
        read(disk, path, keys, each)
    }

    /// Begins anew; what an earlier run left is forgotten.
    pub fn begin(disk: Arc<dyn Disk>, path: &Path, keys: Keys) -> Result<Self> {
        let frames = begin(&*disk, path, &keys)?;
        let state = Mutex::new(State { frames, written: 0 });
        Ok(Self { disk, keys, path: path.to_owned(), state, synced: Mutex::new(0) })
    }

    /// Hands out everything that was intended since it was cut.
    pub fn each(&self, each: &mut dyn FnMut(Intent) -> Result<()>) -> Result<()> {
        read(&*self.disk, &self.path, &self.keys, each)
    }

    /// Writes an intent down; durable when this returns.
    pub fn intend(&self, intent: &Intent) -> Result<()> {
        let failed = |error| BatchError::disk(format!("writing {}", self.path.display()))(error);
        let bytes = serde_json::to_vec(intent).map_err(|error| BatchError::Journal(error.to_string()))?;
        let number = {
            let mut state = self.state.lock();
            state.frames.frame(&bytes).map_err(failed)?;
            state.written += 1;
            state.written
        };
        let mut synced = self.synced.lock();
        if *synced >= number {
            return Ok(());
        }
        let (file, written): (Arc<dyn DiskFile>, u64) = {
            let state = self.state.lock();
            (state.frames.file(), state.written)
        };
        file.sync().map_err(failed)?;
        *synced = written;
        Ok(())
    }

    /// Whether it is time to cut it.
    pub fn is_long(&self) -> bool {
        self.state.lock().frames.len() > CUT_LEN
    }

    /// Forgets everything. Only when all that was intended is durably recorded elsewhere.
    pub fn cut(&self) -> Result<()> {
        let mut state = self.state.lock();
        state.frames = begin(&*self.disk, &self.path, &self.keys)?;
        Ok(())
    }
}

fn read(disk: &dyn Disk, path: &Path, keys: &Keys, each: &mut dyn FnMut(Intent) -> Result<()>) -> Result<()> {
    let Some(mut frames) = FrameReader::open(disk, path, keys.clone(), WHAT)? else { return Ok(()) };
    while let Some(frame) = frames.frame()? {
        let intent = serde_json::from_slice(&frame)
            .map_err(|error| BatchError::Journal(format!("{}: {error}", path.display())))?;
        each(intent)?;
    }
    Ok(())
}

/// Makes the journal anew, without intents.
fn begin(disk: &dyn Disk, path: &Path, keys: &Keys) -> Result<FrameWriter> {
    let failed = |error| BatchError::disk(format!("writing {}", path.display()))(error);
    let fresh = path.with_extension("new");
    match disk.remove(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let frames = FrameWriter::create(disk, &fresh, keys.clone(), WHAT).map_err(failed)?;
    frames.file().sync().map_err(failed)?;
    disk.rename(&fresh, path).map_err(failed)?;
    if let Some(dir) = path.parent() {
        disk.sync_dir(dir).map_err(failed)?;
    }
    Ok(frames)
}
