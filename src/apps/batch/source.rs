//! Opening what a job names: its files, and its memory.

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::{BatchError, Result};
use super::filesystem::FileSystem;
use super::ftp::{FtpAddress, FtpFiles, FtpSecurity};
use super::job::{Job, Source, WORKSPACE_SCHEME};
use super::key_value::{DiskKeyValue, KeyValue, MemoryKeyValue};
use super::local::LocalFiles;
use super::redis::RedisKeyValue;
use super::s3::S3Files;
use super::sftp::SftpFiles;
use super::ssh::SshAddress;
use super::status::StatusMemory;
use super::url::Url;
use super::webdav::{DavAddress, DavFiles};
use super::workflow::{ProcessingWorkflow, Setup, memory_path};
use super::workspace_files::WorkspaceFiles;
use crate::store::{S3Config, StoreUrl};
use crate::workspace::Workspace;

/// Holds the password of a Redis server.
const REDIS_PASSWORD_VAR: &str = "KURA_REDIS_PASSWORD";

/// Opens a job: its files, its memory, and the lock of its source.
pub fn open(
    setup: &Setup,
    job: Job,
    workspace: Option<&Arc<Workspace>>,
    password: Option<Zeroizing<String>>,
) -> Result<ProcessingWorkflow> {
    let files = open_files(&job, workspace, password)?;
    let memory = open_memory(setup, &job)?;
    ProcessingWorkflow::open(setup.clone(), job, files, memory)
}

/// Opens the memory of a job.
pub fn open_memory(setup: &Setup, job: &Job) -> Result<StatusMemory> {
    let store: Box<dyn KeyValue> = match job.run.memory.as_deref() {
        None | Some("disk") => {
            let dir = setup.job_dir(job);
            setup.disk.create_dir_all(&dir).map_err(BatchError::disk(format!("making {}", dir.display())))?;
            Box::new(DiskKeyValue::open(&*setup.disk, &memory_path(setup, job))?)
        }
        Some("memory") => Box::new(MemoryKeyValue::default()),
        Some(url) if url.starts_with("redis://") => Box::new(RedisKeyValue::open(url, redis_password())?),
        Some(other) => {
            let reason = format!("`{other}` is no memory; `disk`, `memory` and redis://HOST:PORT/DATABASE are");
            return Err(BatchError::Job(reason));
        }
    };
    Ok(StatusMemory::new(setup.keys.clone(), job.identity().into_bytes(), store))
}

fn redis_password() -> Option<Zeroizing<String>> {
    std::env::var(REDIS_PASSWORD_VAR).ok().map(Zeroizing::new)
}

fn open_files(
    job: &Job,
    workspace: Option<&Arc<Workspace>>,
    password: Option<Zeroizing<String>>,
) -> Result<Arc<dyn FileSystem>> {
    let source = &job.source;
    if source.connection.is_some() {
        return Err(BatchError::Job("its connection is not known here".to_owned()));
    }
    if let Some(dir) = source.url.strip_prefix(WORKSPACE_SCHEME) {
        let workspace = workspace.ok_or_else(|| BatchError::Job("the workspace is not open here".to_owned()))?;
        return Ok(Arc::new(WorkspaceFiles::open(workspace, dir)?));
    }
    let url = Url::parse(&source.url)?;
    Ok(match url.scheme.as_str() {
        "file" => Arc::new(LocalFiles::open(Path::new(&url.path))?),
        "s3" => match source.url.parse() {
            Ok(StoreUrl::S3(address)) => Arc::new(S3Files::open(S3Config::new(address))?),
            Ok(StoreUrl::Dir(_)) => return Err(BatchError::Job("not the address of a bucket".to_owned())),
            Err(error) => return Err(BatchError::Job(error.to_string())),
        },
        "sftp" => {
            let (key_file, known_hosts) = (source.key_file.clone(), source.known_hosts.clone());
            let at = SshAddress { host: url.host, port: url.port, user: url.user, key_file, known_hosts };
            let askpass = std::env::current_exe().map_err(BatchError::disk("finding this program"))?;
            Arc::new(SftpFiles::new(at, &url.path, password.map(|password| (password, askpass)))?)
        }
        "ftp" | "ftpes" | "ftps" => {
            let security = match url.scheme.as_str() {
                "ftps" => FtpSecurity::Implicit,
                "ftpes" => FtpSecurity::Explicit,
                _ => FtpSecurity::None,
            };
            check_encrypted(source, security != FtpSecurity::None)?;
            let at = FtpAddress { host: url.host, port: url.port, user: url.user, password, security };
            Arc::new(FtpFiles::new(at, &url.path, source.ca_file.as_deref())?)
        }
        "webdav" | "webdavs" => {
            let is_secure = url.scheme == "webdavs";
            check_encrypted(source, is_secure)?;
            let at = DavAddress { host: url.host, port: url.port, user: url.user, password, is_secure };
            Arc::new(DavFiles::new(at, &url.path, source.ca_file.as_deref())?)
        }
        other => return Err(BatchError::Job(format!("sources of kind `{other}:` are not known"))),
    })
}

/// Fails where password and files would go over the network readably, unless that was allowed in words.
fn check_encrypted(source: &Source, is_encrypted: bool) -> Result<()> {
    if is_encrypted || source.unencrypted {
        return Ok(());
    }
    let reason = "password and files would go over the network for everybody to read; use `ftps`, `ftpes` or \
                  `webdavs`, or allow it with `unencrypted = true`";
    Err(BatchError::Job(reason.to_owned()))
}
