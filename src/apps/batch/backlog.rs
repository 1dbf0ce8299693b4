//! The list of what is to be processed: gzip, one line of JSON for each file, and a trailer that counts them.
//!
//! The trailer is a gzip member of its own, so that the count is read without the rest; `zcat` shows everything of a
//! list that is not sealed. A list without its trailer was cut, and is refused.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::error::{BatchError, Result};
use super::filesystem::FileInfo;
use super::frames::{FrameReader, FrameWriter};
use super::status::hex;
use crate::base::disk::Disk;
use crate::base::ids::Sha256;
use crate::crypto::Keys;

/// Longest line, in bytes.
const LINE_LEN_MAX: u64 = 64 * 1024;
const WHAT: &str = "batch backlog";

#[derive(Serialize, Deserialize)]
struct Trailer {
    end: bool,
    count: u64,
    #[serde(with = "hex")]
    sha256: Sha256,
    #[serde(flatten)]
    scan: ScanReport,
}

/// What a scan found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanReport {
    /// The run that it began.
    pub run: u64,
    /// Files that the walk handed out.
    pub scanned: u64,
    /// Those that are done and have not changed since.
    pub skipped: u64,
    /// Those in the backlog; `scanned` is `skipped` and `backlogged` together.
    pub backlogged: u64,
    /// Bytes of those in the backlog.
    pub bytes: u64,
    /// What could not be looked at.
    pub unreadable: u64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    File(FileInfo),
    Trailer(Trailer),
}

/// Writes a list.
pub struct BacklogWriter<W: Write> {
    gzip: GzEncoder<W>,
    hasher: sha2::Sha256,
    count: u64,
}

impl<W: Write> BacklogWriter<W> {
    /// An empty list.
    pub fn new(sink: W) -> Self {
        Self { gzip: GzEncoder::new(sink, Compression::fast()), hasher: sha2::Sha256::new(), count: 0 }
    }

    /// Adds a file.
    pub fn push(&mut self, file: &FileInfo) -> io::Result<()> {
        let mut line = serde_json::to_vec(file)?;
        line.push(b'\n');
        self.hasher.update(&line);
        self.gzip.write_all(&line)?;
        self.count += 1;
        Ok(())
    }

    /// Adds the trailer.
    pub fn finish(self, scan: ScanReport) -> io::Result<W> {
        let mut sink = self.gzip.finish()?;
        // The trailer begins a frame of its own where the list is sealed.
        sink.flush()?;
        let sha256 = Sha256(self.hasher.finalize().into());
        let trailer = Trailer { end: true, count: self.count, sha256, scan };
        let mut gzip = GzEncoder::new(sink, Compression::fast());
        let mut line = serde_json::to_vec(&trailer)?;
        line.push(b'\n');
        gzip.write_all(&line)?;
        let mut sink = gzip.finish()?;
        sink.flush()?;
        Ok(sink)
    }
}

/// Reads a list; an error, once, when it is not whole.
pub struct BacklogReader<R: Read> {
    lines: BufReader<MultiGzDecoder<BufReader<R>>>,
    hasher: sha2::Sha256,
    count: u64,
    is_over: bool,
}

impl<R: Read> BacklogReader<R> {
    /// A reader from the start.
    pub fn new(source: R) -> Self {
        let lines = BufReader::new(MultiGzDecoder::new(BufReader::new(source)));
        Self { lines, hasher: sha2::Sha256::new(), count: 0, is_over: false }
    }

    fn line(&mut self) -> Result<Option<FileInfo>> {
        let mut line = Vec::new();
        let read = (&mut self.lines).take(LINE_LEN_MAX).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Err(BatchError::BacklogTruncated("the trailer is missing")),
            Ok(_) if line.last() == Some(&b'\n') => {}
            Ok(_) if line.len() as u64 == LINE_LEN_MAX => {
                return Err(BatchError::BacklogDamaged(format!("line {} is too long", self.count + 1)));
            }
            Ok(_) => return Err(BatchError::BacklogTruncated("a line ends in the middle")),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(BatchError::BacklogTruncated("it ends in the middle of the compressed data"));
            }
            Err(error) => return Err(BatchError::BacklogDamaged(error.to_string())),
        }
        let parsed = serde_json::from_slice(&line)
            .map_err(|_| BatchError::BacklogDamaged(format!("line {} is no entry", self.count + 1)))?;
        match parsed {
            Line::File(file) => {
                self.hasher.update(&line);
                self.count += 1;
                Ok(Some(file))
            }
            Line::Trailer(trailer) => self.check(&trailer).map(|()| None),
        }
    }

    fn check(&mut self, trailer: &Trailer) -> Result<()> {
        let found = Sha256(std::mem::take(&mut self.hasher).finalize().into());
        if !trailer.end || trailer.count != self.count || trailer.sha256 != found {
            return Err(BatchError::BacklogDamaged("its entries are not those that its trailer counts".to_owned()));
        }
        let behind = self.lines.fill_buf().map_err(|error| BatchError::BacklogDamaged(error.to_string()))?;
        if !behind.is_empty() {
            return Err(BatchError::BacklogDamaged("something follows its trailer".to_owned()));
        }
        Ok(())
    }
}

impl<R: Read> Iterator for BacklogReader<R> {
    type Item = Result<FileInfo>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.line().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Keeps the list of one job on the local disk, sealed.
pub struct BacklogManager<'a> {
    /// The local disk.
    pub disk: &'a dyn Disk,
    /// What seals the list.
    pub keys: &'a Keys,
}

impl BacklogManager<'_> {
    /// Writes a list: `fill` hands its files to the writer. It takes the place of an earlier list only when it is whole
    /// and durable.
    pub fn write(
        &self,
        path: &Path,
        fill: impl FnOnce(&mut BacklogWriter<FrameWriter>) -> Result<ScanReport>,
    ) -> Result<ScanReport> {
        let failed = |error| BatchError::disk(format!("writing {}", path.display()))(error);
        let fresh = path.with_extension("new");
        match self.disk.remove(&fresh) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let frames = FrameWriter::create(self.disk, &fresh, self.keys.clone(), WHAT).map_err(failed)?;
        let mut writer = BacklogWriter::new(frames);
        let scan = fill(&mut writer)?;
        let frames = writer.finish(scan).map_err(failed)?;
        frames.file().sync().map_err(failed)?;
        self.disk.rename(&fresh, path).map_err(failed)?;
        if let Some(dir) = path.parent() {
            self.disk.sync_dir(dir).map_err(failed)?;
        }
        Ok(scan)
    }

    /// Reads a list.
    pub fn read(&self, path: &Path) -> Result<BacklogReader<FrameReader>> {
        Ok(BacklogReader::new(self.open(path)?))
    }

    /// What a list holds, from its trailer alone. A list that was cut has none.
    pub fn summary(&self, path: &Path) -> Result<ScanReport> {
        let last = self.open(path)?.last()?.ok_or(BatchError::BacklogTruncated("the trailer is missing"))?;
        let mut text = Vec::new();
        let read = MultiGzDecoder::new(&*last).take(LINE_LEN_MAX).read_to_end(&mut text);
        let trailer = read.ok().and_then(|_| serde_json::from_slice::<Trailer>(&text).ok());
        Ok(trailer.ok_or(BatchError::BacklogTruncated("the trailer is missing"))?.scan)
    }

    fn open(&self, path: &Path) -> Result<FrameReader> {
        FrameReader::open(self.disk, path, self.keys.clone(), WHAT)?.ok_or(BatchError::NoBacklog)
    }
}
