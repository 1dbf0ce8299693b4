//! How objects are called as files of one flat local directory: `/` becomes `+`, which object
//! names do not have.

use crate::store::ObjectKey;

pub(super) fn file_name(key: &ObjectKey) -> String {
    key.as_str().replace('/', "+")
}

pub(super) fn object_key(file_name: &str) -> Option<ObjectKey> {
    ObjectKey::new(file_name.replace('+', "/"))
}
