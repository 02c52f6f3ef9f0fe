//! What the records of the log say of the log itself: terms, epochs, the member list.

use crate::codec::record::{EpochBody, Header, MembershipRecord, RecordKind};
use crate::types::{Epoch, Guid, LogPosition, Term};

use super::footer::ChunkFooter;

/// Gathered record by record, or chunk by chunk from footers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LogFacts {
    /// Term of the last record.
    pub(super) term: Term,
    /// The epochs, oldest first; terms ascend.
    pub(super) epochs: Vec<Epoch>,
    /// The last member list and where its record lies; without the list where only a footer told of it.
    pub(super) membership: Option<(LogPosition, Option<MembershipRecord>)>,
    /// True when nothing of the log is missing before: only then can be told what a term may begin with.
    is_from_start: bool,
}

impl LogFacts {
    /// Those of a log that is gone over from its first record on.
    pub(super) fn from_start() -> LogFacts {
        LogFacts { is_from_start: true, ..LogFacts::default() }
    }

    /// Those of a piece of the log behind a record of `term`; zero when that is not known.
    pub(super) fn behind(term: Term) -> LogFacts {
        LogFacts { term, ..LogFacts::default() }
    }

    /// True for records whose body [`LogFacts::take`] wants.
    pub(super) fn wants_body(header: &Header) -> bool {
        matches!(header.kind, RecordKind::Epoch | RecordKind::Membership)
    }

    /// Takes note of a record whose checksum is good; `body` may be empty unless it is wanted.
    ///
    /// # Errors
    /// Why the record cannot follow those before it; nothing is noted then.
    pub(super) fn take(&mut self, header: &Header, body: &[u8]) -> Result<(), String> {
        if header.term < self.term {
            // A stale record of a deposed leader may lie right behind the end.
            return Err(format!("a record of term {} behind one of term {}", header.term, self.term));
        }
        self.check_begun(header)?;
        match header.kind {
            RecordKind::Membership => {
                // Behind it lies what filled the chunk up; the follower keeps no more either.
                let body = &body[..body.len().min(MembershipRecord::MAX_BYTES)];
                let list = MembershipRecord::decode(body).ok_or("a member list that cannot be read")?;
                self.membership = Some((header.position, Some(list)));
            }
            RecordKind::Epoch => {
                let epoch = EpochBody::decode(body).ok_or("an epoch that cannot be read")?;
                if epoch.epoch_id.is_zero() {
                    return Err(format!("epoch {} without an identifier", header.term));
                }
                self.begin(Epoch { term: header.term, position: header.position, id: epoch.epoch_id })?;
            }
            // The epoch record of this term did not fit the chunk: the epoch begins here all the same.
            RecordKind::Padding if header.term > self.term => {
                self.epochs.push(Epoch { term: header.term, position: header.position, id: Guid::ZERO });
            }
            _ => {}
        }
        self.term = header.term;
        Ok(())
    }

    /// A leader writes in a term above zero, and nothing in it before its epoch but the padding that makes the epoch begin
    /// the next chunk. The follower's scanner holds the same against its leader.
    fn check_begun(&self, header: &Header) -> Result<(), String> {
        if !self.is_from_start {
            return Ok(());
        }
        let is_begun = self.epochs.last().is_some_and(|last| last.term == header.term && !last.id.is_zero());
        let may_begin = matches!(header.kind, RecordKind::Epoch | RecordKind::Padding);
        if header.term == Term::ZERO || !(is_begun || may_begin) {
            return Err(format!("a record of term {}, which no epoch has begun", header.term));
        }
        Ok(())
    }

    /// Takes over what the footer of the next chunk says.
    ///
    /// # Errors
    /// Why the chunk cannot follow those before it; nothing is noted then.
    pub(super) fn join(&mut self, footer: &ChunkFooter) -> Result<(), String> {
        if footer.first_term < self.term || footer.last_term < footer.first_term {
            let ChunkFooter { first_term, last_term, .. } = footer;
            return Err(format!("its terms {first_term} to {last_term} stand behind term {}", self.term));
        }
        let before = self.epochs.clone();
        for epoch in &footer.epochs {
            if let Err(reason) = self.begin(*epoch) {
                self.epochs = before;
                return Err(reason);
            }
        }
        if self.is_from_start && self.epochs.last().is_none_or(|last| last.term != footer.last_term) {
            self.epochs = before;
            return Err(format!("its last term is {}, which no epoch has begun", footer.last_term));
        }
        self.term = footer.last_term;
        if let Some(position) = footer.membership {
            self.membership = Some((position, None));
        }
        Ok(())
    }

    /// An epoch begins, or the identifier comes of one whose padding was all there was.
    fn begin(&mut self, epoch: Epoch) -> Result<(), String> {
        match self.epochs.last_mut() {
            Some(last) if last.term == epoch.term && last.id.is_zero() => last.id = epoch.id,
            Some(last) if last.term >= epoch.term => {
                return Err(format!("epoch {} behind epoch {}", epoch.term, last.term));
            }
            _ => self.epochs.push(epoch),
        }
        Ok(())
    }
}
