//! Batches: very many files scanned, filtered and processed in place, over any protocol, resumably.
//!
//! A [`FileSystem`] hands files out and takes them back. [`StatusMemory`] knows what was processed, and decides what
//! needs to be. A backlog ([`BacklogManager`]) holds what a scan found. [`ProcessingWorkflow`] leads a file through:
//! download into a private directory in memory, process, journal, replace, remember.
//!
//! Uses: `base`, `crypto`, `store` (its door to a user's bucket), `workspace`.
//!
//! Invariants:
//! - the processing is applied to what somebody else wrote, never to its own result, whenever the run is killed:
//!   what is about to be uploaded is durable in the journal before, and recognised by its content after;
//! - what is remembered of a done file is what the server says of it after our own upload;
//! - a file that somebody changed meanwhile is left as it is, as far as the protocol can tell;
//! - scanned = skipped + backlogged, and backlogged = done + unchanged + failed + pending;
//! - one file's failure never stops the others; a host that does not answer stops the run, and nothing fails for it;
//! - names and content are sealed wherever they are kept; plaintext lies in memory only, unless allowed in words.
//!
//! Lock order: the source's lock file, the gate of the journal, the journal, the memory.

mod backlog;
mod cancel;
mod command;
mod connections;
mod error;
mod filesystem;
mod frames;
mod ftp;
mod ftp_listing;
mod glob;
mod job;
mod journal;
mod json;
mod key_value;
mod local;
mod memory;
mod multistatus;
mod pool;
mod process;
mod redis;
mod report;
mod retry;
mod s3;
mod sftp;
mod source;
mod ssh;
mod status;
mod tls;
mod url;
mod walk;
mod webdav;
mod work;
mod worker;
mod workflow;
mod workspace_files;

pub use backlog::{BacklogManager, BacklogReader, BacklogWriter, ScanReport};
pub use cancel::{Cancel, watch};
pub use command::CommandLine;
pub use connections::{Connection, Connections};
pub use error::{BatchError, Code, Result};
pub use filesystem::{
    Capabilities, Each, FileInfo, FilePath, FileSystem, Filter, Finished, Found, Modified, PARTIAL_PREFIX, Replacing,
    Sameness, WalkOptions, check_unchanged,
};
pub use ftp::{FtpAddress, FtpFiles, FtpSecurity, ftp_meaning, ftp_time};
pub use ftp_listing::{Line, facts_line, list_line};
pub use glob::Glob;
pub use job::{Commit, JOB_LEN_MAX, Job, RunOptions, Source, unquoted};
pub use journal::{Intent, Journal};
pub use json::PatchOp;
pub use key_value::{DiskKeyValue, EachValue, KeyValue, MemoryKeyValue};
pub use local::LocalFiles;
pub use memory::MemoryFiles;
pub use multistatus::{Resource, Unreadable, read as read_multistatus};
pub use process::{LineEnding, Processing, Processor};
pub use redis::{Answer, RedisKeyValue, read_answer};
pub use report::{FileFailure, Progress, RunReport, Tell};
pub use retry::{Breaker, Retrier, RetryPolicy};
pub use s3::S3Files;
pub use sftp::{SftpFiles, read_names};
pub use source::{open, open_memory};
pub use ssh::{PASSWORD_VAR, SshAddress, extensions};
pub use status::{Attempt, Completed, Failed, Remembered, StatusMemory};
pub use url::Url;
pub use walk::{Kind, Listed, walk_tree};
pub use webdav::{DavAddress, DavFiles, dav_name};
pub use work::{TempFile, WorkDir, copy};
pub use workflow::{ProcessingWorkflow, Setup, last_scan, memory_path};
pub use workspace_files::WorkspaceFiles;
