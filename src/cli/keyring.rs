//! The keyring of the desktop session (the Secret Service of freedesktop.org), which holds a random key for a key
//! slot.
//!
//! The session with it is not encrypted on its own: it is a socket of the user, and whoever can listen there can ask
//! the keyring as well.

use std::collections::HashMap;

use data_encoding::HEXLOWER;
use dbus_secret_service::{EncryptionType, Error, SecretService};
use zeroize::Zeroizing;

use crate::base::random;
use crate::control::{Exit, Failure};

/// Bytes of a key that lies in a keyring.
const KEY_LEN: usize = 32;

fn attributes(workspace: &str) -> HashMap<&'static str, &str> {
    HashMap::from([("application", "kura"), ("workspace", workspace)])
}

fn failed(error: Error) -> Failure {
    let none_runs = matches!(error, Error::Unavailable | Error::Dbus(_));
    let failure = Failure::new(Exit::Other, format!("the keyring of this session cannot be used: {error}"));
    match none_runs {
        true => failure.hint("none seems to run here; use a passphrase or --key-file, or log in to a desktop session"),
        false => failure,
    }
}

/// Whether there is a keyring that answers.
pub fn probe() -> Result<(), Failure> {
    SecretService::connect(EncryptionType::Plain).map(drop).map_err(failed)
}

/// The key of a workspace.
pub fn load(workspace: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let service = SecretService::connect(EncryptionType::Plain).map_err(failed)?;
    find(&service, workspace)?.ok_or_else(|| {
        Failure::new(Exit::WrongKey, format!("the keyring of this session holds no key of {workspace}"))
            .hint("`kura key add --to-keyring` puts one there; until then use the passphrase")
    })
}

fn find(service: &SecretService, workspace: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Failure> {
    let found = service.search_items(attributes(workspace)).map_err(failed)?;
    let Some(item) = found.unlocked.first().or(found.locked.first()) else { return Ok(None) };
    item.ensure_unlocked().map_err(failed)?;
    let text = Zeroizing::new(item.get_secret().map_err(failed)?);
    let key = HEXLOWER.decode(&text).map(Zeroizing::new).ok().filter(|key| key.len() == KEY_LEN);
    key.map(Some).ok_or_else(|| {
        Failure::new(Exit::Damaged, format!("what the keyring of this session holds for {workspace} is no key"))
            .hint("remove it there, then use `kura key add --to-keyring`")
    })
}

/// The key of a workspace; a fresh random one is put there when there is none. One that is there stays, since a key
/// slot may need it.
pub fn load_or_make(workspace: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let service = SecretService::connect(EncryptionType::Plain).map_err(failed)?;
    if let Some(key) = find(&service, workspace)? {
        return Ok(key);
    }
    let key = Zeroizing::new(random::bytes::<KEY_LEN>().to_vec());
    let collection = service.get_default_collection().map_err(failed)?;
    collection.ensure_unlocked().map_err(failed)?;
    let text = Zeroizing::new(HEXLOWER.encode(&key));
    let label = format!("kura: {workspace}");
    collection.create_item(&label, attributes(workspace), text.as_bytes(), false, "text/plain").map_err(failed)?;
    Ok(key)
}

/// The password that lies there under a name of its own, for the source of a batch.
pub fn load_password(name: &str) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let service = SecretService::connect(EncryptionType::Plain).map_err(failed)?;
    let attributes = HashMap::from([("application", "kura"), ("batch", name)]);
    let found = service.search_items(attributes).map_err(failed)?;
    let Some(item) = found.unlocked.first().or(found.locked.first()) else {
        let message = format!("the keyring of this session holds no password `{name}`");
        let hint = format!("`secret-tool store --label=kura application kura batch {name}` puts one there");
        return Err(Failure::new(Exit::Usage, message).hint(hint));
    };
    item.ensure_unlocked().map_err(failed)?;
    Ok(Zeroizing::new(item.get_secret().map_err(failed)?))
}
