//! Patterns for paths, as minimatch has them.
//!
//! | pattern | matches |
//! |---|---|
//! | `*` | any bytes but `/`, none included |
//! | `?` | one character but `/` (a byte that is no UTF-8 counts as one) |
//! | `[a-z]` `[!a-z]` `[^a-z]` | one character of the set, or not of it; never `/`; also `[:alpha:]` etc. |
//! | `**` as a whole segment | any number of segments, none included |
//! | `{a,b{c,d}}` `{1..3}` | one of the alternatives; a brace without `,` or `..` stands for itself |
//! | `?(a\|b)` `*(a\|b)` `+(a\|b)` `@(a\|b)` | none or one, any number, one or more, exactly one |
//! | `\x` | `x` itself |
//! | `!pattern` (at the start) | what the rest does not match |
//!
//! A pattern is matched against the whole path from the root (`*.csv` means files at the root, `**/*.csv` those
//! everywhere; a `/` at the start changes nothing). A name that begins with a dot is matched only by a pattern that has
//! the dot there, unless `dot` is set. Cases differ. `!(…)` inside of a pattern is refused.
//!
//! A pattern becomes a machine without backtracking, so no pattern takes more time than its length times the path's.

use super::{BatchError, Result};

/// Longest pattern, in bytes, and most states of one.
const PATTERN_LEN_MAX: usize = 4096;
const STATES_MAX: usize = 4096;
/// Most patterns that the braces of one stand for, and most that are made on the way to them.
const BRACES_MAX: usize = 256;
const EXPANDED_MAX: usize = 4096;

/// What compiling makes, or what is wrong with the pattern.
type Compiled<T> = std::result::Result<T, &'static str>;
/// Where a part of the pattern begins and ends.
type Range = (usize, usize);

/// What a state of the machine takes.
#[derive(Clone, Debug)]
enum Take {
    /// This character, and on to the next state.
    One(char),
    /// A character of a set.
    Set { negated: bool, items: Vec<(char, char)> },
    /// Any character but `/`.
    Any,
    /// Any number of characters but `/`: stays here.
    Star,
    /// Whole segments with the `/` after each: `**/`.
    Segments,
    /// Everything there is, segments too: `**` at the end.
    Rest,
    /// Goes on at all of these without taking anything.
    Split(Vec<usize>),
    /// The path has to be over here.
    End,
}

#[derive(Clone, Debug)]
struct Machine {
    states: Vec<Take>,
    start: usize,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub struct Glob {
    machines: Vec<Machine>,
    negated: bool,
    dot: bool,
}

impl Glob {
    /// Compiles a pattern; `dot` lets wildcards match a dot at the start of a name.
    pub fn new(pattern: &str, dot: bool) -> Result<Self> {
        let fail = |reason| BatchError::Pattern { pattern: pattern.to_owned(), reason };
        if pattern.len() > PATTERN_LEN_MAX {
            return Err(fail("it is too long"));
        }
        let bangs = pattern.bytes().take_while(|byte| *byte == b'!').count();
        let bangs = if pattern[bangs..].starts_with('(') && bangs > 0 { bangs - 1 } else { bangs };
        let text = &pattern[bangs..];
        if text.is_empty() {
            return Err(fail("it is empty"));
        }
        let text = text.strip_prefix('/').unwrap_or(text);
        let (mut alternatives, mut left) = (Vec::new(), EXPANDED_MAX);
        expand(text, &mut alternatives, &mut left).map_err(fail)?;
        let compile = |text: &String| {
            let chars: Vec<char> = text.chars().collect();
            let mut compiler = Compiler { chars: &chars, states: vec![Take::End], depth: 0 };
            let start = compiler.sequence(0, chars.len(), 0, true)?;
            Ok(Machine { states: compiler.states, start })
        };
        let machines = alternatives.iter().map(compile).collect::<std::result::Result<_, _>>().map_err(fail)?;
        Ok(Self { machines, negated: bangs % 2 == 1, dot })
    }

    /// Whether the path (names joined by `/`) is matched.
    pub fn matches(&self, path: &[u8]) -> bool {
        let chars = characters(path);
        let is_end = |take: &Take| matches!(take, Take::End | Take::Rest);
        self.machines.iter().any(|machine| machine.run(&chars, self.dot, is_end)) != self.negated
    }

    /// Whether everything below the directory is surely matched.
    pub fn matches_all_below(&self, dir: &[u8]) -> bool {
        let mut chars = characters(dir);
        chars.push('/');
        let is_rest = |take: &Take| matches!(take, Take::Rest);
        self.dot && !self.negated && self.machines.iter().any(|machine| machine.run(&chars, true, is_rest))
    }
}

/// Characters of a path; bytes that are no UTF-8 become characters of a private plane that no pattern names.
fn characters(path: &[u8]) -> Vec<char> {
    let mut chars = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        chars.extend(chunk.valid().chars());
        chars.extend(chunk.invalid().iter().map(|byte| char::from_u32(0x10_FF00 + u32::from(*byte)).unwrap_or('\0')));
    }
    chars
}

/// Replaces braces by all that they stand for; `left` is how many patterns may still be made.
fn expand(text: &str, out: &mut Vec<String>, left: &mut usize) -> Compiled<()> {
    if out.len() >= BRACES_MAX {
        return Err("its braces stand for too many patterns");
    }
    *left = left.checked_sub(1).ok_or("it has too many braces")?;
    let Some((open, close, parts)) = first_braces(text) else {
        out.push(text.to_owned());
        return Ok(());
    };
    for part in parts {
        expand(&format!("{}{part}{}", &text[..open], &text[close + 1..]), out, left)?;
    }
    Ok(())
}

/// A brace that is open while a pattern is read.
struct Brace {
    open: usize,
    commas: Vec<usize>,
    holds_braces: bool,
}

/// The first braces that hold alternatives: where they open and close, and what they stand for. Reads the pattern once,
/// however many braces stay open.
fn first_braces(text: &str) -> Option<(usize, usize, Vec<String>)> {
    let bytes = text.as_bytes();
    let (mut at, mut pending, mut first) = (0, Vec::<Brace>::new(), None::<(Brace, usize)>);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'{' => pending.push(Brace { open: at, commas: Vec::new(), holds_braces: false }),
            b',' => {
                if let Some(brace) = pending.last_mut() {
                    brace.commas.push(at);
                }
            }
            b'}' => {
                if let Some(brace) = pending.pop() {
                    if let Some(outer) = pending.last_mut() {
                        outer.holds_braces = true;
                    }
                    let is_first = first.as_ref().is_none_or(|(first, _)| brace.open < first.open);
                    if is_first && brace.stands_for_others(text, at) {
                        first = Some((brace, at));
                    }
                }
            }
            _ => {}
        }
        at += 1;
    }
    first.and_then(|(brace, close)| Some((brace.open, close, brace.parts(text, close)?)))
}

impl Brace {
    fn stands_for_others(&self, text: &str, close: usize) -> bool {
        !self.commas.is_empty() || !self.holds_braces && range(&text[self.open + 1..close]).is_some()
    }

    /// What it stands for when it closes at `close`.
    fn parts(&self, text: &str, close: usize) -> Option<Vec<String>> {
        let begin = self.open + 1;
        if self.commas.is_empty() {
            return range(&text[begin..close]);
        }
        let begins = std::iter::once(begin).chain(self.commas.iter().map(|comma| comma + 1));
        let ends = self.commas.iter().copied().chain([close]);
        Some(begins.zip(ends).map(|(begin, end)| text[begin..end].to_owned()).collect())
    }
}

/// `1..3`, up or down.
fn range(text: &str) -> Option<Vec<String>> {
    let (from, to) = text.split_once("..")?;
    let (from, to): (i64, i64) = (from.parse().ok()?, to.parse().ok()?);
    let limit = i64::try_from(BRACES_MAX).ok()?;
    if from.abs_diff(to) >= limit.unsigned_abs() {
        return None;
    }
    let (low, high) = (from.min(to), from.max(to));
    let mut numbers: Vec<String> = (low..=high).map(|number| number.to_string()).collect();
    if from > to {
        numbers.reverse();
    }
    Some(numbers)
}

/// Deepest nesting of groups.
const DEPTH_MAX: usize = 16;

struct Compiler<'a> {
    chars: &'a [char],
    states: Vec<Take>,
    depth: usize,
}

impl Compiler<'_> {
    fn add(&mut self, take: Take) -> Compiled<usize> {
        if self.states.len() >= STATES_MAX {
            return Err("it is too large");
        }
        self.states.push(take);
        Ok(self.states.len() - 1)
    }

    /// Compiles `from..to`, leading on to the state `next`. A state that takes something stands behind a `Split` that
    /// leads on from it.
    fn sequence(&mut self, from: usize, to: usize, next: usize, whole: bool) -> Compiled<usize> {
        let mut pieces = Vec::new();
        let mut at = from;
        while at < to {
            let (piece, after) = self.piece(at, to, whole)?;
            pieces.push(piece);
            at = after;
        }
        let mut next = next;
        for piece in pieces.into_iter().rev() {
            next = self.emit(piece, next)?;
        }
        Ok(next)
    }

    fn emit(&mut self, piece: Piece, next: usize) -> Compiled<usize> {
        match piece {
            Piece::Take(take) => {
                self.add(Take::Split(vec![next]))?;
                self.add(take)
            }
            Piece::Group { kind, parts } => self.group(kind, &parts, next),
        }
    }

    fn group(&mut self, kind: char, parts: &[Range], next: usize) -> Compiled<usize> {
        if self.depth >= DEPTH_MAX {
            return Err("its groups are nested too deeply");
        }
        self.depth += 1;
        let is_loop = matches!(kind, '*' | '+');
        let after = self.add(Take::Split(vec![next]))?;
        let mut starts = Vec::new();
        for (from, to) in parts {
            starts.push(self.sequence(*from, *to, after, false)?);
        }
        self.depth -= 1;
        let begin = self.add(Take::Split(starts.clone()))?;
        if is_loop {
            self.states[after] = Take::Split(vec![next, begin]);
        }
        if matches!(kind, '*' | '?') {
            return self.add(Take::Split(vec![begin, next]));
        }
        Ok(begin)
    }

    /// The piece of the pattern at `at`, and where the next one begins.
    fn piece(&self, at: usize, to: usize, whole: bool) -> Compiled<(Piece, usize)> {
        let c = self.chars[at];
        let following = (at + 1 < to).then(|| self.chars[at + 1]);
        if following == Some('(') && matches!(c, '?' | '*' | '+' | '@' | '!') {
            if c == '!' {
                return Err("`!(…)` is not supported; exclude with a pattern of its own");
            }
            let (parts, after) = self.parts(at + 2, to)?;
            return Ok((Piece::Group { kind: c, parts }, after));
        }
        let take = |take, after| Ok((Piece::Take(take), after));
        match c {
            '*' => {
                let stars = self.chars[at..to].iter().take_while(|c| **c == '*').count();
                let end = at + stars;
                let starts_segment = whole && (at == 0 || self.chars[at - 1] == '/');
                if stars == 2 && starts_segment && end == to {
                    return take(Take::Rest, end);
                }
                if stars == 2 && starts_segment && self.chars.get(end) == Some(&'/') {
                    return take(Take::Segments, end + 1);
                }
                take(Take::Star, end)
            }
            '?' => take(Take::Any, at + 1),
            '[' => match self.set(at, to) {
                Some((set, after)) => take(set, after),
                None => take(Take::One('['), at + 1),
            },
            '\\' => match following {
                Some(c) => take(Take::One(c), at + 2),
                None => Err("it ends in a backslash"),
            },
            c => take(Take::One(c), at + 1),
        }
    }

    /// The alternatives of a group that begins at `at`.
    fn parts(&self, at: usize, to: usize) -> Compiled<(Vec<Range>, usize)> {
        let (mut depth, mut begin, mut i, mut parts) = (1, at, at, Vec::new());
        while i < to {
            match self.chars[i] {
                '\\' => i += 1,
                '/' => return Err("a group holds a `/`"),
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    if depth == 0 {
                        parts.push((begin, i));
                        return Ok((parts, i + 1));
                    }
                }
                '|' if depth == 1 => {
                    parts.push((begin, i));
                    begin = i + 1;
                }
                _ => {}
            }
            i += 1;
        }
        Err("a group is not closed")
    }

    fn set(&self, at: usize, to: usize) -> Option<(Take, usize)> {
        let mut i = at + 1;
        let negated = matches!(self.chars.get(i), Some('!' | '^'));
        i += usize::from(negated);
        let (first, mut items) = (i, Vec::new());
        while i < to {
            let c = self.chars[i];
            if c == ']' && i > first {
                return Some((Take::Set { negated, items }, i + 1));
            }
            if c == '['
                && let Some((class, after)) = self.class(i, to)
            {
                items.extend_from_slice(class);
                i = after;
                continue;
            }
            let (low, after) = self.escaped(i, to)?;
            i = after;
            let is_range = self.chars.get(i) == Some(&'-') && self.chars.get(i + 1).is_some_and(|c| *c != ']');
            let high = if is_range && i + 1 < to {
                let (high, after) = self.escaped(i + 1, to)?;
                i = after;
                high
            } else {
                low
            };
            items.push((low, high));
        }
        None
    }

    fn escaped(&self, at: usize, to: usize) -> Option<(char, usize)> {
        match self.chars[at] {
            '\\' if at + 1 < to => Some((self.chars[at + 1], at + 2)),
            '/' => None,
            c => Some((c, at + 1)),
        }
    }

    fn class(&self, at: usize, to: usize) -> Option<(&'static [(char, char)], usize)> {
        let text: String = self.chars[at..to.min(at + 12)].iter().collect();
        let name = text.strip_prefix("[:")?.split_once(":]")?.0.to_owned();
        let class: &[(char, char)] = match name.as_str() {
            "alpha" => &[('a', 'z'), ('A', 'Z')],
            "digit" => &[('0', '9')],
            "alnum" => &[('a', 'z'), ('A', 'Z'), ('0', '9')],
            "lower" => &[('a', 'z')],
            "upper" => &[('A', 'Z')],
            "space" => &[(' ', ' '), ('\t', '\r')],
            "xdigit" => &[('0', '9'), ('a', 'f'), ('A', 'F')],
            "punct" => &[('!', '.'), (':', '@'), ('[', '`'), ('{', '~')],
            _ => return None,
        };
        Some((class, at + name.len() + 4))
    }
}

enum Piece {
    Take(Take),
    Group { kind: char, parts: Vec<Range> },
}

impl Machine {
    /// Whether a state that is an end is active after the last character.
    fn run(&self, chars: &[char], dot: bool, is_end: impl Fn(&Take) -> bool) -> bool {
        let (mut now, mut then) = (Active::new(self.states.len()), Active::new(self.states.len()));
        self.enter(self.start, (chars, 0, dot), &mut now);
        for (at, c) in chars.iter().enumerate() {
            if now.list.is_empty() {
                return false;
            }
            let starts_name = at == 0 || chars[at - 1] == '/';
            let hidden = starts_name && *c == '.' && !dot;
            let is_navigation = starts_name
                && *c == '.'
                && matches!(chars[at..].iter().position(|c| *c == '/').unwrap_or(chars.len() - at), 1 | 2)
                && chars[at..].iter().take_while(|c| **c != '/').all(|c| *c == '.');
            let hidden = hidden || is_navigation;
            for state in &now.list {
                // A state that takes something is preceded by the way on from it.
                let on = *state;
                match &self.states[on] {
                    Take::One(wanted) if wanted == c => self.enter(on - 1, (chars, at + 1, dot), &mut then),
                    Take::Set { negated, items }
                        if *c != '/'
                            && !hidden
                            && items.iter().any(|(low, high)| low <= c && c <= high) != *negated =>
                    {
                        self.enter(on - 1, (chars, at + 1, dot), &mut then);
                    }
                    Take::Any if *c != '/' && !hidden => self.enter(on - 1, (chars, at + 1, dot), &mut then),
                    Take::Star if *c != '/' && !hidden => self.enter(on, (chars, at + 1, dot), &mut then),
                    Take::Segments if !hidden => {
                        // Stays within the segment; after its `/` the pattern may go on.
                        then.add(on);
                        if *c == '/' {
                            self.enter(on - 1, (chars, at + 1, dot), &mut then);
                        }
                    }
                    Take::Rest if !hidden => then.add(on),
                    _ => {}
                }
            }
            std::mem::swap(&mut now, &mut then);
            then.clear();
        }
        now.list.iter().any(|state| is_end(&self.states[*state]))
    }

    /// Makes a state active, with all that it leads to without taking anything.
    fn enter(&self, state: usize, (chars, at, dot): (&[char], usize, bool), active: &mut Active) {
        let starts_name = at == 0 || chars[at - 1] == '/';
        let is_hidden = starts_name && chars.get(at) == Some(&'.') && !dot;
        let mut pending = vec![state];
        while let Some(state) = pending.pop() {
            if active.seen[state] {
                continue;
            }
            match &self.states[state] {
                Take::Split(to) => {
                    active.seen[state] = true;
                    active.splits.push(state);
                    pending.extend(to);
                }
                Take::Star => {
                    active.add(state);
                    // A star at the start of a hidden name takes nothing, not even nothing.
                    if !is_hidden {
                        pending.push(state - 1);
                    }
                }
                // Begins where a name begins, or it would take the rest of one.
                Take::Segments if starts_name => {
                    active.add(state);
                    pending.push(state - 1);
                }
                Take::Segments => {}
                _ => active.add(state),
            }
        }
    }
}

struct Active {
    list: Vec<usize>,
    splits: Vec<usize>,
    seen: Vec<bool>,
}

impl Active {
    fn new(states: usize) -> Self {
        Self { list: Vec::new(), splits: Vec::new(), seen: vec![false; states] }
    }

    fn add(&mut self, state: usize) {
        if !self.seen[state] {
            self.seen[state] = true;
            self.list.push(state);
        }
    }

    fn clear(&mut self) {
        for state in self.list.drain(..).chain(self.splits.drain(..)) {
            self.seen[state] = false;
        }
    }
}
