//! How far a request has come that comes in parts.

use super::envelope::is_json;
use super::words;

/// What was seen of a request; of an object, each byte once.
#[derive(Default)]
pub struct Extent {
    /// Braces that are open.
    depth: usize,
    in_text: bool,
    is_escaped: bool,
    has_closed: bool,
}

impl Extent {
    /// Whether the request is whole with its newest `part`, or cannot become so: an object with its last brace, or a
    /// line that ends in a newline outside of quotes.
    pub fn add(&mut self, part: &[u8], whole: &[u8]) -> bool {
        if !is_json(whole) {
            return whole.ends_with(b"\n") && !words::is_open(whole);
        }
        part.iter().for_each(|byte| self.see(*byte));
        self.has_closed
    }

    fn see(&mut self, byte: u8) {
        match (self.in_text, byte) {
            (true, _) if self.is_escaped => self.is_escaped = false,
            (true, b'\\') => self.is_escaped = true,
            (_, b'"') => self.in_text = !self.in_text,
            (false, b'{') => self.depth += 1,
            (false, b'}') => {
                self.depth = self.depth.saturating_sub(1);
                self.has_closed |= self.depth == 0;
            }
            _ => {}
        }
    }
}

/// Whether a request is whole, or cannot become so.
pub fn is_complete(bytes: &[u8]) -> bool {
    Extent::default().add(bytes, bytes)
}

/// Whether what was written can become a request no more, whatever follows.
pub fn is_hopeless(bytes: &[u8]) -> bool {
    is_json(bytes) && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_err_and(|error| !error.is_eof())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_ends_with_its_last_brace_whatever_stands_in_texts_or_after_it() {
        for whole in ["{}", " {\"a\": {\"b\": 1}}\n", r#"{"a": "\"}{"}"#, "{} x", "{\"a\":1}{", "{]}"] {
            assert!(is_complete(whole.as_bytes()), "{whole}");
            let mut extent = Extent::default();
            let parts: Vec<bool> = (1..=whole.len())
                .map(|end| extent.add(&whole.as_bytes()[end - 1..end], &whole.as_bytes()[..end]))
                .collect();
            assert!(parts[parts.len() - 1] && !parts[0], "{whole}");
        }
        for begun in ["{", "{\"a\": {}", r#"{"a": "}"#, r#"{"a\"}"#, "{\n"] {
            assert!(!is_complete(begun.as_bytes()), "{begun}");
        }
    }

    #[test]
    fn a_line_ends_with_a_newline_outside_of_quotes() {
        assert!(is_complete(b"a 'b\n'\n") && is_complete(b"\n"));
        assert!(!is_complete(b"a 'b\n") && !is_complete(b"a") && !is_complete(b""));
    }

    #[test]
    fn what_cannot_become_an_object_is_known_before_its_end() {
        assert!(is_hopeless(b"{\"op\" status") && is_hopeless(b"{} x"));
        assert!(!is_hopeless(b"{\"op\": \"sta") && !is_hopeless(b"{}") && !is_hopeless(b"a line"));
    }
}
