//! What a completion means for its operation: done, to be continued, or more to come.

use std::os::fd::{FromRawFd, OwnedFd};

use io_uring::cqueue;

use super::buffers::Slice;
use super::driver::{Completion, Driver, Outcome};
use super::error::{Failure, completed};
use super::operation::{Operation, Work};

/// `IORING_NOTIF_USAGE_ZC_COPIED`, in the result of a zero-copy send's notification.
const COPIED: u32 = 1 << 31;

/// How an operation that moves bytes stands after a completion.
enum Moved {
    /// Everything was moved, or the end reached: so much in all.
    All(u32),
    /// A part: the rest is to be submitted.
    Part,
    /// It failed.
    Failed(Failure),
}

/// Adds a completion to `done`, of `length` bytes. A completion of 0 bytes is the end.
fn moved(done: &mut u32, length: u32, result: i32) -> Moved {
    match completed(result) {
        Err(Failure::Interrupted) => Moved::Part,
        Err(failure) => Moved::Failed(failure),
        Ok(0) => Moved::All(*done),
        Ok(count) => {
            *done += count;
            assert!(*done <= length, "{count} bytes moved to make {done} of {length}");
            if *done == length { Moved::All(length) } else { Moved::Part }
        }
    }
}

/// All or nothing: less than `length` is `otherwise`.
fn in_full(moved: u32, length: u32, otherwise: Failure) -> Result<(), Failure> {
    if moved == length { Ok(()) } else { Err(otherwise) }
}

impl Driver {
    /// Sorts one completion of the operation in `slot`.
    pub(super) fn complete(&mut self, slot: u32, result: i32, flags: u32, outcomes: &mut Vec<Completion>) {
        let operation = self.operations.get_mut(slot);
        let tag = operation.tag;
        let outcome = match operation.work {
            Work::Accept => self.complete_accept(slot, result, flags),
            Work::Stream { group } => return self.complete_stream(slot, group, result, flags, outcomes),
            Work::Send { .. } => return self.complete_send(slot, result, flags, outcomes),
            Work::Receive { .. } | Work::Read { .. } | Work::Write { .. } | Work::WriteGathered { .. } => {
                match self.complete_bytes(slot, result) {
                    Some(outcome) => outcome,
                    None => return,
                }
            }
            Work::Connect { .. } => {
                self.finish(slot);
                Outcome::Connected(completed(result).map(drop))
            }
            Work::Sync => {
                self.finish(slot);
                Outcome::Synced(completed(result).map(drop))
            }
            Work::Watch { .. } => {
                self.finish(slot);
                Outcome::Woken(completed(result).map(drop))
            }
        };
        outcomes.push(Completion { tag, outcome });
    }

    fn complete_accept(&mut self, slot: u32, result: i32, flags: u32) -> Outcome {
        let accepted = completed(result);
        if !cqueue::more(flags) {
            let file = self.operations.get_mut(slot).file;
            if accepted.is_ok() && !self.files.is_closing(file) {
                self.submit(slot);
            } else if accepted.is_ok() {
                // The connection is handed out; the end of the accept follows as an outcome of its own.
                let Operation { tag, .. } = self.finish(slot);
                let outcome = Outcome::Accepted(Err(Failure::Cancelled));
                self.own_outcomes.push(Completion { tag, outcome });
            } else {
                self.finish(slot);
            }
        }
        // SAFETY: the kernel made this descriptor for us just now; nobody else knows it.
        Outcome::Accepted(accepted.map(|_| unsafe { OwnedFd::from_raw_fd(result) }))
    }

    /// Receives, reads and writes: continued until all is moved.
    fn complete_bytes(&mut self, slot: u32, result: i32) -> Option<Outcome> {
        let state = match &mut self.operations.get_mut(slot).work {
            // Without `exact` any part is all.
            Work::Receive { exact: false, .. } => match completed(result) {
                Ok(count) => Moved::All(count),
                Err(failure) => Moved::Failed(failure),
            },
            Work::Receive { buffer, done, .. } | Work::Read { buffer, done, .. } => {
                moved(done, buffer.len() as u32, result)
            }
            Work::Write { source, zeros, done, .. } => moved(done, source.length() + *zeros, result),
            Work::WriteGathered { slices, done, .. } => moved(done, slices.iter().map(Slice::length).sum(), result),
            other => panic!("not an operation on bytes: {:?}", other.kind()),
        };
        let result = match state {
            Moved::Part if !self.is_closing(slot) => {
                self.submit(slot);
                return None;
            }
            Moved::Part => Err(Failure::Cancelled),
            Moved::All(count) => Ok(count),
            Moved::Failed(failure) => Err(failure),
        };
        Some(match self.finish(slot).work {
            Work::Receive { buffer, exact, .. } => {
                let length = buffer.len() as u32;
                let result = match result {
                    Ok(count) if exact => in_full(count, length, Failure::EndedEarly).map(|()| length),
                    other => other,
                };
                Outcome::Received { buffer, result }
            }
            Work::Read { buffer, .. } => Outcome::Read { buffer, result },
            Work::Write { source, zeros, .. } => {
                let length = source.length() + zeros;
                // A file that takes no bytes and gives no reason: nothing sane does that.
                let result = result.and_then(|count| in_full(count, length, Failure::InputOutput));
                Outcome::Written { source, result }
            }
            Work::WriteGathered { slices, .. } => {
                let length = slices.iter().map(Slice::length).sum();
                let result = result.and_then(|count| in_full(count, length, Failure::InputOutput));
                Outcome::WrittenGathered { slices, result }
            }
            other => panic!("not an operation on bytes: {:?}", other.kind()),
        })
    }

    fn is_closing(&mut self, slot: u32) -> bool {
        let file = self.operations.get_mut(slot).file;
        self.files.is_closing(file)
    }

    fn complete_stream(&mut self, slot: u32, group: u16, result: i32, flags: u32, outcomes: &mut Vec<Completion>) {
        let received = completed(result);
        let length = received.unwrap_or(0);
        let books = &mut self.groups[usize::from(group)];
        let slice = if books.is_single() {
            books.received_single(length)
        } else {
            cqueue::buffer_select(flags).and_then(|buffer| books.received(buffer, length, cqueue::buffer_more(flags)))
        };
        if let Some(slice) = slice {
            let tag = self.operations.get_mut(slot).tag;
            outcomes.push(Completion { tag, outcome: Outcome::Streamed(slice) });
        }
        if cqueue::more(flags) {
            return;
        }
        let goes_on = matches!(received, Ok(1..) | Err(Failure::NoBufferSpace | Failure::Interrupted));
        if goes_on && !self.is_closing(slot) {
            // At once, or as soon as a buffer has come back; never by a timer.
            return self.submit(slot);
        }
        let ended = match received {
            Ok(0) => Ok(()),
            Ok(_) => Err(Failure::Cancelled),
            Err(failure) => Err(failure),
        };
        let tag = self.finish(slot).tag;
        outcomes.push(Completion { tag, outcome: Outcome::StreamEnded(ended) });
    }

    fn complete_send(&mut self, slot: u32, result: i32, flags: u32, outcomes: &mut Vec<Completion>) {
        let closing = self.is_closing_send(slot);
        let Operation { tag, work: Work::Send { source, done, zero_copy }, .. } = self.operations.get_mut(slot) else {
            panic!("a send's completion for something else");
        };
        let tag = *tag;
        if cqueue::notif(flags) {
            let state = zero_copy.as_mut().expect("only zero-copy sends are notified");
            state.notifications -= 1;
            state.copied |= result.cast_unsigned() & COPIED != 0;
            return self.release_send(slot, outcomes);
        }
        let state = moved(done, source.length(), result);
        let result = match state {
            Moved::Part if !closing => {
                if let (Some(state), true) = (zero_copy, cqueue::more(flags)) {
                    state.notifications += 1;
                }
                return self.submit(slot);
            }
            Moved::Part => Err(Failure::Cancelled),
            Moved::All(count) => in_full(count, source.length(), Failure::BrokenPipe),
            Moved::Failed(failure) => Err(failure),
        };
        let Some(state) = zero_copy else {
            let Work::Send { source, .. } = self.finish(slot).work else { unreachable!("matched above") };
            outcomes.push(Completion { tag, outcome: Outcome::Sent { source: Some(source), result } });
            return;
        };
        state.notifications += u32::from(cqueue::more(flags));
        state.sent = true;
        let file = self.operations.get_mut(slot).file;
        // The bytes may still be in use, the descriptor is not.
        self.files.finish(file);
        outcomes.push(Completion { tag, outcome: Outcome::Sent { source: None, result } });
        self.release_send(slot, outcomes);
    }

    /// Hands the bytes of a zero-copy send back when it is over and its last notification was there.
    fn release_send(&mut self, slot: u32, outcomes: &mut Vec<Completion>) {
        let Work::Send { zero_copy: Some(state), .. } = &self.operations.get_mut(slot).work else {
            panic!("a notification for something else");
        };
        let copied = state.copied;
        if !state.sent || state.notifications > 0 {
            return;
        }
        let operation = self.operations.remove(slot);
        let Work::Send { source, .. } = operation.work else { unreachable!("matched above") };
        outcomes.push(Completion { tag: operation.tag, outcome: Outcome::SendReleased { source, copied } });
    }

    /// After its `Sent` a zero-copy send's file may be closed and gone; nothing is submitted on it any more.
    fn is_closing_send(&mut self, slot: u32) -> bool {
        match &self.operations.get_mut(slot).work {
            Work::Send { zero_copy: Some(state), .. } if state.sent => true,
            _ => self.is_closing(slot),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let mut done = 0;
        assert!(matches!(moved(&mut done, 10, 4), Moved::Part));
        assert!(matches!(moved(&mut done, 10, -libc::EINTR), Moved::Part));
        assert!(matches!(moved(&mut done, 10, 6), Moved::All(10)));
        let mut done = 3;
        assert!(matches!(moved(&mut done, 10, 0), Moved::All(3)));
        assert!(matches!(moved(&mut done, 10, -libc::EIO), Moved::Failed(Failure::InputOutput)));
        assert_eq!(in_full(3, 10, Failure::EndedEarly), Err(Failure::EndedEarly));
    }
}
