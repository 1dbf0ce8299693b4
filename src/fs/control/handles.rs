//! Open control files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::fs::{FsError, Handle, Result};

/// Longest request.
const REQUEST_BYTES_MAX: usize = 1024 * 1024;

/// What a handle holds.
pub(super) enum Open {
    /// What the file said when it was opened.
    Text(Vec<u8>),
    /// A conversation with `ctl/run`.
    Run {
        /// The beginning of a request.
        request: Vec<u8>,
        /// The answer to the last one.
        reply: Vec<u8>,
        /// How much of it was read.
        read: usize,
        /// Whether a request was too long: what follows may be its rest, so nothing more is taken.
        is_broken: bool,
    },
}

#[derive(Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<u64, Arc<Mutex<Open>>>>,
    last: AtomicU64,
}

impl Handles {
    pub(super) fn open(&self, open: Open) -> Handle {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        self.open.lock().insert(number, Arc::new(Mutex::new(open)));
        Handle(number)
    }

    pub(super) fn close(&self, handle: Handle) {
        self.open.lock().remove(&handle.0);
    }

    pub(super) fn find(&self, handle: Handle) -> Result<Arc<Mutex<Open>>> {
        self.open.lock().get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }
}

impl Open {
    pub(super) fn conversation() -> Self {
        Open::Run { request: Vec::new(), reply: Vec::new(), read: 0, is_broken: false }
    }

    /// The next bytes: of a text those at `offset`, of a conversation those not read yet.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let part = |bytes: &[u8], from: usize| {
            let from = from.min(bytes.len());
            bytes[from..from.saturating_add(len).min(bytes.len())].to_vec()
        };
        match self {
            Open::Text(text) => part(text, usize::try_from(offset).unwrap_or(usize::MAX)),
            Open::Run { reply, read, .. } => {
                let bytes = part(reply, *read);
                *read += bytes.len();
                bytes
            }
        }
    }

    /// Takes a request, or a part of one; answers it when it is whole, or cannot become so.
    pub(super) fn write(&mut self, data: &[u8], answer: impl FnOnce(&[u8]) -> Vec<u8>) -> Result<()> {
        let Open::Run { request, reply, read, is_broken } = self else { return Err(FsError::BadHandle) };
        *is_broken |= request.len() + data.len() > REQUEST_BYTES_MAX;
        if *is_broken {
            request.clear();
            return Err(FsError::RequestTooLong);
        }
        request.extend_from_slice(data);
        let parsed = serde_json::from_slice::<serde::de::IgnoredAny>(request);
        if parsed.is_err_and(|error| error.is_eof()) {
            return Ok(());
        }
        (*reply, *read) = (answer(&std::mem::take(request)), 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(request: &[u8]) -> Vec<u8> {
        [b"<", request, b">"].concat()
    }

    #[test]
    fn a_request_may_come_in_parts_and_its_reply_is_read_once() {
        let mut run = Open::conversation();
        run.write(b"{\"op\": ", echo).unwrap();
        assert!(run.read(0, 100).is_empty());
        run.write(b"\"status\"}\n", echo).unwrap();
        assert_eq!(run.read(0, 5), b"<{\"op");
        assert_eq!(run.read(99, 100), b"\": \"status\"}\n>");
        assert!(run.read(0, 100).is_empty());
        run.write(b"{}", echo).unwrap();
        assert_eq!(run.read(0, 100), b"<{}>");
    }

    #[test]
    fn what_is_no_request_is_answered_and_what_is_too_long_is_not_kept() {
        let mut run = Open::conversation();
        run.write(b"hello", echo).unwrap();
        assert_eq!(run.read(0, 100), b"<hello>");
        run.write(b"\n", echo).unwrap();
        run.write(b"{} {}", echo).unwrap();
        assert_eq!(run.read(0, 100), b"<\n{} {}>");
        run.write(&[b' '; REQUEST_BYTES_MAX], echo).unwrap();
        assert!(matches!(run.write(b" ", echo), Err(FsError::RequestTooLong)));
        assert!(matches!(run.write(b"[]", echo), Err(FsError::RequestTooLong)));
    }

    #[test]
    fn a_text_stays_what_it_was() {
        let handles = Handles::default();
        let handle = handles.open(Open::Text(b"0123456789".to_vec()));
        let open = handles.find(handle).unwrap();
        assert_eq!(open.lock().read(8, 100), b"89");
        assert_eq!(open.lock().read(2, 3), b"234");
        assert!(open.lock().read(u64::MAX, 3).is_empty());
        assert!(matches!(open.lock().write(b"x", echo), Err(FsError::BadHandle)));
        handles.close(handle);
        assert!(matches!(handles.find(handle), Err(FsError::BadHandle)));
    }
}
