//! A line cut into words, as a shell would do it without expanding anything.

use super::failure::{Exit, Failure};

/// The words of a line: split at blanks; `'…'`, `"…"` and `\` quote. Two lines are not one.
pub(super) fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    match cut(line.trim_ascii()) {
        Cut { is_open: true, .. } => Err(Failure::new(Exit::Usage, "the line ends inside of quotes, or after `\\`")),
        Cut { has_newline: true, .. } => Err(Failure::new(Exit::Usage, "more than one line was written at once")
            .hint("write a line, and the next one when it is answered; in quotes, a newline is a part of a word")),
        Cut { words, .. } => Ok(words),
    }
}

/// Whether more has to follow before the line can end.
pub(super) fn is_open(line: &[u8]) -> bool {
    cut(line).is_open
}

/// What a line is made of.
struct Cut {
    words: Vec<Vec<u8>>,
    /// Whether a quote is open at the end.
    is_open: bool,
    /// Whether a newline stands outside of quotes.
    has_newline: bool,
}

fn cut(line: &[u8]) -> Cut {
    let mut words = Vec::new();
    let mut has_newline = false;
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    let mut bytes = line.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (Some(open), byte) if byte == open => quote = None,
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None | Some(b'"'), b'\\') => {
                let Some(next) = bytes.next() else { return Cut { words, is_open: true, has_newline } };
                let word = word.get_or_insert_default();
                if quote.is_some() && !matches!(next, b'"' | b'\\' | b'$' | b'`') {
                    word.push(b'\\');
                }
                word.push(next);
            }
            (None, b' ' | b'\t' | b'\r' | b'\n') => {
                has_newline |= byte == b'\n';
                words.extend(word.take());
            }
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    Cut { words, is_open: quote.is_some(), has_newline }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line.as_bytes()).unwrap().into_iter().map(|word| String::from_utf8(word).unwrap()).collect()
    }

    #[test]
    fn words_are_cut_as_a_shell_does() {
        assert_eq!(words("  a  b\tc\n"), ["a", "b", "c"]);
        assert_eq!(
            words(r#"-m 'before the "move"' "it's \"now\" \n" a\ b"#),
            ["-m", "before the \"move\"", "it's \"now\" \\n", "a b"]
        );
        assert_eq!(words("'' a''b $HOME *"), ["", "ab", "$HOME", "*"]);
        assert!(words(" \t ").is_empty());
    }

    #[test]
    fn an_open_quote_is_refused() {
        for line in ["'a", "\"a", "a\\", "\"a\\"] {
            assert!(split(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn two_lines_are_not_taken_for_one() {
        assert_eq!(words("\na 'b\nc' \n\n"), ["a", "b\nc"]);
        for lines in ["a\nb", "a\n\nb\n", "a \r\nb"] {
            assert!(split(lines.as_bytes()).unwrap_err().message.contains("more than one line"), "{lines}");
        }
    }
}
