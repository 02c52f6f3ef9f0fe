//! The engine's decisions become submissions, and what the ring brings back becomes the engine's inputs.

use std::sync::atomic::Ordering;

use crate::codec::link::Purpose;
use crate::engine::{Action, Answer, ControlOutput, Role, WriteSource};
use crate::ring::{Completion, Failure, Outcome, Source};
use crate::types::{Guid, LogPosition};

use super::connections::{Greeting, Stage};
use super::error::LogThreadError;
use super::files::FlushOrder;
use super::tag::{ConnectionId, Tag};
use super::thread::LogThread;

impl LogThread {
    /// Carries out what the engine has decided, in order, until it asks for nothing more.
    ///
    /// # Errors
    /// When there is no way on.
    pub(super) fn carry_out(&mut self) -> Result<(), LogThreadError> {
        let mut actions = std::mem::take(&mut self.actions);
        loop {
            self.engine.take_actions(&mut actions);
            if actions.is_empty() {
                self.actions = actions;
                return Ok(());
            }
            for action in actions.drain(..) {
                self.carry_out_one(action)?;
            }
        }
    }

    fn carry_out_one(&mut self, action: Action) -> Result<(), LogThreadError> {
        match action {
            Action::Write { id, position, length, source } => self.write(id, position, length, source)?,
            Action::Flush { id, first_chunk, last_chunk, durable_before, must_mark } => {
                let order = FlushOrder { id, first_chunk, last_chunk, durable_before, must_mark };
                let done = self.files.flush(&mut self.driver, self.now, order)?;
                self.flushed(done);
            }
            Action::Release(token) => self.files.tokens.release(token),
            Action::SaveState(state) => self.files.save_state(&mut self.driver, &state)?,
            Action::PrepareChunk(chunk) => self.prepare_chunk(chunk),
            Action::Send { peer, message } => self.say(peer, &message),
            Action::ConnectControl { leader } => {
                self.close_leader();
                self.open(leader, Purpose::Control, Guid::ZERO, LogPosition::ZERO);
            }
            Action::ConnectData { leader, subscription, start } => {
                if self.leader.as_ref().is_some_and(|links| links.node == leader) {
                    self.open(leader, Purpose::Data, subscription, start);
                }
            }
            Action::CloseLeader => self.close_leader(),
            Action::CloseFollower { follower } => {
                self.drop_follower(follower, "this node does not serve it (any more)")
            }
            Action::Reply(reply) => {
                self.appends += u64::from(matches!(reply.answer, Answer::Appended { .. }));
                self.outboxes.reply(reply);
            }
            Action::Progress(progress) => {
                // A new leader takes no write before the index has all that it inherited.
                self.outboxes.progress(progress, self.engine.role() == Role::PreLeader);
            }
            Action::Control(output) => self.control_output(output),
            Action::ViewChanged => self.publish_view(),
            Action::ClusterKnown(list) => {
                let members = list.members.len();
                match &self.cluster {
                    None => tracing::info!(cluster = %list.cluster, members, "this node belongs to a cluster"),
                    Some(known) if *known == list => {}
                    Some(_) => tracing::info!(members, "the cluster has another member list"),
                }
                self.cluster = Some(list);
            }
            Action::Fatal(reason) => return Err(LogThreadError::Consensus { reason }),
        }
        Ok(())
    }

    fn write(
        &mut self,
        id: u64,
        position: LogPosition,
        length: usize,
        source: WriteSource,
    ) -> Result<(), LogThreadError> {
        let source = match source {
            WriteSource::LogBuffer => {
                let length = u32::try_from(length).expect("a write is below 4 GiB");
                Source::Log(self.engine.buffer().window(position, length))
            }
            WriteSource::Received { token, offset } => self.files.tokens.part(token, offset, length),
            WriteSource::Zeros => Source::Owned(vec![0; length]),
        };
        self.files.write(&mut self.driver, id, position, source)
    }

    fn flushed(&mut self, done: Option<u64>) {
        if let Some(id) = done {
            self.published.counters.flushes.fetch_add(1, Ordering::Relaxed);
            self.engine.handle_flushed(id);
        }
    }

    fn control_output(&mut self, output: ControlOutput) {
        if let ControlOutput::SendVote { pre: false, request, .. } = &output
            && request.term > self.elections_term
        {
            self.elections_term = request.term;
            self.published.counters.elections.fetch_add(1, Ordering::Relaxed);
        }
        self.outboxes.control(output);
    }

    /// Sorts one outcome of the ring.
    ///
    /// # Errors
    /// When a write or flush failed, or something else that there is no way on from.
    pub(super) fn handle_completion(&mut self, completion: Completion) -> Result<(), LogThreadError> {
        let tag = Tag::unpack(completion.tag).expect("a tag that this thread made");
        match (tag, completion.outcome) {
            (Tag::Accept, Outcome::Accepted(accepted)) => self.handle_accepted(accepted),
            (Tag::Wake(waker), Outcome::Woken(_)) => self.woken(waker),
            (Tag::Connect(id), Outcome::Connected(result)) => self.handle_connected(id, result),
            (Tag::Send(id), outcome) => self.handle_send_outcome(id, outcome),
            (Tag::Receive(id), Outcome::Received { buffer, result }) => {
                return self.handle_received(id, buffer, result);
            }
            (Tag::Receive(id), Outcome::Streamed(slice)) => self.handle_streamed(id, slice),
            (Tag::Receive(id), Outcome::StreamEnded(result)) => self.handle_stream_ended(id, result),
            (Tag::ReadLog(id), Outcome::Read { buffer, result }) => self.handle_log_read(id, buffer, result),
            (Tag::Write(id), Outcome::Written { source, result }) => return self.handle_written(id, &source, result),
            (Tag::Mark(chunk), Outcome::Written { result, .. }) => {
                let done = self.files.mark_written(&mut self.driver, chunk, result)?;
                self.flushed(done);
            }
            (Tag::SyncChunk(chunk), Outcome::Synced(result)) => {
                let done = self.files.chunk_synced(chunk, result)?;
                self.flushed(done);
            }
            (Tag::WriteState, Outcome::Written { result, .. }) => {
                if let Some(sequence) = self.files.state_written(&mut self.driver, result)? {
                    self.engine.handle_state_saved(sequence);
                }
            }
            (Tag::SyncState, Outcome::Synced(result)) => {
                if let Some(sequence) = self.files.state_synced(&mut self.driver, result)? {
                    self.engine.handle_state_saved(sequence);
                }
            }
            (tag, outcome) => unreachable!("{outcome:?} for {tag:?}"),
        }
        Ok(())
    }

    fn handle_written(&mut self, id: u64, source: &Source, result: Result<(), Failure>) -> Result<(), LogThreadError> {
        let length = source.length() as usize;
        result.map_err(|failure| LogThreadError::Write { length, failure })?;
        self.published.counters.written_bytes.fetch_add(length as u64, Ordering::Relaxed);
        self.engine.handle_written(id);
        Ok(())
    }

    fn handle_send_outcome(&mut self, id: ConnectionId, outcome: Outcome) {
        match outcome {
            Outcome::Sent { source: Some(Source::Owned(bytes)), result } if self.is_tls(id) => {
                self.handle_sealed_sent(id, bytes, result);
            }
            Outcome::Sent { source: Some(Source::Owned(bytes)), result } => self.handle_owned_sent(id, bytes, result),
            Outcome::Sent { source: Some(Source::Log(window)), result } => {
                self.handle_log_sent(id, Some(window), result)
            }
            Outcome::Sent { source: None, result } => self.handle_log_sent(id, None, result),
            Outcome::SendReleased { source: Source::Log(window), copied } => {
                self.handle_send_released(id, &window, copied);
            }
            other => unreachable!("{other:?} for a send"),
        }
    }

    fn handle_received(
        &mut self,
        id: ConnectionId,
        buffer: Vec<u8>,
        result: Result<u32, Failure>,
    ) -> Result<(), LogThreadError> {
        let Some(connection) = self.connections.get(id) else { return Ok(()) };
        if connection.tls.is_some() {
            return self.handle_sealed(id, buffer, result);
        }
        match (&connection.stage, result) {
            (Stage::Control(_), result) => return self.handle_control_bytes(id, buffer, result),
            (Stage::Closing { .. }, _) => {}
            // A greeting begins with a letter.
            (Stage::Greeting(Greeting::Hello), Err(Failure::EndedEarly)) if buffer.first() == Some(&0) => {
                self.left_in_silence(id);
            }
            (_, Err(failure)) => self.broken(id, &failure.to_string()),
            (Stage::Greeting(_), Ok(_)) => self.handle_greeting(id, &buffer),
            (Stage::Opening(_), Ok(_)) => self.handle_welcome(id, &buffer),
            (Stage::DataOut(_), Ok(0)) => self.broken(id, "the peer closed it"),
            (Stage::DataOut(_) | Stage::DataIn(_), Ok(_)) => self.broken(id, "it sent what it must not send"),
        }
        Ok(())
    }
}
