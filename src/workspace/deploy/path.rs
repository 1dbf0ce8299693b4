//! Which paths may be installed.

use icu_normalizer::ComposingNormalizerBorrowed;

use crate::base::limits::NAME_LEN_MAX;

/// Longest path in bytes.
const PATH_LEN_MAX: usize = 4096;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Nothing, or nothing between two slashes.
    #[error("it is empty, absolute, or has an empty part")]
    Empty,
    /// `.` or `..`.
    #[error("it holds `.` or `..`")]
    Dots,
    /// Too long.
    #[error("it, or a part of it, is too long")]
    TooLong,
    /// NUL, a backslash, or another control character.
    #[error("it holds a backslash or a control character")]
    Character,
    /// Not in the composed form of Unicode.
    #[error("it is not in Unicode's composed form (NFC)")]
    NotComposed,
    /// `.kura`.
    #[error("the name `.kura` is reserved")]
    Reserved,
}

/// Takes only plain relative paths whose parts are joined by `/`.
pub fn check_path(path: &str) -> Result<(), PathFault> {
    if path.len() > PATH_LEN_MAX {
        return Err(PathFault::TooLong);
    }
    if path.chars().any(|c| c.is_control() || c == '\\') {
        return Err(PathFault::Character);
    }
    if !ComposingNormalizerBorrowed::new_nfc().is_normalized(path) {
        return Err(PathFault::NotComposed);
    }
    for part in path.split('/') {
        match part {
            "" => return Err(PathFault::Empty),
            "." | ".." => return Err(PathFault::Dots),
            _ if part.len() > NAME_LEN_MAX => return Err(PathFault::TooLong),
            _ if fold(part) == ".kura" => return Err(PathFault::Reserved),
            _ => {}
        }
    }
    Ok(())
}

/// The form in which paths are the same where upper and lower case are.
pub fn fold(path: &str) -> String {
    let lower: String = path.chars().flat_map(char::to_lowercase).collect();
    ComposingNormalizerBorrowed::new_nfc().normalize(&lower).into_owned()
}
