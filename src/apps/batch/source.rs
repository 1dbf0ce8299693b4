//! Opening what a job names: its files, and its memory.

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::{BatchError, Result};
use super::filesystem::FileSystem;
use super::job::Job;
use super::key_value::{DiskKeyValue, KeyValue, MemoryKeyValue};
use super::local::LocalFiles;
use super::status::StatusMemory;
use super::workflow::{ProcessingWorkflow, Setup, memory_path};
use crate::workspace::Workspace;

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
        Some(other) => return Err(BatchError::Job(format!("`{other}` is no memory; `disk` or `memory` is"))),
    };
    Ok(StatusMemory::new(setup.keys.clone(), job.identity().into_bytes(), store))
}

fn open_files(
    job: &Job,
    _workspace: Option<&Arc<Workspace>>,
    _password: Option<Zeroizing<String>>,
) -> Result<Arc<dyn FileSystem>> {
    let url = &job.source.url;
    if let Some(path) = url.strip_prefix("file://") {
        return Ok(Arc::new(LocalFiles::open(Path::new(path))?));
    }
    Err(BatchError::Job(format!("`{url}` names no source; `file:///DIR` does")))
}
