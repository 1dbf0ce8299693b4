//! Requests about content that is to be near, and about what waits.

use serde_json::json;

use super::failure::Failure;
use super::path::PathText;
use super::reply::Reply;
use crate::workspace::{Fetching, Workspace};

/// Files that are named at most.
const FILES_MAX: usize = 1_000;

pub(super) fn prefetch(workspace: &Workspace, paths: &[Vec<u8>]) -> Result<Reply, Failure> {
    if workspace.prefetch_in_background(paths)? {
        return Ok(Reply::done("fetching in the background; `kura status` tells how far it is", json!(null)));
    }
    Ok(fetched(&workspace.prefetch(paths, &|_| {})?))
}

/// What came of fetching.
pub fn fetched(state: &Fetching) -> Reply {
    let (files, bytes, total) = (state.files, state.bytes, state.bytes_total);
    match &state.failure {
        Some(reason) => Reply::partly(format!("{bytes} of {total} bytes are here, and then: {reason}"), state),
        None => Reply::done(format!("all {bytes} bytes of {files} files are here"), state),
    }
}

pub(super) fn pin(workspace: &Workspace, paths: &[Vec<u8>], is_pinned: bool) -> Result<Reply, Failure> {
    let is_mounted = workspace.is_in_background();
    if !paths.is_empty() {
        workspace.set_pins(paths, is_pinned)?;
    }
    let pins: Vec<PathText> = workspace.pins().into_iter().map(PathText).collect();
    let list: Vec<String> = pins.iter().map(PathText::to_string).collect();
    let data = json!({ "pins": pins });
    if is_pinned && !is_mounted && !paths.is_empty() {
        let state = workspace.fetch_pinned(&|_| {})?;
        if let Some(reason) = &state.failure {
            return Ok(Reply::partly(format!("pinned; not all of it is here yet: {reason}"), data));
        }
    }
    let message = match list.as_slice() {
        [] => "nothing is pinned".to_owned(),
        list => list.join("\n"),
    };
    Ok(Reply::done(message, data))
}

/// The state of a workspace, with the files that wait.
pub(super) fn status_of_files(workspace: &Workspace) -> Result<Reply, Failure> {
    let status = workspace.status();
    let waiting = workspace.unpublished_files(FILES_MAX + 1)?;
    let mut text = status.to_string();
    for file in waiting.iter().take(FILES_MAX) {
        text.push_str(&format!(
            "waits        {} ({} bytes, {})\n",
            PathText::from(&*file.path),
            file.bytes,
            file.state
        ));
    }
    if waiting.len() > FILES_MAX {
        text.push_str(&format!("waits        more than {FILES_MAX} files\n"));
    }
    let files: Vec<_> = waiting
        .iter()
        .take(FILES_MAX)
        .map(|file| json!({ "path": PathText::from(&*file.path), "bytes": file.bytes, "state": file.state }))
        .collect();
    let mut data = serde_json::to_value(&status)
        .map_err(|error| Failure::new(super::Exit::Other, format!("the status cannot be written as JSON: {error}")))?;
    data["waiting_files"] = files.into();
    Ok(Reply::done(text, data))
}
