//! Loading what an operation needs: names of directories, inodes of the link table.

use super::table::{Need, Table};
use super::{Name, Result};
use crate::version::entry::{CONTROL_NAME, Entry, Ino, LinkRecord};
use crate::version::tree::{PageIo, TreeRef};

/// What was loaded, to be installed under the lock.
pub(super) enum Loaded {
    Names { dir: Ino, names: TreeRef, entries: Vec<(Name, Entry)> },
    Link { ino: Ino, links: TreeRef, record: Option<LinkRecord> },
    Nothing,
}

/// What has to be read for a need, found under the lock.
pub(super) enum Order {
    Names(Ino, TreeRef),
    Link(Ino, TreeRef),
    Nothing,
}

impl Table {
    pub(super) fn order(&self, need: Need) -> Order {
        match need {
            Need::Names(ino) => match self.find(ino).and_then(|inode| inode.dir().ok()) {
                Some(dir) if dir.children.is_none() => Order::Names(ino, dir.names),
                _ => Order::Nothing,
            },
            Need::Link(ino) => Order::Link(ino, self.links),
        }
    }

    /// Installs what was read, unless the tree moved on meanwhile (then the need is met anew).
    pub(super) fn install(&mut self, loaded: Loaded) {
        match loaded {
            Loaded::Names { dir, names, entries } => {
                let same = self.find(dir).and_then(|inode| inode.dir().ok()).is_some_and(|dir| dir.names == names);
                if same {
                    self.install_names(dir, entries);
                }
            }
            Loaded::Link { ino, links, record } => {
                if self.links == links {
                    match record {
                        Some(record) => self.install_link(ino, record.inode, record.names),
                        None => {
                            self.known.remove(&ino);
                        }
                    }
                }
            }
            Loaded::Nothing => {}
        }
    }
}

/// Reads what was ordered; may wait for the store.
pub(super) fn load(io: &dyn PageIo, order: Order) -> Result<Loaded> {
    match order {
        Order::Nothing => Ok(Loaded::Nothing),
        Order::Names(dir, names) => {
            let mut entries = Vec::with_capacity(usize::try_from(names.count().min(1 << 20)).unwrap_or(0));
            let mut failed = None;
            names.scan(io, std::ops::Bound::Unbounded, &mut |name, value| match Entry::decode(value) {
                // Whoever wrote it: in the live tree the name is that of the control directory.
                Ok(_) if name == CONTROL_NAME => true,
                Ok(entry) => {
                    entries.push((Name::from(name), entry));
                    true
                }
                Err(error) => {
                    failed = Some(error);
                    false
                }
            })?;
            match failed {
                Some(error) => Err(error.into()),
                None => Ok(Loaded::Names { dir, names, entries }),
            }
        }
        Order::Link(ino, links) => {
            let value = links.get(io, &LinkRecord::key(ino))?;
            let record = value.map(|value| LinkRecord::decode(&value)).transpose()?;
            Ok(Loaded::Link { ino, links, record })
        }
    }
}
