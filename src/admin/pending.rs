//! Requests that wait for the log thread's answer.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::Duration;

use crate::consensus::VoteResponse;

/// What the log thread answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Vote(VoteResponse),
    Done(Result<(), String>),
}

#[derive(Debug, Default)]
struct Slot {
    answer: Option<Answered>,
    waker: Option<Waker>,
}

/// The waiting requests by token. Lives on the control thread.
#[derive(Debug, Default)]
pub(super) struct Pending {
    slots: RefCell<BTreeMap<u64, Slot>>,
    last: Cell<u64>,
}

/// A waiting request; forgotten when dropped.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    pending: &'a Pending,
    pub(super) token: u64,
}

impl Pending {
    /// Opens a slot under a new token.
    pub(super) fn open(&self) -> Wait<'_> {
        let token = self.last.get() + 1;
        self.last.set(token);
        self.slots.borrow_mut().insert(token, Slot::default());
        Wait { pending: self, token }
    }

    /// Fills the slot; nothing happens when nobody waits any more.
    pub(super) fn answer(&self, token: u64, answer: Answered) {
        let mut slots = self.slots.borrow_mut();
        if let Some(slot) = slots.get_mut(&token) {
            slot.answer = Some(answer);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Wait<'_> {
    /// Waits for the answer; `None` when the time is up.
    pub(super) async fn answer(self, limit: Duration) -> Option<Answered> {
        let answered = poll_fn(|context| {
            let mut slots = self.pending.slots.borrow_mut();
            let slot = slots.get_mut(&self.token).expect("an open slot stays until the wait is dropped");
            match slot.answer.take() {
                Some(answer) => Poll::Ready(answer),
                None => {
                    slot.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        });
        monoio::time::timeout(limit, answered).await.ok()
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.pending.slots.borrow_mut().remove(&self.token);
    }
}
