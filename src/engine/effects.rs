//! Carries out what the replica decided.

use crate::codec::record::{EpochBody, Header, RecordKind, seal, sealed_length};
use crate::consensus::{Effect, Replica};
use crate::limits::RECORD_HEADER_BYTES;
use crate::types::{Epoch, Guid, LogPosition, NodeId, Term};

use super::action::{Action, BufferToken};
use super::core::{Engine, Unproven};
use super::feeds::Feed;
#[cfg(test)]
use super::scanner::Scanned;
use super::scanner::Scanner;
use super::{Answer, ControlOutput, Reply};
#[cfg(test)]
use crate::consensus::PlantedBug;

/// Room in the log buffer for an epoch and a member list, each with padding before it.
pub(super) const CONTROL_ROOM_BYTES: u64 = 2048;

impl Engine {
    /// Carries out effects in order. Carrying one out may run the replica again; what it then decides comes right
    /// behind.
    pub(super) fn carry_out(&mut self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            self.carry_out_one(effect);
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::SaveState { sequence, term, voted_for } => {
                self.state.term = term;
                self.state.voted_for = voted_for;
                self.save_for_replica(sequence);
            }
            Effect::Send { to, message } => self.send(to, message),
            Effect::RequestVote { to, pre, request } => self.control(ControlOutput::SendVote { to, pre, request }),
            Effect::AnswerVote { token, response } => self.control(ControlOutput::VoteAnswer { token, response }),
            Effect::RequestTransfer { to, request } => self.control(ControlOutput::SendTransfer { to, request }),
            Effect::Follow { leader } => self.actions.push(Action::ConnectControl { leader }),
            Effect::Unfollow => {
                self.scanner = None;
                self.actions.push(Action::CloseLeader);
            }
            Effect::Truncate { to } => self.truncate(to),
            Effect::OpenData { leader, subscription, start } => self.open_data(leader, subscription, start),
            Effect::Serve { follower, subscription, start } => {
                self.feeds.insert(follower, Feed::new(subscription, start));
            }
            Effect::DropFollower { follower } => {
                self.feeds.remove(&follower);
                self.actions.push(Action::CloseFollower { follower });
            }
            Effect::Lead { term } => self.lead(term),
            Effect::StepDown => self.step_down(),
            Effect::Commit { position } => self.committed(position),
            Effect::Confirmed { round } => self.confirmed(round),
            Effect::HandOver { to, reason } => {
                tracing::info!("handing leadership over to {to}: {reason}");
            }
            Effect::GiveUp { count } => tracing::warn!(
                "the small state waits to be saved for so long that the {count} messages which tell of it are given up, and \
                 the link to the leader with them: look at the disk of the data directory"
            ),
            Effect::Cleared => {
                tracing::info!(
                    "this node has all again that it can have acknowledged: it votes and stands like any other"
                );
                self.state.suspect = false;
                self.mark_state_dirty();
                self.view_dirty = true;
            }
            Effect::Changed => {
                self.view_dirty = true;
                self.finish_resignation();
                self.control(ControlOutput::ViewChanged);
            }
            Effect::Fatal { reason } => self.actions.push(Action::Fatal(reason)),
        }
    }

    fn truncate(&mut self, to: LogPosition) {
        self.scanner = None;
        self.truncating = true;
        self.cut_lists(to);
        self.log.restart_at(to, &mut self.actions);
    }

    fn open_data(&mut self, leader: NodeId, subscription: Guid, start: LogPosition) {
        // It may have waited for a save; meanwhile the subscription can have been given up.
        if !self.replica.as_ref().is_some_and(|replica| replica.accepts_data(subscription)) {
            return;
        }
        let last = self.replica.as_ref().and_then(|replica| replica.epochs().last());
        self.scanner = Some((subscription, Scanner::new(self.options.layout, start, last)));
        self.actions.push(Action::ConnectData { leader, subscription, start });
    }

    /// Elected: begin the term in the log, as soon as there is room.
    fn lead(&mut self, term: Term) {
        let Some(replica) = &self.replica else { return };
        let end = replica.log_end();
        self.scanner = None;
        self.log.restart_at(end, &mut self.actions);
        self.buffer_from = end;
        self.heads.clear();
        self.stopwatch.forget_appends();
        self.accept_from = None;
        self.accepting = false;
        self.epoch_due = true;
        tracing::info!(%term, position = %end, "elected leader");
        self.poll_epoch();
    }

    /// Begins the term in the log. Whoever led before and has not written all of that, or still sends it, waits: the
    /// records would go over it in the log buffer. Until then a leader commits nothing.
    pub(super) fn poll_epoch(&mut self) {
        if !self.epoch_due || self.buffer_room() < CONTROL_ROOM_BYTES {
            return;
        }
        self.epoch_due = false;
        let Some(replica) = &self.replica else { return };
        let previous = replica.epochs().last().map(|epoch| epoch.position);
        let epoch_id = Guid(self.random.u128(..).to_le_bytes());
        let body = EpochBody { epoch_id, leader: self.state.node, previous };
        self.append_control(RecordKind::Epoch, &body.encode(), Some(epoch_id));
        if !self.is_list_in_log
            && let Some(list) = self.list_to_write()
        {
            self.append_list(list);
        }
        self.accept_from = self.replica.as_ref().map(Replica::log_end);
    }

    /// Appends a record of the cluster's own, for which the caller has seen that there is room. Its chunk may be in the
    /// making yet: then it is written later.
    pub(super) fn append_control(&mut self, kind: RecordKind, body: &[u8], epoch_id: Option<Guid>) -> LogPosition {
        let length = sealed_length(body.len());
        // Padding before the epoch record is of the new term: the epoch begins with it, or two leaders' padding of one
        // chunk would pass for the same.
        let begin = self.replica.as_ref().map_or(LogPosition::ZERO, Replica::log_end);
        let (position, length) = self.place(length);
        let term = self.replica.as_ref().map_or(Term::ZERO, Replica::term);
        let bytes = self.buffer.slice_mut(position, length);
        bytes[RECORD_HEADER_BYTES..RECORD_HEADER_BYTES + body.len()].copy_from_slice(body);
        bytes[RECORD_HEADER_BYTES + body.len()..].fill(0);
        let timestamp = self.wall_clock;
        seal(bytes, Header { length: 0, crc: 0, position, term, kind, flags: 0, event_count: 0, timestamp });
        let end = position.plus(length as u64);
        let epoch = epoch_id.map(|id| Epoch { term, position: begin, id });
        if let Some(replica) = &mut self.replica {
            replica.handle_appended(end, epoch);
        }
        self.log.buffered(end);
        position
    }

    fn step_down(&mut self) {
        self.epoch_due = false;
        self.accepting = false;
        self.accept_from = None;
        self.heads.clear();
        self.stopwatch.forget_appends();
        self.abandon_change();
        for pending in std::mem::take(&mut self.pending) {
            // A write of this leader may survive in the next one's log, or not.
            let wrote = matches!(pending.reply.answer, Answer::Appended { .. });
            let answer = if wrote { Answer::Unknown } else { Answer::NotLeader };
            self.actions.push(Action::Reply(Reply { answer, ..pending.reply }));
        }
        self.refuse_unproven();
        for follower in std::mem::take(&mut self.feeds).into_keys() {
            self.actions.push(Action::CloseFollower { follower });
        }
        tracing::info!("leads no more");
    }

    fn committed(&mut self, position: LogPosition) {
        self.stopwatch.committed(position);
        self.finish_change(position);
        while self.pending.front().is_some_and(|pending| pending.end <= position) {
            let mut pending = self.pending.pop_front().expect("just seen");
            if let Answer::Appended { committed_at, .. } = &mut pending.reply.answer {
                *committed_at = self.stopwatch.now();
            }
            self.actions.push(Action::Reply(pending.reply));
        }
    }

    fn confirmed(&mut self, round: u64) {
        if self.barriers.round.take_if(|asked| *asked <= round).is_some() {
            self.answer_proven();
        }
    }

    /// Answers what waited for the proof that this node leads.
    pub(super) fn answer_proven(&mut self) {
        let committed = self.replica.as_ref().map_or(LogPosition::ZERO, Replica::commit_position);
        let mut proven = std::mem::take(&mut self.barriers.asked);
        for question in proven.drain(..) {
            match question {
                Unproven::Barrier(ticket) => self.reply(ticket, Answer::Confirmed { end: committed }),
                Unproven::Refusal { append, answer, end } => self.answer_when_committed(append, answer, end),
            }
        }
        self.barriers.asked = proven;
    }

    fn finish_resignation(&mut self) {
        let Some(token) = self.resign_token else {
            return;
        };
        let Some(replica) = &self.replica else { return };
        if !replica.is_leader() {
            self.resign_token = None;
            self.answer_control(token, Ok(()));
        } else if !replica.is_resigning() {
            self.resign_token = None;
            self.answer_control(token, Err("no follower took over in time; this node leads on".to_owned()));
        }
    }

    /// A follower's share of the log arrived.
    pub(super) fn take_data(&mut self, subscription: Guid, token: BufferToken, bytes: &[u8]) -> bool {
        let now = self.now;
        let Some((_, scanner)) = self.scanner.as_mut().filter(|(current, _)| *current == subscription) else {
            self.actions.push(Action::Release(token));
            return false;
        };
        let position = scanner.position();
        match scanner.scan(bytes) {
            Ok(scanned) => {
                #[cfg(test)]
                let scanned = match self.options.planted {
                    Some(PlantedBug::LostEpoch) => Scanned { epochs: Vec::new(), ..scanned },
                    _ => scanned,
                };
                if let Some(replica) = &mut self.replica {
                    replica.handle_data(now);
                    for (epoch, end) in &scanned.epochs {
                        replica.handle_appended(*end, Some(*epoch));
                    }
                    replica.handle_appended(scanned.record_end, None);
                    self.view_dirty |= !scanned.epochs.is_empty();
                }
                for (position, list) in scanned.lists {
                    self.take_list(position, list);
                }
                self.log.received(position, bytes.len(), scanned.record_end, token);
                true
            }
            Err(error) => {
                tracing::error!(%error, "the leader's data is not a log; subscribing again");
                self.scanner = None;
                self.actions.push(Action::Release(token));
                self.actions.push(Action::CloseLeader);
                if let Some(leader) = self.replica.as_ref().and_then(Replica::leader) {
                    self.handle_leader_link(leader, false);
                }
                true
            }
        }
    }
}
