//! Secrets as they come from the user.

use zeroize::Zeroizing;

/// Secret bytes: a passphrase, the content of a key file, a recovery code. Wiped on drop, never shown.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Takes the text, as UTF-8.
    pub fn from_text(text: String) -> Self {
        Self::new(text.into_bytes())
    }

    /// The secret bytes. Whoever copies them wipes the copy.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What opens a key slot.
#[derive(Debug)]
pub enum Credential {
    /// Something remembered; stretched by Argon2id.
    Passphrase(Secret),
    /// The content of a file of random bytes.
    KeyFile(Secret),
    /// The text that was printed once; see [`RecoveryCode`](super::RecoveryCode).
    RecoveryCode(Secret),
}

/// The kind of a [`Credential`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialKind {
    /// A passphrase.
    Passphrase,
    /// A key file.
    KeyFile,
    /// A recovery code.
    RecoveryCode,
}

impl Credential {
    /// Which kind it is.
    pub fn kind(&self) -> CredentialKind {
        match self {
            Credential::Passphrase(_) => CredentialKind::Passphrase,
            Credential::KeyFile(_) => CredentialKind::KeyFile,
            Credential::RecoveryCode(_) => CredentialKind::RecoveryCode,
        }
    }
}

impl std::fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CredentialKind::Passphrase => "passphrase",
            CredentialKind::KeyFile => "key file",
            CredentialKind::RecoveryCode => "recovery code",
        })
    }
}
