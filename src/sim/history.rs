//! The history of what clients asked and were told, and its judgement at the end of a run: is each stream a linearizable
//! object?
//!
//! Events of a stream are totally ordered by their numbers, so no search for an order is needed. The committed log gives
//! the order of the writes and the moment from which each event was committed; an operation fits when what it was told
//! holds at some moment between question and answer, in the order that real time gives to operations that do not overlap.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::types::ExpectedVersion;

use super::agenda::Moment;
use super::reference::Reference;

/// What an operation was told.
#[derive(Clone, Debug)]
pub(super) enum Told {
    /// The write is there: first and last number. `once`: it was asked for a single time, so its place lies between
    /// question and answer.
    Written { expected: ExpectedVersion, first: i64, last: i64, once: bool },
    /// The claim does not hold: the stream has this number.
    Refused { expected: ExpectedVersion, current: i64 },
    /// A read behind a barrier saw this number.
    Read { last: i64 },
    /// A read without one, on this node in this start of it, at this moment.
    ReadAnywhere { last: i64, node: (usize, u32), at: Moment },
}

/// One operation with its answer.
#[derive(Clone, Debug)]
pub(super) struct Operation {
    pub(super) stream: Arc<str>,
    pub(super) asked: Moment,
    pub(super) answered: Moment,
    pub(super) told: Told,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct History {
    operations: Vec<Operation>,
}

/// What real time says of one stream while its operations are gone through.
#[derive(Debug)]
struct Walk {
    /// Somebody knew this number by now.
    known: i64,
}

impl History {
    pub(super) fn add(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// The first operation that does not fit, for people.
    pub(super) fn misfit(&self, reference: &Reference) -> Option<String> {
        let mut streams: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
        for operation in &self.operations {
            streams.entry(&operation.stream).or_default().push(operation);
        }
        streams.into_iter().find_map(|(name, operations)| {
            let numbers = |reason: String| format!("{name}: {reason}");
            judge(name, &operations, reference).map(numbers)
        })
    }
}

/// Goes through questions and answers in the order of time; at one moment questions come first: such operations overlap.
fn judge(name: &str, operations: &[&Operation], reference: &Reference) -> Option<String> {
    let mut moments: Vec<(Moment, bool, usize)> = Vec::with_capacity(operations.len() * 2);
    for (index, operation) in operations.iter().enumerate() {
        moments.push((operation.asked, false, index));
        moments.push((operation.answered, true, index));
    }
    moments.sort_unstable();
    let mut walk = Walk { known: -1 };
    let mut floors = vec![-1; operations.len()];
    for (_, is_answer, index) in moments {
        if !is_answer {
            floors[index] = walk.known;
            continue;
        }
        if let Some(reason) = walk.answer(name, operations[index], floors[index], reference) {
            return Some(reason);
        }
    }
    goes_back(operations)
}

/// A node that shows less of the stream than it has shown before.
fn goes_back(operations: &[&Operation]) -> Option<String> {
    let mut reads: Vec<_> = operations
        .iter()
        .filter_map(|operation| match operation.told {
            Told::ReadAnywhere { last, node, at } => Some((node, at, last)),
            _ => None,
        })
        .collect();
    reads.sort_unstable();
    let back = reads.windows(2).find(|pair| pair[0].0 == pair[1].0 && pair[0].2 > pair[1].2)?;
    let ((node, _), at, last) = back[1];
    Some(format!("n{node} shows number {last} at {at} ns and has shown {} before", back[0].2))
}

impl Walk {
    fn answer(&mut self, name: &str, operation: &Operation, floor: i64, reference: &Reference) -> Option<String> {
        let at = operation.answered;
        let told = &operation.told;
        let is_there =
            |number: i64| number < 0 || reference.committed_at(name, number).is_some_and(|since| since <= at);
        let complaint =
            |what: &str| Some(format!("{what}: {told:?}, asked at {} ns, answered at {at} ns", operation.asked));
        match *told {
            Told::Written { expected, first, last, once } => {
                if !is_there(last) {
                    return complaint("acknowledged before it was committed");
                }
                if !follows(expected, first) {
                    return complaint("written though its claim does not hold");
                }
                if once && first <= floor {
                    return complaint(&format!("placed before {floor}, which was known when it was asked"));
                }
                self.known = self.known.max(last);
            }
            Told::Refused { expected, current } => {
                if current < floor || !is_there(current) {
                    return complaint(&format!("refused for a number that the stream did not have; {floor} was known"));
                }
                if holds(expected, current) {
                    return complaint("refused though its claim holds");
                }
                self.known = self.known.max(current);
            }
            Told::Read { last } => {
                if last < floor || !is_there(last) {
                    return complaint(&format!("a read behind a barrier; {floor} was known when it was asked"));
                }
                self.known = self.known.max(last);
            }
            Told::ReadAnywhere { last, .. } => {
                if !is_there(last) {
                    return complaint("a read without a barrier of what is not committed");
                }
                // What one has seen is committed: a read behind a barrier must see it from now on.
                self.known = self.known.max(last);
            }
        }
        None
    }
}

/// A write that claims so may begin with this number.
fn follows(expected: ExpectedVersion, first: i64) -> bool {
    match expected {
        ExpectedVersion::Exact(number) => first == number + 1,
        // A soft-deleted stream counts as none and goes on with its numbers.
        ExpectedVersion::NoStream | ExpectedVersion::Any | ExpectedVersion::StreamExists => first >= 0,
    }
}

/// The claim holds for a stream that ends with this number, whatever else is known of it.
fn holds(expected: ExpectedVersion, current: i64) -> bool {
    match expected {
        ExpectedVersion::Exact(number) => number == current,
        ExpectedVersion::NoStream => current < 0,
        ExpectedVersion::Any => true,
        ExpectedVersion::StreamExists => current >= 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: &str = "s";

    fn told(asked: Moment, answered: Moment, told: Told) -> Operation {
        Operation { stream: S.into(), asked, answered, told }
    }

    fn written(asked: Moment, answered: Moment, first: i64, expected: ExpectedVersion) -> Operation {
        told(asked, answered, Told::Written { expected, first, last: first, once: true })
    }

    /// Events 0, 1, 2 of the stream, committed at 10, 20 and 30 ns.
    fn misfit(operations: &[Operation]) -> Option<String> {
        let reference = Reference::of_stream(S, &[10, 20, 30]);
        History { operations: operations.to_vec() }.misfit(&reference)
    }

    #[test]
    fn what_overlaps_may_come_in_any_order_and_what_does_not_may_not() {
        let any = ExpectedVersion::Any;
        let read = |asked, answered, last| told(asked, answered, Told::Read { last });
        assert_eq!(misfit(&[written(1, 11, 0, any), written(5, 25, 1, any), read(22, 26, 1)]), None);
        assert_eq!(misfit(&[written(1, 22, 1, any), written(2, 12, 0, any)]), None, "they overlap");
        assert!(misfit(&[written(1, 21, 1, any), written(22, 24, 0, any)]).unwrap().contains("placed before 1"));
        assert!(misfit(&[written(1, 21, 1, any), read(22, 24, 0)]).unwrap().contains("behind a barrier"));
        assert_eq!(misfit(&[written(1, 25, 1, any), read(22, 24, 0)]), None);
        assert!(misfit(&[read(1, 19, 1)]).is_some(), "not committed yet");
    }

    #[test]
    fn a_node_never_shows_less_than_before_but_another_may() {
        let read = |at, last, node| told(at, at, Told::ReadAnywhere { last, node: (node, 0), at });
        assert_eq!(misfit(&[read(31, 2, 0), read(32, 1, 1), read(33, 1, 1), read(34, 2, 1)]), None);
        assert!(misfit(&[read(31, 2, 0), read(32, 1, 0)]).unwrap().contains("has shown 2 before"));
        let confirmed = told(32, 33, Told::Read { last: 1 });
        assert!(misfit(&[read(31, 2, 0), confirmed]).is_some());
    }

    #[test]
    fn claims_are_judged() {
        let refused = |expected, current| told(31, 32, Told::Refused { expected, current });
        assert_eq!(misfit(&[written(1, 11, 0, ExpectedVersion::NoStream)]), None);
        assert!(misfit(&[written(21, 41, 2, ExpectedVersion::Exact(0))]).unwrap().contains("claim does not hold"));
        assert_eq!(misfit(&[refused(ExpectedVersion::Exact(1), 2)]), None);
        assert!(misfit(&[refused(ExpectedVersion::Exact(2), 2)]).unwrap().contains("claim holds"));
        let late = [written(1, 25, 1, ExpectedVersion::Any), refused(ExpectedVersion::Exact(1), 0)];
        assert!(misfit(&late).unwrap().contains("did not have"));
    }
}
