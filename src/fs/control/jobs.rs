//! `.kura/jobs/<uuid>/`: each job as a directory of readable files.

use uuid::Uuid;

use super::nodes::{JobFile, Key};
use super::outside::Outside;
use crate::control::JobRecord;

const FILES: [(JobFile, &str); 6] = [
    (JobFile::Request, "request"),
    (JobFile::Status, "status"),
    (JobFile::Progress, "progress"),
    (JobFile::Log, "log"),
    (JobFile::Result, "result"),
    (JobFile::Cancel, "cancel"),
];

impl JobFile {
    pub(super) fn mode(self) -> u16 {
        if self == JobFile::Cancel { 0o200 } else { 0o400 }
    }

    fn text(self, job: &JobRecord) -> String {
        match self {
            JobFile::Request => format!("{:#}\n", serde_json::json!({ "op": job.op, "request": job.request })),
            JobFile::Status => format!("{}\n", job.state.word()),
            JobFile::Progress => {
                let progress = &job.progress;
                let total = if progress.total == 0 { "?".to_owned() } else { progress.total.to_string() };
                format!("{}/{total} {}\n", progress.done, progress.what)
            }
            JobFile::Log => job.log.iter().map(|line| format!("{line}\n")).collect(),
            JobFile::Result => {
                job.result.as_ref().map(|reply| String::from_utf8_lossy(&reply.line()).into_owned()).unwrap_or_default()
            }
            JobFile::Cancel => String::new(),
        }
    }
}

/// The files in the directory of a job.
pub(super) fn files(job: Uuid) -> impl Iterator<Item = (Vec<u8>, Key)> {
    FILES.into_iter().map(move |(file, name)| (name.as_bytes().to_vec(), Key::JobFile(job, file)))
}

impl Outside {
    /// The job whose directory has this name.
    pub(super) fn job(&self, name: &str) -> Option<Uuid> {
        let id = Uuid::try_parse(name).ok().filter(|id| id.to_string() == name)?;
        self.control.jobs().find(id).map(|_| id)
    }

    /// What a file of a job says now; `None` when the job is no longer remembered.
    pub(super) fn job_text(&self, job: Uuid, file: JobFile) -> Option<Vec<u8>> {
        Some(file.text(&self.control.jobs().find(job)?.record()).into_bytes())
    }
}
