//! Editing: level by level, only the runs of pages that change are read and split anew.
//!
//! A *run* begins at a page whose first key starts a page; pages after it that exist only because
//! it got too long belong to it. Where pages begin inside a run depends on nothing outside of it.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::iter::Peekable;
use std::rc::Rc;

use super::page::{Item, Node, build, items_len, parse, parse_node, save, split, starts_page, too_deep, wrong_level};
use super::{Edits, PageIo, TreeRef};
use crate::base::limits::PAGE_LEN_SINGLE;
use crate::blob::ChunkRef;
use crate::version::Result;

impl TreeRef {
    /// The tree after `edits`. Reads and writes the pages on the paths to what changes.
    pub fn edit(&self, io: &dyn PageIo, edits: &Edits) -> Result<TreeRef> {
        if edits.is_empty() {
            return Ok(*self);
        }
        let Some(root) = self.root else { return build(io, 0, apply(Vec::new(), edits)) };
        let old = Old { io, inner: RefCell::default() };
        let top = old.load(&root)?;
        let mut above: Option<Edits> = None;
        for number in 0..top.level {
            let edits = above.as_ref().unwrap_or(edits);
            let level = Level { old: &old, root: (root, &top), number };
            let runs = level.runs(edits)?;
            if level.becomes_single(&runs)? {
                return build(io, number, apply(level.items()?, edits));
            }
            let changed = level.write(runs)?;
            if changed.is_empty() {
                return Ok(*self);
            }
            above = Some(changed);
        }
        build(io, top.level, apply(top.items.clone(), above.as_ref().unwrap_or(edits)))
    }
}

/// A page in memory.
struct Loaded {
    level: u8,
    items: Vec<Item>,
}

/// The tree before the edit.
struct Old<'a> {
    io: &'a dyn PageIo,
    /// Pages above the leaves that were read.
    inner: RefCell<HashMap<ChunkRef, Rc<Loaded>>>,
}

impl Old<'_> {
    fn load(&self, at: &ChunkRef) -> Result<Rc<Loaded>> {
        if let Some(loaded) = self.inner.borrow().get(at) {
            return Ok(loaded.clone());
        }
        let bytes = self.io.load(at)?;
        let page = parse(at, &bytes)?;
        let items = page.items.iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect();
        let loaded = Rc::new(Loaded { level: page.level, items });
        if loaded.level > 0 {
            self.inner.borrow_mut().insert(*at, loaded.clone());
        }
        Ok(loaded)
    }
}

/// A page as the page above names it.
#[derive(Clone)]
struct Place {
    first: Vec<u8>,
    node: Node,
}

impl Place {
    fn of(at: &ChunkRef, item: &Item) -> Result<Self> {
        Ok(Self { first: item.0.clone(), node: parse_node(at, &item.1)? })
    }
}

/// Pages that are split anew.
struct Run {
    before: Vec<Place>,
    /// Sum of the lengths of their items.
    len_before: u64,
    after: Vec<Vec<Item>>,
}

/// One level of the old tree below its root.
struct Level<'a> {
    old: &'a Old<'a>,
    root: (ChunkRef, &'a Loaded),
    number: u8,
}

/// Which page of a level, seen from a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The page whose keys are around it, or the first page.
    At,
    /// The last page that begins before it.
    Before,
    /// The first page that begins after it.
    After,
}

impl Level<'_> {
    /// The page of this level that a key leads to; `None` where the level ends.
    fn find(&self, key: &[u8], which: Which) -> Result<Option<Place>> {
        self.find_below(self.root.1, key, which)
    }

    fn find_below(&self, page: &Loaded, key: &[u8], which: Which) -> Result<Option<Place>> {
        let upto = |inclusive: bool| {
            page.items
                .partition_point(|(first, _)| if inclusive { first.as_slice() <= key } else { first.as_slice() < key })
        };
        // Where the page can be; a page that begins before the key may hold one that begins after it.
        let start = match which {
            Which::At | Which::After => upto(true).saturating_sub(1),
            Which::Before => match upto(false).checked_sub(1) {
                Some(index) => index,
                None => return Ok(None),
            },
        };
        let tries = if which == Which::After { 2 } else { 1 };
        for item in page.items.iter().skip(start).take(tries) {
            let place = Place::of(&self.root.0, item)?;
            if page.level == self.number + 1 {
                if which != Which::After || place.first.as_slice() > key {
                    return Ok(Some(place));
                }
                continue;
            }
            let below = self.old.load(&place.node.page)?;
            if below.level + 1 != page.level {
                return Err(wrong_level(&place.node.page));
            }
            if let Some(found) = self.find_below(&below, key, which)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// All runs that the edits touch, split anew; nothing is saved yet.
    fn runs(&self, edits: &Edits) -> Result<Vec<Run>> {
        let mut runs = Vec::new();
        let mut rest = edits.iter().peekable();
        while let Some((key, _)) = rest.peek() {
            let Some(mut first) = self.find(key, Which::At)? else { return Err(too_deep(&self.root.0)) };
            while !self.begins_run(&first, edits)
                && let Some(previous) = self.find(&first.first, Which::Before)?
            {
                first = previous;
            }
            runs.push(self.run(first, edits, &mut rest)?);
        }
        Ok(runs)
    }

    /// Whether a run begins at a page, and goes on doing so.
    fn begins_run(&self, place: &Place, edits: &Edits) -> bool {
        starts_page(&place.first, self.number) && edits.get(&place.first) != Some(&None)
    }

    /// Takes the edits of a run, and of those after it whose first key goes.
    fn run<'e>(
        &self,
        first: Place,
        edits: &Edits,
        rest: &mut Peekable<impl Iterator<Item = (&'e Vec<u8>, &'e Option<Vec<u8>>)>>,
    ) -> Result<Run> {
        let mut before = vec![first.clone()];
        let mut end = self.find(&first.first, Which::After)?;
        while let Some(next) = end.take_if(|next| !self.begins_run(next, edits)) {
            end = self.find(&next.first, Which::After)?;
            before.push(next);
        }
        let mut part = Edits::new();
        while let Some((key, value)) = rest.next_if(|(key, _)| end.as_ref().is_none_or(|end| **key < end.first)) {
            part.insert(key.clone(), value.clone());
        }
        if part.is_empty() {
            // The keys of pages contradict each other.
            return Err(wrong_level(&first.node.page));
        }
        let items = self.items_of(&before)?;
        Ok(Run { len_before: items_len(&items), before, after: split(apply(items, &part), self.number) })
    }

    fn items_of(&self, places: &[Place]) -> Result<Vec<Item>> {
        let mut items = Vec::new();
        for place in places {
            let page = self.old.load(&place.node.page)?;
            if page.level != self.number {
                return Err(wrong_level(&place.node.page));
            }
            items.extend_from_slice(&page.items);
        }
        Ok(items)
    }

    /// Whether the whole level fits into one page now. It did not before, so nothing has to be
    /// counted unless it got shorter.
    fn becomes_single(&self, runs: &[Run]) -> Result<bool> {
        let before: u64 = runs.iter().map(|run| run.len_before).sum();
        let mut len: u64 = runs.iter().flat_map(|run| &run.after).map(|page| items_len(page)).sum();
        if len >= before || len > PAGE_LEN_SINGLE as u64 {
            return Ok(false);
        }
        let gone: BTreeSet<&[u8]> =
            runs.iter().flat_map(|run| &run.before).map(|place| place.first.as_slice()).collect();
        let mut next = self.find(&[], Which::At)?;
        while let Some(place) = next {
            if !gone.contains(place.first.as_slice()) {
                len = len.saturating_add(match self.number {
                    0 => place.node.len,
                    _ => items_len(&self.items_of(std::slice::from_ref(&place))?),
                });
            }
            if len > PAGE_LEN_SINGLE as u64 {
                return Ok(false);
            }
            next = self.find(&place.first, Which::After)?;
        }
        Ok(true)
    }

    /// All items of the level.
    fn items(&self) -> Result<Vec<Item>> {
        let mut places = Vec::new();
        let mut next = self.find(&[], Which::At)?;
        while let Some(place) = next {
            next = self.find(&place.first, Which::After)?;
            places.push(place);
        }
        self.items_of(&places)
    }

    /// Saves the new pages; returns what that changes on the level above.
    fn write(&self, runs: Vec<Run>) -> Result<Edits> {
        let mut above = Edits::new();
        for run in runs {
            let mut old = HashMap::new();
            for place in run.before {
                above.insert(place.first.clone(), None);
                old.insert(place.first, place.node.page);
            }
            for page in &run.after {
                let (first, value) = save(self.old.io, self.number, page)?;
                let now = parse_node(&self.root.0, &value)?.page;
                if old.get(&first) == Some(&now) {
                    above.remove(&first);
                } else {
                    above.insert(first, Some(value));
                }
            }
        }
        Ok(above)
    }
}

/// The items after `edits`.
fn apply(items: Vec<Item>, edits: &Edits) -> Vec<Item> {
    let mut after = Vec::with_capacity(items.len() + edits.len());
    let mut edits = edits.iter().peekable();
    for (key, value) in items {
        while let Some((new, value)) = edits.next_if(|(edit, _)| **edit < key) {
            after.extend(value.as_ref().map(|value| (new.clone(), value.clone())));
        }
        match edits.next_if(|(edit, _)| **edit == key) {
            Some((_, value)) => after.extend(value.as_ref().map(|value| (key, value.clone()))),
            None => after.push((key, value)),
        }
    }
    after.extend(edits.filter_map(|(key, value)| value.as_ref().map(|value| (key.clone(), value.clone()))));
    after
}
