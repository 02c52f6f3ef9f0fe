//! What all clients of a run have seen, in one place, compared at once with what any of them sees next.
//!
//! A stream is a row of event identifiers. Whoever is told that an event lies at a number (by an acknowledgement, a
//! read or a subscription) enters it here; when somebody else was told otherwise before, history has changed, and that
//! must not be. The largest number that anybody has seen is the *floor*: a write that begins later gets a larger one,
//! and a read at the leader that begins later reaches at least so far. Both together are linearizability, one stream at
//! a time, for operations that are ordered by number.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// "Nobody has said yet."
const UNKNOWN: u128 = 0;

/// What all clients have seen.
#[derive(Debug, Default)]
pub(crate) struct Known {
    streams: Mutex<HashMap<String, Vec<u128>>>,
}

impl Known {
    fn streams(&self) -> MutexGuard<'_, HashMap<String, Vec<u128>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The largest number of `stream` that anybody has seen; -1 when nobody has seen any.
    pub(crate) fn floor(&self, stream: &str) -> i64 {
        self.streams().get(stream).map_or(-1, |ids| ids.len() as i64 - 1)
    }

    /// Enters that `ids` lie in `stream` from number `first` on.
    ///
    /// # Errors
    /// When somebody saw another event there.
    pub(crate) fn enter(&self, stream: &str, first: i64, ids: impl IntoIterator<Item = u128>) -> Result<(), String> {
        let mut streams = self.streams();
        if !streams.contains_key(stream) {
            streams.insert(stream.to_owned(), Vec::new());
        }
        let row = streams.get_mut(stream).expect("it was put in");
        for (place, id) in ids.into_iter().enumerate() {
            let at = usize::try_from(first).map_err(|_| format!("event number {first}"))? + place;
            if row.len() <= at {
                row.resize(at + 1, UNKNOWN);
            }
            if row[at] != UNKNOWN && row[at] != id {
                return Err(format!("event {at} was seen as {} and is now {}", name(row[at]), name(id)));
            }
            row[at] = id;
        }
        Ok(())
    }

    /// The names of all streams.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.streams().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    /// The row of a stream, with zeros where nobody has looked.
    pub(crate) fn row(&self, stream: &str) -> Vec<u128> {
        self.streams().get(stream).cloned().unwrap_or_default()
    }
}

/// The identifier of an event: the run, the client that wrote it, and its number there.
pub(crate) fn identifier(run: u32, client: u32, counter: u64) -> u128 {
    u128::from(run | 1) << 96 | u128::from(client) << 64 | u128::from(counter)
}

/// An identifier in words.
pub(crate) fn name(id: u128) -> String {
    let (client, counter) = ((id >> 64) as u32, id as u64);
    if id == UNKNOWN { "nothing".to_owned() } else { format!("event {counter} of client {client}") }
}

/// The data of an event: its length, then bytes that follow from the identifier.
pub(crate) fn data(id: u128, length: usize) -> Vec<u8> {
    let mut data = (length as u32).to_le_bytes().to_vec();
    data.extend((0..length).map(|at| (id as usize + at) as u8));
    data
}

/// True when `data` is what [`data`] makes for that identifier.
pub(crate) fn is_data_of(id: u128, found: &[u8]) -> bool {
    let Some((length, rest)) = found.split_first_chunk::<4>() else { return false };
    u32::from_le_bytes(*length) as usize == rest.len()
        && rest.iter().enumerate().all(|(at, byte)| *byte == (id as usize + at) as u8)
}
