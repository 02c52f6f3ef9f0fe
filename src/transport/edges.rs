//! What goes to the edge threads and the control thread: collected during a turn, one wake-up each at its end.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::engine::{ControlOutput, EdgeMessage, Forwarded, Progress, Reply};
use crate::queue::Queue;

/// Items that wait for room in a full queue, in order.
#[derive(Debug)]
struct Outbox<T> {
    queue: Arc<Queue<T>>,
    /// Bounded by what the other side waits for: each reply and answer belongs to a request of it.
    backlog: VecDeque<T>,
    /// Something was pushed since the last wake-up.
    dirty: bool,
}

impl<T> Outbox<T> {
    fn new(queue: Arc<Queue<T>>) -> Outbox<T> {
        Outbox { queue, backlog: VecDeque::new(), dirty: false }
    }

    fn push(&mut self, item: T) {
        if self.backlog.is_empty() {
            match self.queue.push(item) {
                Ok(()) => self.dirty = true,
                Err(item) => self.backlog.push_back(item),
            }
        } else {
            self.backlog.push_back(item);
        }
    }

    fn flush(&mut self) {
        while let Some(item) = self.backlog.pop_front() {
            if let Err(item) = self.queue.push(item) {
                self.backlog.push_front(item);
                break;
            }
            self.dirty = true;
        }
        if std::mem::take(&mut self.dirty) {
            self.queue.wake();
        }
    }
}

/// The ways to everyone who hears from the log thread.
#[derive(Debug)]
pub(super) struct Outboxes {
    edges: Vec<Outbox<EdgeMessage>>,
    control: Outbox<ControlOutput>,
    /// The newest progress, while an edge has not been told of it.
    progress: Option<Progress>,
    /// It is told to everyone, whether they want to hear of it or not.
    is_urgent: bool,
    /// The edge that gets the next forward connection.
    next_edge: usize,
}

impl Outboxes {
    pub(super) fn new(edges: Vec<Arc<Queue<EdgeMessage>>>, control: Arc<Queue<ControlOutput>>) -> Outboxes {
        let edges = edges.into_iter().map(Outbox::new).collect();
        Outboxes { edges, control: Outbox::new(control), progress: None, is_urgent: false, next_edge: 0 }
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        let edge = self.edges.get_mut(usize::from(reply.ticket.edge));
        debug_assert!(edge.is_some(), "a ticket of an edge that does not exist: {:?}", reply.ticket);
        if let Some(edge) = edge {
            edge.push(EdgeMessage::Reply(reply));
        }
    }

    /// Only the newest progress counts: it is pushed at the turn's end. `is_urgent`: the log thread itself waits for the
    /// index.
    pub(super) fn progress(&mut self, progress: Progress, is_urgent: bool) {
        self.progress = Some(progress);
        self.is_urgent = is_urgent;
    }

    /// A change of view is only a hint: one that waits is enough.
    pub(super) fn control(&mut self, output: ControlOutput) {
        if output == ControlOutput::ViewChanged && self.control.backlog.contains(&output) {
            return;
        }
        self.control.push(output);
    }

    /// Hands a connection to the edges in turn; without edges it is closed.
    pub(super) fn forward(&mut self, connection: Forwarded) {
        if self.edges.is_empty() {
            return;
        }
        self.next_edge = (self.next_edge + 1) % self.edges.len();
        let edge = &mut self.edges[self.next_edge];
        // An edge that is so far behind serves nobody new: the other side finds its connection closed and tries again.
        if edge.backlog.is_empty() {
            edge.push(EdgeMessage::ForwardConnection(Box::new(connection)));
        }
    }

    /// True while something waits for room.
    pub(super) fn has_backlog(&self) -> bool {
        self.progress.is_some()
            || !self.control.backlog.is_empty()
            || self.edges.iter().any(|edge| !edge.backlog.is_empty())
    }

    /// Ends the turn: one wake-up for everyone who got something. The turn's positions are published by then.
    pub(super) fn flush(&mut self) {
        if let Some(progress) = self.progress.take() {
            for edge in &mut self.edges {
                // Whoever does not want to hear of it looks at the published position.
                if !self.is_urgent && !edge.queue.wants_hints() {
                    continue;
                }
                if edge.backlog.is_empty() && edge.queue.push(EdgeMessage::Progress(progress)).is_ok() {
                    edge.dirty = true;
                } else {
                    // The whole round is repeated: hearing of the same progress twice does no harm.
                    self.progress = Some(progress);
                }
            }
        }
        self.edges.iter_mut().for_each(Outbox::flush);
        self.control.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Answer, Ticket};
    use crate::types::LogPosition;

    fn reply(key: u64) -> Reply {
        Reply { ticket: Ticket { edge: 0, key }, answer: Answer::TooBusy, spare: None }
    }

    #[test]
    fn a_full_queue_keeps_the_order_and_loses_no_answer() {
        let queue = Arc::new(Queue::for_task(2));
        let mut outboxes = Outboxes::new(vec![Arc::clone(&queue)], Arc::new(Queue::for_task(1)));
        (0..5).for_each(|key| outboxes.reply(reply(key)));
        outboxes.progress(Progress { readable: LogPosition(8) }, false);
        outboxes.progress(Progress { readable: LogPosition(16) }, false);
        let mut keys = Vec::new();
        let mut progress = Vec::new();
        for _ in 0..5 {
            outboxes.flush();
            while let Some(message) = queue.pop() {
                match message {
                    EdgeMessage::Reply(reply) => keys.push(reply.ticket.key),
                    EdgeMessage::Progress(news) => progress.push(news.readable.0),
                    other => panic!("{other:?}"),
                }
            }
        }
        assert_eq!(keys, [0, 1, 2, 3, 4]);
        assert_eq!(progress, [16]);
        assert!(!outboxes.has_backlog());
    }

    #[test]
    fn an_edge_that_wants_no_progress_hears_of_none() {
        let queues = [1, 2].map(|_| Arc::new(Queue::for_task(2)));
        let mut outboxes = Outboxes::new(queues.to_vec(), Arc::new(Queue::for_task(1)));
        queues[0].want_hints(false);
        let mut told = |readable, is_urgent| {
            outboxes.progress(Progress { readable: LogPosition(readable) }, is_urgent);
            outboxes.flush();
            assert!(!outboxes.has_backlog());
            queues.each_ref().map(|queue| std::iter::from_fn(|| queue.pop()).count())
        };
        assert_eq!(told(8, false), [0, 1]);
        assert_eq!(told(16, true), [1, 1], "the log thread waits for the index");
        queues[0].want_hints(true);
        assert_eq!(told(24, false), [1, 1]);
    }

    #[test]
    fn one_waiting_hint_is_enough() {
        let queue = Arc::new(Queue::for_task(1));
        let mut outboxes = Outboxes::new(Vec::new(), Arc::clone(&queue));
        (0..100).for_each(|_| outboxes.control(ControlOutput::ViewChanged));
        assert_eq!(outboxes.control.backlog.len(), 1);
        assert_eq!(queue.len(), 1);
    }
}
