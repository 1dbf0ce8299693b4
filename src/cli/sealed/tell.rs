//! What `kura sealed` says of what it did.

use serde_json::json;
use zeroize::Zeroizing;

use crate::apps::sealed::{Document, Header, Outcome, ShareIds, Swept, Verified, Written};
use crate::cli::Context;
use crate::cli::output::size;
use crate::control::{Exit, Failure};
use crate::crypto::sharing::Field;

/// Says that something was written, and where the backup is.
pub fn tell<T>(
    context: &Context,
    text: &str,
    outcome: &Outcome<T>,
    mut data: serde_json::Value,
) -> Result<Exit, Failure> {
    if context.output.json {
        data["uuid"] = json!(outcome.uuid.to_string());
        data["backup"] = json!(outcome.backup.as_ref().map(|path| path.display().to_string()));
        context.output.json(&data)?;
    } else {
        context.output.note(text)?;
        if let Some(backup) = &outcome.backup {
            context.output.note(&format!("what was replaced is kept as {}", backup.display()))?;
        }
    }
    Ok(Exit::Ok)
}

/// Says which ids a new document got.
pub fn tell_ids(context: &Context, made: &Outcome<ShareIds>) -> Result<Exit, Failure> {
    let ids = made.result.as_slice();
    if context.output.json {
        return tell(context, "", made, json!({ "ids": ids }));
    }
    let ids: Vec<String> = ids.iter().map(u16::to_string).collect();
    tell(context, "sealed", made, json!({}))?;
    context.output.line(&format!("share ids: {}", ids.join(",")))?;
    context.output.note("they and the password open the document; neither can be found out or replaced")?;
    Ok(Exit::Ok)
}

/// Says what came of writing a document.
pub fn tell_written(context: &Context, done: &Outcome<Written>) -> Result<Exit, Failure> {
    let Written { revision, free } = done.result;
    let text = format!("written as revision {revision}; {} are free", size(free as u64));
    tell(context, &text, done, json!({ "revision": revision, "bytes_free": free }))
}

/// Prints a document.
pub fn print_document(context: &Context, found: &Document) -> Result<Exit, Failure> {
    if context.output.json {
        let (seconds, _) = found.changed.parts();
        let changed = jiff::Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default();
        let front = format!("{{\"revision\":{},\"changed\":\"{changed}\",\"document\":", found.revision);
        let mut text = Zeroizing::new(Vec::with_capacity(front.len() + found.json.len() + 2));
        text.extend_from_slice(front.as_bytes());
        text.extend_from_slice(&found.json);
        text.extend_from_slice(b"}\n");
        context.output.bytes(&text)?;
    } else {
        context.output.bytes(&found.json)?;
        if !found.json.ends_with(b"\n") {
            context.output.bytes(b"\n")?;
        }
    }
    Ok(Exit::Ok)
}

/// Says what the header tells.
pub fn tell_header(context: &Context, header: &Header) -> Result<Exit, Failure> {
    let field = match header.field {
        Field::Gf256 => "gf256",
        Field::Prime => "prime",
    };
    let (memory_kib, passes, lanes) = header.kdf.costs();
    if context.output.json {
        context.output.json(&json!({
            "uuid": header.uuid.to_string(),
            "field": field,
            "slots": header.slots,
            "capacity_bytes": header.capacity(),
            "file_bytes": header.file_len(),
            "kdf": { "memory_kib": memory_kib, "passes": passes, "lanes": lanes },
        }))?;
        return Ok(Exit::Ok);
    }
    context.output.line(&format!(
        "{}\n{} slots in field {field}, documents up to {}, {} in all\n\
         each guess of a password costs {} of memory, {passes} passes, {lanes} lanes",
        header.uuid,
        header.slots,
        size(header.capacity() as u64),
        size(header.file_len()),
        size(u64::from(memory_kib) * 1024),
    ))?;
    Ok(Exit::Ok)
}

/// Says what checking a file found.
pub fn tell_verified(context: &Context, verified: &Verified) -> Result<Exit, Failure> {
    let uuid = verified.header.uuid;
    if context.output.json {
        context.output.json(&json!({ "uuid": uuid.to_string(), "authentic": verified.authentic }))?;
        return Ok(Exit::Ok);
    }
    let found = if verified.authentic {
        "whole, and as the owners of its documents left it"
    } else {
        "whole; whether somebody altered it on purpose shows only with --ids and password"
    };
    context.output.line(&format!("{uuid}: {found}"))?;
    Ok(Exit::Ok)
}

/// Says what cleaning removed.
pub fn tell_swept(context: &Context, swept: &Swept) -> Result<Exit, Failure> {
    if context.output.json {
        context.output.json(&json!({ "removed": swept.removed, "in_use": swept.in_use }))?;
    } else {
        let Swept { removed, in_use } = swept;
        context.output.note(&format!("{removed} temporary files removed, {in_use} files are being worked on"))?;
    }
    Ok(Exit::Ok)
}
