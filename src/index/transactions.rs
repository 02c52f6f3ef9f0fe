//! Explicit transactions: where their writes lie, until they are committed and for a while after.
//!
//! v5 lets a transaction stay open for ever. Here the table is bounded: by transactions and by writes over all of them;
//! the oldest transaction is dropped for a new entry, and then counts as unknown. A committed one stays until it is
//! dropped in the same way, so that a repeated commit finds the same events and is seen to be a repeat.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::limits::{TRANSACTION_WRITES_MAX, TRANSACTIONS_MAX};
use crate::types::LogPosition;

/// An explicit transaction, open or committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// The stream that it writes to.
    pub stream: Arc<str>,
    /// The claim that is checked at its commit, as on the wire.
    pub expected_version: i64,
    /// Where its `TransactionWrite` records lie, in order.
    pub writes: Vec<LogPosition>,
}

/// The bounded table.
#[derive(Clone, Debug)]
pub(super) struct Transactions {
    count_limit: usize,
    write_limit: usize,
    by_id: HashMap<u64, Transaction, FixedState>,
    /// Identifiers, oldest first. Invariant: the same ones as in `by_id`.
    order: VecDeque<u64>,
    /// Writes of all transactions in the table.
    write_count: usize,
}

impl Transactions {
    pub(super) fn new(count_limit: usize, write_limit: usize) -> Transactions {
        let by_id = HashMap::with_hasher(FixedState::with_seed(1));
        Transactions { count_limit, write_limit, by_id, order: VecDeque::new(), write_count: 0 }
    }

    /// A transaction begins; the position of its record is its identifier.
    pub(super) fn start(&mut self, id: LogPosition, stream: &str, expected_version: i64) {
        let transaction = Transaction { stream: stream.into(), expected_version, writes: Vec::new() };
        self.by_id.insert(id.0, transaction);
        self.order.push_back(id.0);
        self.keep_bounds();
    }

    /// Adds a write; one to an unknown transaction is ignored, as in v5.
    pub(super) fn write(&mut self, id: i64, record: LogPosition) {
        let Ok(id) = u64::try_from(id) else { return };
        let Some(transaction) = self.by_id.get_mut(&id) else { return };
        transaction.writes.push(record);
        self.write_count += 1;
        self.keep_bounds();
    }

    pub(super) fn get(&self, id: LogPosition) -> Option<Transaction> {
        self.by_id.get(&id.0).cloned()
    }

    pub(super) fn stream(&self, id: LogPosition) -> Option<Arc<str>> {
        self.by_id.get(&id.0).map(|transaction| Arc::clone(&transaction.stream))
    }

    /// As a table of the index keeps them; see the manual.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for id in &self.order {
            let transaction = &self.by_id[id];
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&transaction.expected_version.to_le_bytes());
            out.extend_from_slice(&(transaction.stream.len() as u32).to_le_bytes());
            out.extend_from_slice(&(transaction.writes.len() as u32).to_le_bytes());
            out.extend_from_slice(transaction.stream.as_bytes());
            transaction.writes.iter().for_each(|write| out.extend_from_slice(&write.0.to_le_bytes()));
        }
        out
    }

    /// Those at `end` of the log. `None` when the bytes make no sense.
    pub(super) fn decode(mut bytes: &[u8], end: LogPosition) -> Option<Transactions> {
        let position = |bytes: &mut &[u8]| {
            let position = LogPosition(u64::from_le_bytes(*take_array(bytes)?));
            (position < end).then_some(position)
        };
        let mut table = Transactions::new(TRANSACTIONS_MAX, TRANSACTION_WRITES_MAX);
        let mut newest = None;
        while !bytes.is_empty() {
            let id = position(&mut bytes)?;
            // Oldest first: so none is there twice.
            if newest.replace(id).is_some_and(|newest| newest >= id) {
                return None;
            }
            let expected_version = i64::from_le_bytes(*take_array(&mut bytes)?);
            let length = u32::from_le_bytes(*take_array(&mut bytes)?);
            let writes = u32::from_le_bytes(*take_array(&mut bytes)?);
            let (stream, rest) = bytes.split_at_checked(length as usize)?;
            bytes = rest;
            table.start(id, std::str::from_utf8(stream).ok()?, expected_version);
            for _ in 0..writes {
                table.write(i64::try_from(id.0).ok()?, position(&mut bytes)?);
            }
        }
        Some(table)
    }

    fn keep_bounds(&mut self) {
        while self.order.len() > self.count_limit || self.write_count > self.write_limit {
            let oldest = self.order.pop_front().expect("a table over its bounds is not empty");
            let dropped = self.by_id.remove(&oldest).expect("the queue and the table hold the same identifiers");
            self.write_count -= dropped.writes.len();
        }
    }
}

fn take_array<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        let mut table = Transactions::new(8, 8);
        table.start(LogPosition(64), "orders", -2);
        table.start(LogPosition(128), "", 7);
        table.write(64, LogPosition(256));
        table.write(64, LogPosition(320));
        let bytes = table.encode();
        let decode = |bytes: &[u8]| Transactions::decode(bytes, LogPosition(321));
        let decoded = decode(&bytes).unwrap();
        assert_eq!((&decoded.by_id, &decoded.order, decoded.write_count), (&table.by_id, &table.order, 2));
        assert!((1..bytes.len()).all(|end| decode(&bytes[..end]).is_none() || end == 46));
        assert!(decode(&[]).unwrap().order.is_empty());
        assert!(Transactions::decode(&bytes, LogPosition(320)).is_none(), "a write behind the end");
        assert!(decode(&[&bytes[..], &bytes[..]].concat()).is_none(), "one that is there twice");
    }

    #[test]
    fn writes_are_gathered_and_strangers_ignored() {
        let mut table = Transactions::new(8, 8);
        table.start(LogPosition(64), "orders", -2);
        table.write(64, LogPosition(128));
        table.write(65, LogPosition(192));
        table.write(-1, LogPosition(192));
        table.write(64, LogPosition(256));
        let found = table.get(LogPosition(64)).unwrap();
        assert_eq!((&*found.stream, found.expected_version), ("orders", -2));
        assert_eq!(found.writes, [LogPosition(128), LogPosition(256)]);
        assert_eq!(table.get(LogPosition(65)), None);
    }

    #[test]
    fn the_oldest_transaction_is_dropped_at_either_bound() {
        let mut table = Transactions::new(3, 5);
        let known =
            |table: &Transactions| -> Vec<u64> { (0..9).filter(|&id| table.get(LogPosition(id)).is_some()).collect() };
        for id in 0..4 {
            table.start(LogPosition(id), "s", 0);
        }
        assert_eq!(known(&table), [1, 2, 3]);
        for at in 0..5 {
            table.write(1 + at % 2, LogPosition(100));
        }
        assert_eq!(known(&table), [1, 2, 3]);
        table.write(3, LogPosition(100));
        assert_eq!(known(&table), [2, 3]);
        for _ in 0..5 {
            table.write(3, LogPosition(100));
        }
        assert_eq!((known(&table), table.write_count, table.order.len()), (vec![], 0, 0));
    }
}
