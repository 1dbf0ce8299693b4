//! Versions newest first, read as they are asked for.
//!
//! The refs are sorted by id, which tells when a version was recorded by its machine's clock; the order of a history is
//! that of generations. So the history is followed from the newest version through the parents, always to the one of
//! the largest generation next. What lies together in the refs is read once, so a listing of some versions reads the
//! pages they are in, however long the history is.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::Result;
use super::refs::{self, Listed, Summary};
use super::tree::{PageIo, TreeRef};
use crate::base::ids::VersionId;
use crate::blob::ChunkRef;

/// Pages that are kept while a history is followed.
const PAGES_MAX: usize = 64;

/// The versions of some refs, newest first (by generation, then id); those that are no ancestors of the newest come
/// last.
pub struct History<'a> {
    refs: TreeRef,
    io: Near<'a>,
    newest: VersionId,
    tags: HashMap<VersionId, Vec<String>>,
    /// Ancestors that are reached, and not given yet.
    waiting: BTreeMap<(u64, VersionId), Known>,
    /// How many versions were given.
    given: u64,
    /// What is left when no ancestor is.
    left: Option<std::vec::IntoIter<Listed>>,
}

/// Where a history can be gone on with.
#[derive(Clone, Debug)]
pub struct Place {
    waiting: Vec<VersionId>,
    given: u64,
}

/// What the refs have of a version.
enum Known {
    Kept(Summary),
    /// It was forgotten; these are its parents.
    Forgotten(Vec<VersionId>),
}

impl<'a> History<'a> {
    /// The history that ends with the version `newest`.
    pub fn new(refs: &TreeRef, io: Box<dyn PageIo + 'a>, newest: VersionId) -> Result<Self> {
        Self::from_place(refs, io, newest, &Place { waiting: vec![newest], given: 0 })
    }

    /// The same, from a place that a history of the same refs was at.
    pub fn from_place(refs: &TreeRef, io: Box<dyn PageIo + 'a>, newest: VersionId, place: &Place) -> Result<Self> {
        let mut tags: HashMap<VersionId, Vec<String>> = HashMap::new();
        for (tag, version) in refs::tags(refs, &*io)? {
            tags.entry(version).or_default().push(tag);
        }
        let io = Near { io, pages: RefCell::default() };
        let (waiting, given) = (BTreeMap::new(), place.given);
        let mut history = Self { refs: *refs, io, newest, tags, waiting, given, left: None };
        place.waiting.iter().try_for_each(|id| history.wait_for(*id, u64::MAX))?;
        Ok(history)
    }

    /// Where it is; `None` when no ancestor is left.
    pub fn place(&self) -> Option<Place> {
        let waiting: Vec<VersionId> = self.waiting.keys().map(|(_, id)| *id).collect();
        (!waiting.is_empty()).then_some(Place { waiting, given: self.given })
    }

    /// Lets an ancestor wait for its turn, unless it is none: it must be older than `child`.
    fn wait_for(&mut self, id: VersionId, child: u64) -> Result<()> {
        let known = match refs::summary(&self.refs, &self.io, id)? {
            Some(summary) => Some((summary.generation, Known::Kept(summary))),
            None => refs::forgotten(&self.refs, &self.io, id)?.map(|it| (it.generation, Known::Forgotten(it.parents))),
        };
        if let Some((generation, known)) = known.filter(|(generation, _)| *generation < child) {
            self.waiting.insert((generation, id), known);
        }
        Ok(())
    }

    fn step(&mut self) -> Result<Option<Listed>> {
        while let Some(((generation, id), known)) = self.waiting.pop_last() {
            let parents = match &known {
                Known::Kept(summary) => &summary.parents,
                Known::Forgotten(parents) => parents,
            };
            for parent in parents {
                self.wait_for(*parent, generation)?;
            }
            if let Known::Kept(summary) = known {
                self.given += 1;
                return Ok(Some(Listed { id, summary, tags: self.tags.get(&id).cloned().unwrap_or_default() }));
            }
        }
        let left = match self.left.take() {
            Some(left) => left,
            None => self.no_ancestors()?.into_iter(),
        };
        Ok(self.left.insert(left).next())
    }

    /// Versions that the newest was not made from. As a rule there is none, which needs no listing to be seen.
    fn no_ancestors(&self) -> Result<Vec<Listed>> {
        if self.given >= refs::count(&self.refs, &self.io)? {
            return Ok(Vec::new());
        }
        let (mut reached, mut next) = (HashSet::from([self.newest]), vec![self.newest]);
        while let Some(id) = next.pop() {
            let parents = match refs::summary(&self.refs, &self.io, id)? {
                Some(summary) => summary.parents,
                None => refs::forgotten(&self.refs, &self.io, id)?.map(|it| it.parents).unwrap_or_default(),
            };
            next.extend(parents.into_iter().filter(|parent| reached.insert(*parent)));
        }
        let mut left = refs::versions(&self.refs, &self.io)?;
        left.retain(|version| !reached.contains(&version.id));
        Ok(left)
    }
}

impl Iterator for History<'_> {
    type Item = Result<Listed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}

/// Pages, of which those read last are kept.
struct Near<'a> {
    io: Box<dyn PageIo + 'a>,
    pages: RefCell<HashMap<ChunkRef, Arc<[u8]>>>,
}

impl PageIo for Near<'_> {
    fn load(&self, page: &ChunkRef) -> Result<Arc<[u8]>> {
        if let Some(bytes) = self.pages.borrow().get(page) {
            return Ok(bytes.clone());
        }
        let bytes = self.io.load(page)?;
        let mut pages = self.pages.borrow_mut();
        if pages.len() >= PAGES_MAX {
            pages.clear();
        }
        pages.insert(*page, bytes.clone());
        Ok(bytes)
    }

    fn load_many(&self, pages: &[ChunkRef]) -> Result<Vec<Arc<[u8]>>> {
        self.io.load_many(pages)
    }

    fn save(&self, bytes: &[u8]) -> Result<ChunkRef> {
        self.io.save(bytes)
    }
}
