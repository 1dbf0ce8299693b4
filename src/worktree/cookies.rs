//! The places of names in listings, kept while the names themselves are not in memory: a listing that
//! goes on after its directory was dropped and loaded again gives every name that stayed once.

use std::hash::{DefaultHasher, Hash, Hasher};

use lru::LruCache;

use super::Name;
use crate::version::entry::Ino;

/// Names whose places are kept, of all directories together; sixteen bytes each.
const KEPT_MAX: usize = 1 << 20;

/// The places of the names of directories that were listed and then dropped from memory.
#[derive(Debug)]
pub(super) struct KeptCookies {
    dirs: LruCache<Ino, DirCookies>,
    names: usize,
}

/// The places of the names of one directory.
#[derive(Debug, Default)]
pub(super) struct DirCookies {
    /// Hashes of names and their cookies, by hash.
    cookies: Box<[(u64, u64)]>,
    /// The last cookie given out.
    pub(super) last: u64,
}

impl Default for KeptCookies {
    fn default() -> Self {
        Self { dirs: LruCache::unbounded(), names: 0 }
    }
}

impl KeptCookies {
    pub(super) fn keep(&mut self, dir: Ino, cookies: DirCookies) {
        self.names += cookies.cookies.len();
        if let Some(old) = self.dirs.put(dir, cookies) {
            self.names -= old.cookies.len();
        }
        while self.names > KEPT_MAX
            && self.dirs.len() > 1
            && let Some((_, oldest)) = self.dirs.pop_lru()
        {
            self.names -= oldest.cookies.len();
        }
    }

    /// What was kept of a directory whose names are loaded again, or that nobody can be listing.
    pub(super) fn take(&mut self, dir: Ino) -> Option<DirCookies> {
        let taken = self.dirs.pop(&dir)?;
        self.names -= taken.cookies.len();
        Some(taken)
    }
}

impl DirCookies {
    pub(super) fn of<'a>(names: impl Iterator<Item = (u64, &'a Name)>, last: u64) -> Self {
        let mut cookies: Vec<(u64, u64)> = names.map(|(cookie, name)| (hash(name), cookie)).collect();
        cookies.sort_unstable();
        Self { cookies: cookies.into(), last }
    }

    /// The cookie a name had.
    pub(super) fn find(&self, name: &[u8]) -> Option<u64> {
        let hash = hash(name);
        let at = self.cookies.binary_search_by_key(&hash, |(hash, _)| *hash).ok()?;
        Some(self.cookies[at].1)
    }
}

fn hash(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(count: usize) -> Vec<(u64, Name)> {
        (1..).take(count).map(|cookie| (cookie, Name::from(format!("name {cookie}").into_bytes()))).collect()
    }

    fn of(names: &[(u64, Name)]) -> DirCookies {
        DirCookies::of(names.iter().map(|(cookie, name)| (*cookie, name)), names.len() as u64)
    }

    #[test]
    fn every_name_finds_its_cookie() {
        let names = named(1000);
        let cookies = of(&names);
        assert!(names.iter().all(|(cookie, name)| cookies.find(name) == Some(*cookie)));
        assert_eq!(cookies.find(b"name 1001"), None);
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let mut kept = KeptCookies::default();
        let names = named(KEPT_MAX / 4);
        for dir in 1..=10 {
            kept.keep(Ino(dir), of(&names));
            kept.keep(Ino(dir), of(&names));
            assert!(kept.names <= KEPT_MAX);
        }
        assert!(kept.take(Ino(1)).is_none() && kept.take(Ino(10)).is_some());
        (2..10).for_each(|dir| drop(kept.take(Ino(dir))));
        assert_eq!((kept.names, kept.dirs.len()), (0, 0));
    }
}
