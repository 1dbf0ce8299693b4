//! A file as the body of an answer, read as fast as it is taken.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use futures_core::Stream;
use tokio::sync::mpsc::{Receiver, channel};

use crate::cli::view::{Content, READ_LEN};

/// Parts that wait to be sent.
const PARTS_MAX: usize = 2;

struct Parts(Receiver<Result<Vec<u8>, std::io::Error>>);

impl Stream for Parts {
    type Item = Result<Vec<u8>, std::io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, waiting: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(waiting)
    }
}

/// The first `len` bytes of a file. A failure cuts the answer, so that nobody takes it for whole.
pub fn body(content: Content, len: u64) -> Body {
    let (send, receive) = channel(PARTS_MAX);
    tokio::task::spawn_blocking(move || {
        let mut offset = 0;
        while offset < len {
            let wanted = usize::try_from(len - offset).unwrap_or(READ_LEN);
            let part = match content.read_at(offset, wanted) {
                Ok(part) if part.is_empty() => Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)),
                Ok(part) => Ok(part),
                Err(failure) => Err(std::io::Error::other(failure.message)),
            };
            let is_last = part.is_err();
            offset += part.as_ref().map_or(0, |part| part.len() as u64);
            // A reader that went away wants no more.
            if send.blocking_send(part).is_err() || is_last {
                return;
            }
        }
    });
    Body::from_stream(Parts(receive))
}
