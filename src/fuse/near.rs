//! Waiting for the local disk: one session thread at a time does it, the others stay free for what is in memory.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::pool::Job;

/// Requests of one reader in order overlap in what has to be opened. Done one after the other by one thread they cost
/// least; what is beyond that goes to a pool and is done side by side.
const JOBS_MAX: usize = 2;

/// A turn does so many: its thread has others to serve, too.
const JOBS_OF_TURN_MAX: usize = 8;

/// The right to wait for the local disk on a session thread.
#[derive(Default)]
pub(super) struct Near(Mutex<State>);

#[derive(Default)]
struct State {
    is_taken: bool,
    /// Whether jobs may be left to the thread that has the right.
    is_reading: bool,
    /// What others left to the thread that has the right.
    jobs: VecDeque<Job>,
}

/// Held by the thread that has the right. Dropped, it first does what others left to it.
pub(super) struct Turn<'a>(&'a Near);

impl Near {
    /// The right to read; `None` while another thread has the right.
    pub(super) fn enter_reading(&self) -> Option<Turn<'_>> {
        self.enter(true)
    }

    /// The right to sync, with which nothing is left to a thread: a read would wait for the sync. `None` while another
    /// thread has the right.
    pub(super) fn enter_syncing(&self) -> Option<Turn<'_>> {
        self.enter(false)
    }

    fn enter(&self, is_reading: bool) -> Option<Turn<'_>> {
        let mut state = self.0.lock();
        if state.is_taken {
            return None;
        }
        (state.is_taken, state.is_reading) = (true, is_reading);
        Some(Turn(self))
    }

    /// Leaves a job to the thread that is reading; gives it back when none is, or too much waits for it.
    pub(super) fn leave(&self, job: Job) -> Result<(), Job> {
        let mut state = self.0.lock();
        if !state.is_taken || !state.is_reading || state.jobs.len() >= JOBS_MAX {
            return Err(job);
        }
        state.jobs.push_back(job);
        Ok(())
    }

    /// The next job, after `done` of them; without one the right is free again.
    fn next(&self, done: usize) -> Option<Job> {
        let mut state = self.0.lock();
        state.is_reading &= done < JOBS_OF_TURN_MAX;
        let job = state.jobs.pop_front();
        state.is_taken = job.is_some();
        job
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut done = 0;
        while let Some(job) = self.0.next(done) {
            job();
            done += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn what_is_left_to_a_turn_is_done_when_it_ends_and_no_more_than_that_is_taken() {
        let (near, done) = (Near::default(), Arc::new(AtomicUsize::new(0)));
        let job = || -> Job {
            let done = done.clone();
            Box::new(move || {
                done.fetch_add(1, Ordering::SeqCst);
            })
        };
        assert!(near.leave(job()).is_err(), "nobody would do it");
        let turn = near.enter_syncing().unwrap();
        assert!(near.leave(job()).is_err(), "it would wait for the disk");
        drop(turn);
        let turn = near.enter_reading().unwrap();
        assert!(near.enter_reading().is_none() && near.enter_syncing().is_none());
        let taken = (0..10).filter(|_| near.leave(job()).is_ok()).count();
        assert_eq!((taken, done.load(Ordering::SeqCst)), (JOBS_MAX, 0));
        drop(turn);
        assert_eq!(done.load(Ordering::SeqCst), JOBS_MAX);
        assert!(near.enter_syncing().is_some(), "the right is free again");
    }

    /// Leaves another like itself, for ever.
    fn leave_more(near: &Arc<Near>, done: &Arc<AtomicUsize>) -> Job {
        let (near, done) = (near.clone(), done.clone());
        Box::new(move || {
            done.fetch_add(1, Ordering::SeqCst);
            near.leave(leave_more(&near, &done)).ok();
        })
    }

    #[test]
    fn a_turn_ends_however_much_is_left_to_it() {
        let (near, done) = (Arc::new(Near::default()), Arc::new(AtomicUsize::new(0)));
        let turn = near.enter_reading().unwrap();
        assert!(near.leave(leave_more(&near, &done)).is_ok());
        drop(turn);
        assert!((JOBS_OF_TURN_MAX..JOBS_OF_TURN_MAX + JOBS_MAX).contains(&done.load(Ordering::SeqCst)), "{done:?}");
        assert!(near.enter_reading().is_some());
    }
}
