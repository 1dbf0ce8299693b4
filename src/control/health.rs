//! Checking, repairing and re-encrypting.

use serde_json::{Value, json};

use super::failure::{Exit, Failure};
use super::path::PathText;
use super::reply::Reply;
use crate::workspace::{Affected, CheckReport, Reencryption, RepairReport, Sample, Workspace};

/// So many problems and paths stand in a message; the data has all.
const SHOWN_MAX: usize = 20;

/// Bytes from `4096`, `500M`, `10GiB` (units are powers of 1024).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("`{text}` is no size; write for example 500MiB or 10GiB")),
    };
    let number: u64 = digits.trim().parse().map_err(|_| format!("`{text}` is no size; write for example 10GiB"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("`{text}` is too large"))
}

/// How much content `5%` or `10GiB` means.
pub(super) fn sample(text: Option<&str>) -> Result<Sample, Failure> {
    let Some(text) = text else { return Ok(Sample::Nothing) };
    let wrong =
        || Failure::new(Exit::Usage, format!("`{text}` is neither a share such as 5% nor a size such as 10GiB"));
    match text.strip_suffix('%') {
        Some(percent) => {
            percent.trim().parse().ok().filter(|percent| *percent <= 100).map(Sample::Percent).ok_or_else(wrong)
        }
        None => parse_size(text).map(Sample::Bytes).map_err(|_| wrong()),
    }
}

pub(super) fn checked(report: &CheckReport) -> Reply {
    let data = json!({
        "versions": report.versions, "blobs": report.blobs, "objects": report.objects,
        "blobs_read": report.blobs_read, "problems": problems(report), "affected": affected(&report.affected),
    });
    let looked = format!(
        "{} versions, {} objects; content of {} blobs read",
        report.versions, report.objects, report.blobs_read
    );
    if report.problems.is_empty() {
        return Reply::done(format!("nothing is wrong: {looked}"), data);
    }
    let mut lines = vec![format!("{} objects are damaged or missing: {looked}", report.problems.len())];
    lines.extend(report.problems.iter().take(SHOWN_MAX).map(|(object, what)| format!("  {object}: {what}")));
    lines.extend(affected_lines(&report.affected));
    let reply = Reply::with(Exit::Damaged, lines.join("\n"), data);
    Reply { hint: Some("`kura repair` stores anew what this machine still holds".to_owned()), ..reply }
}

pub(super) fn repaired(report: &RepairReport) -> Reply {
    let RepairReport { found, restored_blobs, rebuilt_runs, restored_versions, lost, cut } = report;
    let data = json!({
        "problems": problems(found), "restored_blobs": restored_blobs, "rebuilt_runs": rebuilt_runs,
        "restored_versions": restored_versions, "lost": affected(lost), "cut": affected(cut),
    });
    if found.problems.is_empty() {
        return Reply::done("nothing is wrong", data);
    }
    let mut lines = vec![format!(
        "{} objects were damaged or missing; stored anew: {restored_blobs} blobs, {rebuilt_runs} location runs, \
         {restored_versions} version records",
        found.problems.len()
    )];
    if !cut.is_empty() {
        lines.push("cut out, for nothing here could bring it back:".to_owned());
        lines.extend(affected_lines(cut));
    }
    if lost.is_empty() {
        return Reply::done(lines.join("\n"), data);
    }
    lines.push("lost, unless a copy of the store has it:".to_owned());
    lines.extend(affected_lines(lost));
    let reply = Reply::with(Exit::Damaged, lines.join("\n"), data);
    Reply { hint: Some("another machine's cache may have it; `--cut` takes it out for good".to_owned()), ..reply }
}

/// Runs in the background of a mount, else now.
pub(super) fn reencrypt(workspace: &Workspace, limit: Option<u64>) -> Result<Reply, Failure> {
    if workspace.is_read_only() {
        return Err(crate::workspace::WorkspaceError::ReadOnly.into());
    }
    if workspace.reencrypt_in_background(limit) {
        let text =
            "everything is stored anew under the newest key in the background; `kura status` tells how far it is";
        return Ok(Reply::done(text, json!({ "background": true })));
    }
    let done = workspace.reencrypt(limit, &|| false, &mut |_| {})?;
    Ok(Reply::done(reencryption_text(&done), reencryption_data(&done)))
}

/// What re-encryption did, for people.
pub fn reencryption_text(done: &Reencryption) -> String {
    format!(
        "looked at {} objects and stored {} bytes anew; {} objects are no longer referred to and stay until collected",
        done.objects,
        done.bytes,
        done.unreferred.len()
    )
}

fn reencryption_data(done: &Reencryption) -> Value {
    let unreferred: Vec<String> = done.unreferred.iter().map(ToString::to_string).collect();
    json!({ "objects": done.objects, "bytes": done.bytes, "unreferred": unreferred })
}

fn problems(report: &CheckReport) -> Vec<Value> {
    report.problems.iter().map(|(object, what)| json!({ "object": object, "reason": what })).collect()
}

fn affected(affected: &[Affected]) -> Vec<Value> {
    let path = |path: &std::sync::Arc<[u8]>| PathText::from(&**path);
    affected
        .iter()
        .map(|affected| {
            let paths: Vec<PathText> = affected.paths.iter().map(path).collect();
            json!({ "version": affected.version.to_string(), "paths": paths })
        })
        .collect()
}

fn affected_lines(affected: &[Affected]) -> Vec<String> {
    let line = |affected: &Affected| {
        let names = affected.paths.iter().take(SHOWN_MAX).map(|path| match path.is_empty() {
            true => "everything".to_owned(),
            false => PathText::from(&**path).to_string(),
        });
        format!("  version {}: {}", affected.version, names.collect::<Vec<_>>().join(", "))
    };
    affected.iter().take(SHOWN_MAX).map(line).collect()
}
