//! Open control files.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use zeroize::Zeroize;

use crate::control::{Answer, Exit, Extent, REQUEST_LEN_MAX, is_hopeless};
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
    /// The process that opened the file, where that is known.
    opener: Option<u32>,
    /// The beginning of a request.
    request: Vec<u8>,
    /// How far that has come.
    extent: Extent,
    /// The answer to the last one; none while another is begun.
    reply: Vec<u8>,
    /// The offset at which the answer begins: that of its first read.
    begins: Option<u64>,
    /// Whether a request was too long: what follows may be its rest, so nothing more is taken.
    is_broken: bool,
    /// Whether the request before ended with a brace, so that a newline may follow.
    after_json: bool,
}

/// A conversation that was closed with a line that has no end, which is to be run where waiting is fine.
pub struct Unfinished(pub(super) Arc<Mutex<Open>>);

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
    /// The bytes at `offset`; those of a conversation are counted from where its answer begins.
    pub(super) fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let part = |bytes: &[u8], from: u64| {
            let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
            bytes[from..from.saturating_add(len).min(bytes.len())].to_vec()
        };
        match self {
            Open::Text(text) => part(text, offset),
            Open::Talk(talk) => {
                let begins = talk.beginning(offset);
                part(&talk.reply, offset - begins)
            }
            Open::Button(_) | Open::Log(_) => Vec::new(),
        }
    }
}

impl Talk {
    /// A conversation of a process that begins with what `last` says.
    pub(super) fn new(command: Option<&'static str>, folder: Ino, opener: Option<u32>, last: Vec<u8>) -> Self {
        Self {
            command,
            folder,
            opener,
            request: Vec::new(),
            extent: Extent::default(),
            reply: last,
            begins: None,
            is_broken: false,
            after_json: false,
        }
    }

    /// Where the answer begins for who reads at `offset`. What is written moves the position in the file, so the first
    /// read says where; a read before that begins anew.
    fn beginning(&mut self, offset: u64) -> u64 {
        let begins = self.begins.filter(|begins| *begins <= offset).unwrap_or(offset);
        self.begins = Some(begins);
        begins
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
        if self.extent.add(data, &self.request) {
            return self.run(answer);
        }
        if !is_blank {
            // Nobody takes the answer to another request for that to this one.
            (self.reply, self.begins) = (Vec::new(), None);
        }
        Ok(())
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

    /// The last descriptor that a process has is closed. When that process opened the file, this ends a line; any other
    /// may be a child that inherited the descriptor, and others go on writing.
    pub(super) fn close(&mut self, process: Option<u32>, answer: impl FnOnce(&Self, &[u8]) -> Answer) -> Result<()> {
        let is_opener = process.is_some() && process == self.opener;
        if is_opener && self.is_at_end() { self.run(answer) } else { Ok(()) }
    }

    /// The last descriptor is closed, which ends a line in any case.
    pub(super) fn end(&mut self, answer: impl FnOnce(&Self, &[u8]) -> Answer) -> Result<()> {
        if self.is_at_end() { self.run(answer) } else { Ok(()) }
    }

    /// Whether a request was begun and not ended.
    pub(super) fn is_unfinished(&self) -> bool {
        !self.request.trim_ascii().is_empty()
    }

    /// Whether what was written is asked when nothing follows: a line, or what fails whatever follows. Other JSON may
    /// go on through other descriptors.
    pub(super) fn is_at_end(&self) -> bool {
        let is_json = self.request.trim_ascii_start().starts_with(b"{");
        self.is_unfinished() && (!is_json || is_hopeless(&self.request))
    }

    fn run(&mut self, answer: impl FnOnce(&Self, &[u8]) -> Answer) -> Result<()> {
        let mut request = std::mem::take(&mut self.request);
        self.extent = Extent::default();
        self.after_json = request.trim_ascii_start().starts_with(b"{");
        let Answer { exit, bytes, .. } = answer(self, &request);
        request.zeroize();
        (self.reply, self.begins) = (bytes, None);
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

    const OPENER: u32 = 7;

    fn echo(_: &Talk, request: &[u8]) -> Answer {
        let exit = if request.starts_with(b"bad") { Exit::Usage } else { Exit::Ok };
        Answer { exit, bytes: [b"<", request, b">"].concat(), is_secret: false }
    }

    fn said(talk: Talk) -> Vec<u8> {
        Open::Talk(talk).read(0, 1000)
    }

    fn talk(command: Option<&'static str>, parts: &[&str]) -> Talk {
        let mut talk = Talk::new(command, Ino::ROOT, Some(OPENER), b"last".to_vec());
        for part in parts {
            talk.write(part.as_bytes(), echo).unwrap();
        }
        talk
    }

    #[test]
    fn a_request_may_come_in_parts_and_until_it_is_whole_nothing_is_answered() {
        assert_eq!(said(talk(None, &[])), b"last");
        assert!(said(talk(None, &["{\"op\": "])).is_empty());
        let mut run = Open::Talk(talk(None, &["{\"op\": ", "\"status\"}\n"]));
        assert_eq!(run.read(17, 5), b"<{\"op");
        assert_eq!(run.read(22, 100), b"\": \"status\"}\n>");
        assert!(run.read(37, 100).is_empty());
        assert_eq!(run.read(22, 4), b"\": \"", "also again");
        assert_eq!(run.read(0, 5), b"<{\"op", "from its beginning");
        assert_eq!(run.read(5, 3), b"\": ");
        assert_eq!(said(talk(Some("x"), &["-m 'a\n", "b", "' c", "\n"])), b"<-m 'a\nb' c\n>");
    }

    #[test]
    fn a_line_ends_with_a_newline_or_the_close_and_blanks_after_a_brace_are_nothing() {
        assert_eq!(said(talk(Some("x"), &["\n"])), b"<\n>");
        assert_eq!(said(talk(Some("x"), &["{}", "\n", " \n"])), b"<{}>");
        assert_eq!(said(talk(None, &["\n", " "])), b"last");
        let mut half = talk(Some("x"), &["a b"]);
        assert!(half.is_unfinished());
        for other in [None, Some(OPENER + 1)] {
            half.close(other, |_, _| unreachable!("a child may have inherited the descriptor")).unwrap();
        }
        half.close(Some(OPENER), echo).unwrap();
        assert!(!half.is_unfinished());
        half.close(Some(OPENER), |_, _| unreachable!("it is answered already")).unwrap();
        half.end(|_, _| unreachable!("it is answered already")).unwrap();
        assert_eq!(said(half), b"<a b>");
        let mut half = talk(Some("x"), &["{\"a\":"]);
        half.close(Some(OPENER), |_, _| unreachable!("others may write the rest")).unwrap();
        half.end(|_, _| unreachable!("it is not whole")).unwrap();
        assert!(half.is_unfinished());
        let mut half = talk(Some("x"), &["{\"a\" b"]);
        half.close(Some(OPENER), echo).unwrap();
        assert_eq!(said(half), b"<{\"a\" b>", "nothing that follows makes it an object");
        let mut left = talk(Some("x"), &["a b"]);
        left.end(echo).unwrap();
        assert_eq!(said(left), b"<a b>", "the last close ends a line whoever does it");
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
