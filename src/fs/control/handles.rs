//! Open control files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zeroize::Zeroize;

use crate::control::{Answer, Exit, REQUEST_LEN_MAX, is_complete};
use crate::fs::access::AccessReader;
use crate::fs::{FsError, Handle, Result};
use crate::version::entry::Ino;

/// What a handle holds.
pub(super) enum Open {
    /// What the file said when it was opened.
    Text(Vec<u8>),
    /// A file that takes requests.
    Talk(Talk),
    /// The log of requests.
    Log(AccessReader),
    /// A file to which anything may be written, once; the bytes say nothing.
    Button(uuid::Uuid),
}

/// A conversation with a file that takes requests.
pub(super) struct Talk {
    /// The command of the file; `None` where each request names its own, and its failure is an answer.
    pub(super) command: Option<&'static str>,
    /// The folder that paths are from.
    pub(super) folder: Ino,
    /// The beginning of a request.
    request: Vec<u8>,
    /// The answer to the last one.
    reply: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// Whether a request was too long: what follows may be its rest, so nothing more is taken.
    is_broken: bool,
    /// Whether the request before ended with a brace, so that a newline may follow.
    after_json: bool,
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

    pub(super) fn close(&self, handle: Handle) -> Option<Arc<Mutex<Open>>> {
        self.open.lock().remove(&handle.0)
    }

    pub(super) fn find(&self, handle: Handle) -> Result<Arc<Mutex<Open>>> {
        self.open.lock().get(&handle.0).cloned().ok_or(FsError::BadHandle)
    }
}

impl Open {
    /// The next bytes: of a text those at `offset`, of a conversation those not read yet.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let part = |bytes: &[u8], from: usize| {
            let from = from.min(bytes.len());
            bytes[from..from.saturating_add(len).min(bytes.len())].to_vec()
        };
        match self {
            Open::Text(text) => part(text, usize::try_from(offset).unwrap_or(usize::MAX)),
            Open::Talk(talk) => {
                let bytes = part(&talk.reply, talk.read);
                talk.read += bytes.len();
                bytes
            }
            Open::Button(_) | Open::Log(_) => Vec::new(),
        }
    }
}

impl Talk {
    /// A conversation that begins with what `last` says.
    pub(super) fn new(command: Option<&'static str>, folder: Ino, last: Vec<u8>) -> Self {
        Self { command, folder, request: Vec::new(), reply: last, read: 0, is_broken: false, after_json: false }
    }

    /// Takes a request, or a part of one; answers it when it is whole, or cannot become so.
    pub(super) fn write(&mut self, data: &[u8], answer: impl FnOnce(&Self, &[u8]) -> Answer) -> Result<()> {
        self.is_broken |= self.request.len() + data.len() > REQUEST_LEN_MAX;
        if self.is_broken {
            self.request.zeroize();
            return Err(FsError::RequestTooLong);
        }
        self.append(data);
        // A newline may follow the brace, and lines may stand between requests that name their command.
        let is_blank = self.request.trim_ascii().is_empty();
        if is_blank && (self.after_json || self.command.is_none()) {
            self.request.clear();
            return Ok(());
        }
        if is_complete(&self.request) { self.run(answer) } else { Ok(()) }
    }

    /// Where the beginning of a request lay before it grew is wiped: it may hold what is secret.
    fn append(&mut self, data: &[u8]) {
        let len = self.request.len() + data.len();
        if len > self.request.capacity() {
            let mut grown = Vec::with_capacity(len.next_power_of_two());
            grown.extend_from_slice(&self.request);
            self.request.zeroize();
            self.request = grown;
        }
        self.request.extend_from_slice(data);
    }

    /// A descriptor is closed: that ends a line, while JSON may go on through others.
    pub(super) fn close(&mut self, answer: impl FnOnce(&Self, &[u8]) -> Answer) -> Result<()> {
        let is_line = !self.request.trim_ascii().is_empty() && !self.request.trim_ascii_start().starts_with(b"{");
        if is_line { self.run(answer) } else { Ok(()) }
    }

    /// Whether a request was begun and not ended.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.request.trim_ascii().is_empty()
    }

    fn run(&mut self, answer: impl FnOnce(&Self, &[u8]) -> Answer) -> Result<()> {
        let mut request = std::mem::take(&mut self.request);
        self.after_json = request.trim_ascii_start().starts_with(b"{");
        let Answer { exit, bytes, .. } = answer(self, &request);
        request.zeroize();
        (self.reply, self.read) = (bytes, 0);
        match exit {
            Exit::Ok | Exit::Partial => Ok(()),
            _ if self.command.is_none() => Ok(()),
            exit => Err(FsError::Refused(exit)),
        }
    }
}

impl Drop for Talk {
    /// What was begun and never ended may hold what is secret.
    fn drop(&mut self) {
        self.request.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo(_: &Talk, request: &[u8]) -> Answer {
        let exit = if request.starts_with(b"bad") { Exit::Usage } else { Exit::Ok };
        Answer { exit, bytes: [b"<", request, b">"].concat(), is_secret: false }
    }

    fn said(talk: Talk) -> Vec<u8> {
        Open::Talk(talk).read(0, 1000)
    }

    fn talk(command: Option<&'static str>, parts: &[&str]) -> Talk {
        let mut talk = Talk::new(command, Ino::ROOT, Vec::new());
        for part in parts {
            talk.write(part.as_bytes(), echo).unwrap();
        }
        talk
    }

    #[test]
    fn a_request_may_come_in_parts_and_its_reply_is_read_once() {
        assert!(said(talk(None, &["{\"op\": "])).is_empty());
        let mut run = Open::Talk(talk(None, &["{\"op\": ", "\"status\"}\n"]));
        assert_eq!(run.read(0, 5), b"<{\"op");
        assert_eq!(run.read(99, 100), b"\": \"status\"}\n>");
        assert!(run.read(0, 100).is_empty());
        assert_eq!(said(talk(Some("x"), &["-m 'a\n", "b", "' c", "\n"])), b"<-m 'a\nb' c\n>");
    }

    #[test]
    fn a_line_ends_with_a_newline_or_the_close_and_blanks_after_a_brace_are_nothing() {
        assert_eq!(said(talk(Some("x"), &["\n"])), b"<\n>");
        assert_eq!(said(talk(Some("x"), &["{}", "\n", " \n"])), b"<{}>");
        assert!(said(talk(None, &["\n", " "])).is_empty());
        let mut half = talk(Some("x"), &["a b"]);
        assert!(half.is_unfinished());
        half.close(echo).unwrap();
        assert!(!half.is_unfinished());
        half.close(|_, _| unreachable!("it is answered already")).unwrap();
        assert_eq!(said(half), b"<a b>");
        let mut half = talk(Some("x"), &["{\"a\":"]);
        half.close(|_, _| unreachable!("others may write the rest")).unwrap();
        assert!(half.is_unfinished());
    }

    #[test]
    fn what_fails_is_an_error_of_the_write_where_the_file_has_a_command() {
        let mut named = talk(Some("x"), &[]);
        assert!(matches!(named.write(b"bad\n", echo), Err(FsError::Refused(Exit::Usage))));
        assert_eq!(said(named), b"<bad\n>");
        assert_eq!(said(talk(None, &["bad\n"])), b"<bad\n>");
    }

    #[test]
    fn what_is_too_long_is_not_kept() {
        let mut run = talk(None, &["{"]);
        run.write(&[b' '; REQUEST_LEN_MAX - 1], echo).unwrap();
        assert!(matches!(run.write(b" ", echo), Err(FsError::RequestTooLong)));
        assert!(matches!(run.write(b"{}", echo), Err(FsError::RequestTooLong)));
    }

    #[test]
    fn a_text_stays_what_it_was() {
        let handles = Handles::default();
        let handle = handles.open(Open::Text(b"0123456789".to_vec()));
        let open = handles.find(handle).unwrap();
        assert_eq!(open.lock().read(8, 100), b"89");
        assert_eq!(open.lock().read(2, 3), b"234");
        assert!(open.lock().read(u64::MAX, 3).is_empty());
        assert!(handles.close(handle).is_some());
        assert!(matches!(handles.find(handle), Err(FsError::BadHandle)));
    }
}
