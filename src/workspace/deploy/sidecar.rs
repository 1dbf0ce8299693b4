//! Names of sidecars: where a new file goes when the one that is there stays.

use crate::base::limits::NAME_LEN_MAX;
use crate::version::index::sha256;

/// The name of a sidecar: `stem.provider.ext`, split at the last dot; where there is no stem or no extension, the
/// provider comes last. From the second on (`number` 2, 3, …) a number follows the provider. A stem that makes the
/// name too long is cut and ends in eight digits of the SHA-256 of the whole name.
pub fn sidecar_name(path: &str, provider: &str, number: u32) -> String {
    let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && !extension.is_empty() => (stem, Some(extension)),
        _ => (name, None),
    };
    let mut tail = format!(".{provider}");
    if number > 1 {
        tail.push_str(&format!(".{number}"));
    }
    // An extension that leaves no room for a stem is cut with it.
    let extension = extension.filter(|extension| extension.len() + tail.len() + 1 < NAME_LEN_MAX / 2);
    let stem = if extension.is_some() { stem } else { name };
    if let Some(extension) = extension {
        tail.push_str(&format!(".{extension}"));
    }
    let stem = match stem.len() + tail.len() {
        len if len <= NAME_LEN_MAX => stem.to_owned(),
        _ => {
            let digest = sha256(name.as_bytes()).to_string();
            let room = NAME_LEN_MAX.saturating_sub(tail.len() + 9);
            let end = (0..=room.min(stem.len())).rev().find(|end| stem.is_char_boundary(*end)).unwrap_or(0);
            format!("{}-{}", &stem[..end], &digest[..8])
        }
    };
    if dir.is_empty() { format!("{stem}{tail}") } else { format!("{dir}/{stem}{tail}") }
}
