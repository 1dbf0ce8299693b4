//! Changing the content of files: writing, cutting, punching holes.

use std::sync::atomic::Ordering;

use super::graft::Invalidation;
use super::inode::File;
use super::live::{Wait, Worktree};
use super::namespace::{attr_set, frozen_records, mark_frozen_logged, mark_logged, unlogged_records};
use super::record::Record;
use super::table::{Attempt, Table};
use super::{Changes, Result, WorkError};
use crate::base::clock::Timestamp;
use crate::base::limits::FILE_SIZE_MAX;
use crate::version::entry::Ino;

impl Worktree {
    /// Writes all of `data` at `offset`.
    pub fn write(&self, ino: Ino, offset: u64, data: &[u8], uid: u32, wait: Wait) -> Result<()> {
        self.writable()?;
        let end =
            offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_SIZE_MAX).ok_or(WorkError::TooLarge)?;
        self.make_room(data.len() as u64, wait)?;
        self.run(wait, |table| {
            table.get(ino)?.file()?;
            if data.is_empty() {
                return Ok(());
            }
            self.drop_privileges(table, ino, uid)?;
            let now = self.now();
            self.change_draft(table, ino, now, |file, draft_size| {
                let draft = file.draft_mut(now);
                draft.extents.write(offset, data, false);
                *draft_size = (*draft_size).max(end);
            })
        })?;
        let dirty = self.dirty_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        if dirty > self.dirty_bytes_ample() {
            self.wake();
        }
        Ok(())
    }

    fn change_draft(
        &self,
        table: &mut Table,
        ino: Ino,
        now: Timestamp,
        change: impl FnOnce(&mut File, &mut u64),
    ) -> Attempt<()> {
        if table.get(ino)?.file()?.draft.is_none() {
            table.check_unheld()?;
        }
        let inode = table.get_mut(ino)?;
        let file = inode.file_mut()?;
        let mut size = file.draft_mut(now).size;
        change(file, &mut size);
        let draft = file.draft_mut(now);
        (draft.size, draft.mtime) = (size, now);
        file.size = size;
        (inode.mtime, inode.ctime) = (now, now);
        table.drafts.insert(ino);
        Ok(())
    }

    /// Sets a file's length, publishes what it has then (with `publish`), and changes attributes: all or nothing.
    pub(super) fn resize(
        &self,
        table: &mut Table,
        ino: Ino,
        size: u64,
        uid: u32,
        publish: bool,
        changes: &Changes,
    ) -> Attempt<()> {
        if size > FILE_SIZE_MAX {
            return Err(WorkError::TooLarge.into());
        }
        table.get(ino)?.file()?;
        table.check_unheld()?;
        self.drop_privileges(table, ino, uid)?;
        let now = self.now();
        let file = table.get(ino)?.file()?;
        let layer = file.draft.as_ref().map_or(file.next_layer, |draft| draft.id);
        let mut records = Vec::new();
        // A record of a layer comes after all of the layers below it.
        match publish {
            true => unlogged_records(ino, file, &mut records),
            false => frozen_records(ino, file, &mut records),
        }
        records.push(Record::Resize { ino, layer, size, time: now });
        let at = records.len();
        records.extend(publish.then_some(Record::Complete { ino, layer }));
        records.extend(attr_set(table.get(ino)?, changes, now).map(|set| Record::Attr { ino, set }));
        self.append(table, &records)?;
        match publish {
            true => mark_logged(table, ino),
            false => mark_frozen_logged(table, ino),
        }
        self.change_draft(table, ino, now, |file, draft_size| {
            file.draft_mut(now).resize(size);
            *draft_size = size;
        })?;
        records[at..].iter().try_for_each(|record| table.apply(record))
    }

    /// Writing to a file takes its set-uid and set-gid bits and its capabilities away, root's doing aside.
    pub(super) fn drop_privileges(&self, table: &mut Table, ino: Ino, uid: u32) -> Attempt<()> {
        const CAPABILITY: &[u8] = b"security.capability";
        let inode = table.get(ino)?;
        let now = self.now();
        let mut records = Vec::new();
        let lowered = super::namespace::without_privileges(inode.mode);
        if uid != 0 && lowered != inode.mode && !inode.is_dir() {
            let set = super::record::AttrSet { mode: Some(lowered), ctime: now, ..Default::default() };
            records.push(Record::Attr { ino, set });
        }
        if inode.xattrs.as_ref().is_some_and(|xattrs| xattrs.contains_key(CAPABILITY)) {
            records.push(Record::Xattr { ino, name: CAPABILITY.to_vec(), value: None, time: now });
        }
        if records.is_empty() {
            return Ok(());
        }
        self.commit(table, &records)?;
        // The kernel keeps what it knew of the mode, and would lend the rights on.
        self.tell(vec![Invalidation::Attributes(ino)]);
        Ok(())
    }

    /// Punches a hole (`keep_size`), zeroes a range, or extends the file.
    pub fn fallocate(
        &self,
        ino: Ino,
        offset: u64,
        len: u64,
        zero: bool,
        keep_size: bool,
        uid: u32,
        wait: Wait,
    ) -> Result<()> {
        self.writable()?;
        let end = offset.checked_add(len).filter(|end| *end <= FILE_SIZE_MAX).ok_or(WorkError::TooLarge)?;
        self.run(wait, |table| {
            if len == 0 {
                return Err(WorkError::Invalid.into());
            }
            let size = table.get(ino)?.file()?.size;
            self.drop_privileges(table, ino, uid)?;
            let now = self.now();
            // First what may be refused.
            if !keep_size && end > size {
                self.resize(table, ino, end, uid, false, &Changes::default())?;
            }
            if zero && offset < size {
                self.change_draft(table, ino, now, |file, _| {
                    file.draft_mut(now).extents.zero(offset, end.min(size) - offset, false)
                })?;
            }
            Ok(())
        })
    }
}
