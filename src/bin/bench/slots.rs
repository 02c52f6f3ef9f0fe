//! Places for the requests of one connection that wait for their answers. A correlation identifier carries the slot's
//! number and its generation, so an answer finds its request by an index, and an answer that comes too late finds none.

/// Marks our identifiers; with it no identifier is all zero, which the server would refuse.
const MARK: [u8; 8] = *b"ringload";

/// Names one request of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Correlation {
    pub slot: u32,
    pub generation: u32,
}

impl Correlation {
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.slot.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..].copy_from_slice(&MARK);
        bytes
    }

    /// None when it is not one of ours.
    pub(crate) fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h, mark @ ..] = bytes;
        let (slot, generation) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        (mark == MARK).then_some(Self { slot, generation })
    }
}

struct Entry<T> {
    generation: u32,
    request: Option<T>,
}

/// A fixed number of slots.
///
/// **Invariant:** a slot is either in `free` or has a request, and never both.
pub(crate) struct Slots<T> {
    entries: Vec<Entry<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(crate) fn new(count: u32) -> Self {
        let entries = (0..count).map(|_| Entry { generation: 0, request: None }).collect();
        Self { entries, free: (0..count).rev().collect() }
    }

    pub(crate) fn has_free(&self) -> bool {
        !self.free.is_empty()
    }

    pub(crate) fn waiting(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Puts the request into a free slot; callers ask `has_free` first.
    pub(crate) fn insert(&mut self, request: T) -> Correlation {
        let slot = self.free.pop().expect("a free slot");
        let entry = &mut self.entries[slot as usize];
        assert!(entry.request.is_none(), "slot {slot} was in use");
        entry.request = Some(request);
        Correlation { slot, generation: entry.generation }
    }

    pub(crate) fn get(&self, correlation: Correlation) -> Option<&T> {
        let entry = self.entries.get(correlation.slot as usize)?;
        (entry.generation == correlation.generation).then_some(entry.request.as_ref())?
    }

    pub(crate) fn get_mut(&mut self, correlation: Correlation) -> Option<&mut T> {
        let entry = self.entries.get_mut(correlation.slot as usize)?;
        (entry.generation == correlation.generation).then_some(entry.request.as_mut())?
    }

    /// The request whose answer has come; its slot is free, and the same identifier finds nothing any more.
    pub(crate) fn release(&mut self, correlation: Correlation) -> Option<T> {
        let entry = self.entries.get_mut(correlation.slot as usize)?;
        if entry.generation != correlation.generation {
            return None;
        }
        let request = entry.request.take()?;
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(correlation.slot);
        Some(request)
    }

    /// A new identifier for a request that is sent again; an answer to the old one finds nothing.
    pub(crate) fn renew(&mut self, correlation: Correlation) -> Option<Correlation> {
        self.get(correlation)?;
        let entry = &mut self.entries[correlation.slot as usize];
        entry.generation = entry.generation.wrapping_add(1);
        Some(Correlation { slot: correlation.slot, generation: entry.generation })
    }

    /// Every request that waits, in the order of the slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Correlation, &T)> {
        self.entries.iter().enumerate().filter_map(|(slot, entry)| {
            let correlation = Correlation { slot: slot as u32, generation: entry.generation };
            entry.request.as_ref().map(|request| (correlation, request))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_survives_the_wire_and_foreign_ones_are_told_apart() {
        let correlation = Correlation { slot: 31, generation: 0xFFFF_FFFE };
        assert_eq!(Correlation::from_bytes(correlation.to_bytes()), Some(correlation));
        assert_ne!(Correlation { slot: 0, generation: 0 }.to_bytes(), [0; 16]);
        assert_eq!(Correlation::from_bytes([0; 16]), None);
    }

    #[test]
    fn an_answer_finds_its_request_once() {
        let mut slots = Slots::new(2);
        let (first, second) = (slots.insert("first"), slots.insert("second"));
        assert!(!slots.has_free());
        assert_eq!(slots.waiting(), 2);
        assert_eq!(slots.release(second), Some("second"));
        assert_eq!(slots.release(second), None, "the same answer again");
        let third = slots.insert("third");
        assert_eq!((third.slot, third.generation), (second.slot, second.generation + 1));
        assert_eq!(slots.get(second), None, "a late answer does not find the slot's next request");
        assert_eq!(slots.get(first), Some(&"first"));
        assert_eq!(slots.release(Correlation { slot: 7, generation: 0 }), None, "no such slot");
    }

    #[test]
    fn what_is_sent_again_has_a_new_identifier() {
        let mut slots = Slots::new(1);
        let first = slots.insert("request");
        let again = slots.renew(first).unwrap();
        assert_eq!(slots.renew(first), None);
        assert_eq!(slots.release(first), None);
        assert_eq!(slots.iter().collect::<Vec<_>>(), [(again, &"request")]);
        assert_eq!(slots.release(again), Some("request"));
        assert!(slots.has_free());
    }
}
