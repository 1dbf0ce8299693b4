//! Why a file, or a whole batch, could not be processed.

use std::io;

/// The result of an operation on batches.
pub type Result<T> = std::result::Result<T, BatchError>;

/// What went wrong with one file, as a stable word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// The file is not there any more.
    Vanished,
    /// Something else than a file has its name.
    NotAFile,
    /// Access is denied.
    Denied,
    /// Somebody changed the file meanwhile; it was left as it is.
    SourceChanged,
    /// Somebody has locked the file.
    Locked,
    /// A name that the protocol cannot carry.
    BadName,
    /// No room where it should be written.
    Full,
    /// The processing itself refused the file.
    Processing,
    /// Cancelled before it was done.
    Cancelled,
    /// The connection failed, or timed out.
    Network,
    /// The server asks for patience.
    Busy,
    /// The answer or the transfer was cut short.
    Short,
    /// The server or its certificate is not who it should be.
    Untrusted,
    /// Name or password were refused.
    Login,
    /// The server answered something that makes no sense, or cannot do this.
    Protocol,
    /// The local disk, or what lies on it.
    Local,
}

impl Code {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Code::Vanished => "vanished",
            Code::NotAFile => "not_a_file",
            Code::Denied => "denied",
            Code::SourceChanged => "source_changed",
            Code::Locked => "locked",
            Code::BadName => "bad_name",
            Code::Full => "full",
            Code::Processing => "processing",
            Code::Cancelled => "cancelled",
            Code::Network => "network",
            Code::Busy => "busy",
            Code::Short => "short",
            Code::Untrusted => "untrusted",
            Code::Login => "login",
            Code::Protocol => "protocol",
            Code::Local => "local",
        }
    }

    /// Whether trying again may help.
    pub fn is_retryable(self) -> bool {
        matches!(self, Code::Network | Code::Busy | Code::Short)
    }

    /// Whether it is the host that fails, rather than one file.
    pub fn is_of_host(self) -> bool {
        matches!(self, Code::Network | Code::Busy | Code::Untrusted | Code::Login)
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// One file, or a request about it, failed.
    #[error("{target}: {reason}")]
    File {
        /// Which kind of failure.
        code: Code,
        /// The path or host.
        target: String,
        /// What happened, without secrets.
        reason: String,
        /// When the server said how long to wait: that, in milliseconds.
        wait_ms: Option<u64>,
    },
    /// A pattern that is none.
    #[error("the pattern `{pattern}` is not usable: {reason}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A job that cannot be done.
    #[error("the job is not usable: {0}")]
    Job(String),
    /// Another run works on the same source.
    #[error("another run works on {source_address}; wait for it, or cancel it")]
    Running {
        /// The source.
        source_address: String,
    },
    /// There is nothing to go on with.
    #[error("there is no backlog of this job; `kura batch scan` makes one")]
    NoBacklog,
    /// A backlog that ends before its end.
    #[error("the backlog is cut short: {0}; scan again")]
    BacklogTruncated(&'static str),
    /// A backlog that is not what was written.
    #[error("the backlog cannot be used: {0}; scan again")]
    BacklogDamaged(String),
    /// The memory of what was processed cannot be used.
    #[error("the memory of what was processed cannot be used: {0}")]
    Memory(String),
    /// The journal cannot be used.
    #[error("the journal of this job cannot be used: {0}")]
    Journal(String),
    /// The workspace refused.
    #[error(transparent)]
    Workspace(#[from] crate::workspace::WorkspaceError),
    /// The local disk refused.
    #[error("{doing} failed: {source}")]
    Disk {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
}

impl BatchError {
    /// A failure of one file or request.
    pub fn file(code: Code, target: impl Into<String>, reason: impl Into<String>) -> Self {
        BatchError::File { code, target: target.into(), reason: reason.into(), wait_ms: None }
    }

    /// What the system said of a path.
    pub fn of_io(target: impl Into<String>, error: &io::Error) -> Self {
        let code = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::Vanished,
            io::ErrorKind::IsADirectory => Code::NotAFile,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::Denied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::Full,
            io::ErrorKind::InvalidFilename => Code::BadName,
            kind if is_of_network(kind) => Code::Network,
            _ => Code::Local,
        };
        BatchError::file(code, target, error.to_string())
    }

    /// Adds what was being done to an error of the local disk.
    pub fn disk(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| BatchError::Disk { doing, source }
    }

    /// Which kind of failure.
    pub fn code(&self) -> Code {
        match self {
            BatchError::File { code, .. } => *code,
            BatchError::Disk { source, .. } if source.kind() == io::ErrorKind::StorageFull => Code::Full,
            _ => Code::Local,
        }
    }

    /// How long the server asked to be left alone, in milliseconds.
    pub fn wait_ms(&self) -> Option<u64> {
        match self {
            BatchError::File { wait_ms, .. } => *wait_ms,
            _ => None,
        }
    }

    /// Cancelled.
    pub fn cancelled() -> Self {
        BatchError::file(Code::Cancelled, "the batch", "cancelled")
    }
}

fn is_of_network(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::TimedOut
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::NotConnected
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
