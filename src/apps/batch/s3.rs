//! Files in a bucket of S3, or of a server that speaks its protocol.

use std::io::Write;

use super::error::{BatchError, Code, Result};
use super::filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Found, Modified, Replacing, check_unchanged,
};
use super::retry::Retrier;
use super::work::TempFile;
use crate::store::{Bucket, BucketError, BucketFault, BucketFile, S3Config};

const CONNECTIONS_MAX: usize = 64;

/// The part of a bucket below a prefix.
pub struct S3Files(Bucket);

impl S3Files {
    /// Prepares access; the server is not asked for anything yet.
    pub fn open(config: S3Config) -> Result<Self> {
        let address = config.address.to_string();
        Bucket::open(config).map(Self).map_err(|error| BatchError::file(Code::Network, address, error.to_string()))
    }

    fn failed(&self, target: &dyn std::fmt::Display, error: &BucketError) -> BatchError {
        let code = match error.fault {
            BucketFault::Missing => Code::Vanished,
            BucketFault::Changed => Code::SourceChanged,
            BucketFault::Denied => Code::Denied,
            BucketFault::Busy => Code::Busy,
            BucketFault::Unreachable => Code::Network,
            BucketFault::Sink => Code::Local,
            BucketFault::Invalid => Code::Protocol,
        };
        BatchError::file(code, target.to_string(), error.reason.clone())
    }
}

fn info(path: FilePath, file: BucketFile) -> FileInfo {
    let modified = file.modified_s.map(Modified::of_seconds);
    FileInfo { path, size: file.len, modified, etag: file.etag, is_dir: false }
}

/// Whether every directory above a name is entered.
fn is_entered(filter: &Filter, path: &[u8]) -> bool {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    filter.options.max_depth != Some(0) && ends.zip(1..).all(|(end, depth)| filter.enters(&path[..end], depth))
}

impl FileSystem for S3Files {
    /// A bucket has no directories: a name with `/` at the end, which some programs make for one, is passed over.
    fn walk(&self, filter: &Filter, retrier: &Retrier<'_>, each: &mut Each<'_>) -> Result<()> {
        let mut token = None;
        loop {
            let page =
                retrier.run(|_| self.0.list(token.clone()).map_err(|error| self.failed(&self.address(), &error)));
            let (files, next) = page?;
            for file in files.into_iter().filter(|file| !file.key.ends_with('/')) {
                let Some(path) = FilePath::new(file.key.as_bytes()) else {
                    let reason = "the name has empty parts, `.` or `..`";
                    each(Found::Failed(BatchError::file(Code::BadName, file.key, reason)))?;
                    continue;
                };
                if is_entered(filter, path.as_bytes()) && filter.takes(path.as_bytes(), false) {
                    each(Found::File(info(path, file)))?;
                }
            }
            match next {
                Some(next) => token = Some(next),
                None => return Ok(()),
            }
        }
    }

    fn stat(&self, path: &FilePath) -> Result<FileInfo> {
        let found = self.0.stat(path.as_text()?).map_err(|error| self.failed(path, &error))?;
        Ok(info(path.clone(), found))
    }

    fn download(&self, path: &FilePath, to: &mut dyn Write) -> Result<FileInfo> {
        let found = self.0.get(path.as_text()?, to).map_err(|error| self.failed(path, &error))?;
        Ok(info(path.clone(), found))
    }

    fn replace(&self, expected: &FileInfo, from: &TempFile) -> Result<FileInfo> {
        let path = &expected.path;
        // The tag is the condition; without one a look has to do.
        if expected.etag.is_none() {
            check_unchanged(expected, &self.stat(path)?)?;
        }
        let put = self.0.replace(path.as_text()?, expected.etag.clone(), from.path(), from.len());
        match put.map_err(|error| self.failed(path, &error))? {
            Some(etag) => {
                let (path, size, etag) = (path.clone(), from.len(), Some(etag));
                Ok(FileInfo { path, size, modified: None, etag, is_dir: false })
            }
            None => self.stat(path),
        }
    }

    fn remove(&self, path: &FilePath) -> Result<()> {
        self.0.remove(path.as_text()?).map_err(|error| self.failed(path, &error))
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { replacing: Replacing::Conditional, whole_run: false, connections_max: CONNECTIONS_MAX }
    }

    fn address(&self) -> &str {
        self.0.address()
    }
}
