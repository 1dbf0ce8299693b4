//! Connections to one host: kept while they are fit, and never more than the host takes.

use parking_lot::{Condvar, Mutex};

use super::error::{BatchError, Code, Result};

/// Connections of one kind to one host.
pub struct Pool<C> {
    state: Mutex<State<C>>,
    given_back: Condvar,
}

struct State<C> {
    idle: Vec<C>,
    /// Connections that are open, idle or not.
    open: usize,
    open_max: usize,
}

/// One place among the connections that may be open.
struct Place<'a, C> {
    pool: &'a Pool<C>,
    connection: Option<C>,
}

impl<C> Drop for Place<'_, C> {
    fn drop(&mut self) {
        let mut state = self.pool.state.lock();
        match self.connection.take() {
            Some(connection) => state.idle.push(connection),
            None => state.open -= 1,
        }
        self.pool.given_back.notify_one();
    }
}

impl<C> Pool<C> {
    /// A pool of so many connections at most.
    pub fn new(open_max: usize) -> Self {
        Self { state: Mutex::new(State { idle: Vec::new(), open: 0, open_max }), given_back: Condvar::new() }
    }

    /// Does something over a connection, which is kept unless it, or the protocol on it, failed. A host that refuses
    /// one more while others are open is asked for no more than those from then on.
    pub fn with<T>(&self, connect: impl Fn() -> Result<C>, act: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
        let mut place = self.place();
        let mut connection = loop {
            if let Some(connection) = place.connection.take() {
                break connection;
            }
            match connect() {
                Ok(connection) => break connection,
                Err(error) if error.code() == Code::Busy && self.lower() => {
                    drop(place);
                    place = self.place();
                }
                Err(error) => return Err(error),
            }
        };
        let outcome = act(&mut connection);
        if outcome.as_ref().err().is_none_or(leaves_fit) {
            place.connection = Some(connection);
        } else if outcome.as_ref().is_err_and(|error| error.code() == Code::Network) {
            // The others were made at about the same time, and may be as dead.
            self.clear();
        }
        outcome
    }

    /// Waits until a connection is idle, or one more may be opened.
    fn place(&self) -> Place<'_, C> {
        let mut state = self.state.lock();
        loop {
            if let Some(connection) = state.idle.pop() {
                return Place { pool: self, connection: Some(connection) };
            }
            if state.open < state.open_max {
                state.open += 1;
                return Place { pool: self, connection: None };
            }
            self.given_back.wait(&mut state);
        }
    }

    /// Takes note that the host takes no more connections; false when there is no other one to wait for.
    fn lower(&self) -> bool {
        let mut state = self.state.lock();
        let others = state.open.saturating_sub(1);
        if others > 0 && others < state.open_max {
            tracing::info!(component = "pool", connections = others, "the host takes no more connections");
            state.open_max = others;
        }
        others > 0
    }

    /// Closes what is idle.
    pub fn clear(&self) {
        let idle = {
            let mut state = self.state.lock();
            state.open -= state.idle.len();
            std::mem::take(&mut state.idle)
        };
        self.given_back.notify_all();
        drop(idle);
    }
}

/// Whether a connection can be used again after an error: after answers that say what is wrong with a file, and nothing
/// else, since a transfer may have ended in its middle.
fn leaves_fit(error: &BatchError) -> bool {
    use Code::{BadName, Denied, Locked, NotAFile, SourceChanged, Vanished};
    matches!(error.code(), Vanished | Denied | NotAFile | SourceChanged | BadName | Locked)
}
