//! A client that subscribes to the whole log at one node, for ever, and checks the order of what it is told.

use std::time::{Duration, Instant};

use crate::support::client;
use crate::support::history::{History, Session};
use crate::support::known;
use crate::support::messages::ResolvedEvent;
use crate::support::watcher::STATE_LIMIT;
use crate::support::workload::Shared;

/// How long a connection may be silent: the server sends a heartbeat every two seconds.
const SILENCE: Duration = Duration::from_secs(6);

/// Subscribes at `node` again and again until it is told to end.
pub(crate) fn follow(shared: &Shared, node: usize) -> History {
    let mut history = History::default();
    while shared.follows() {
        if let Some(session) = session(shared, node) {
            history.sessions.push(session);
        }
        shared.followed(node, None);
        std::thread::sleep(Duration::from_millis(100));
    }
    history
}

fn session(shared: &Shared, node: usize) -> Option<Session> {
    let mut connection = client::Client::connect_as_admin(shared.watcher.tcp(node), STATE_LIMIT).ok()?;
    let confirmed = match connection.subscribe_to_all(Duration::from_secs(2)).ok()? {
        Ok(confirmed) => confirmed,
        Err(refusal) if refusal.may_be_repeated() => return None,
        Err(refusal) => {
            shared.watcher.wrong(&format!("subscribing at node {}: {refusal}", node + 1));
            return None;
        }
    };
    let mut session = Session { node, confirmed, positions: Vec::new(), is_open: false };
    shared.followed(node, Some((confirmed, confirmed)));
    let give_up = || !shared.follows();
    while let Ok(Some(event)) = connection.next_event(Instant::now() + SILENCE, &give_up) {
        let place = (event.commit_position, event.prepare_position);
        let last = session.positions.last().copied().unwrap_or((confirmed, i64::MAX));
        if place <= last {
            shared
                .watcher
                .wrong(&format!("the subscription at node {} was told of {place:?} after {last:?}", node + 1));
            return Some(session);
        }
        session.positions.push(place);
        if let Err(what) = enter(shared, &event) {
            shared.watcher.wrong(&format!("the subscription at node {}: {what}", node + 1));
        }
        shared.followed(node, Some(place));
    }
    session.is_open = give_up();
    Some(session)
}

/// Compares an event with what others have seen; those of the system are not ours to judge.
fn enter(shared: &Shared, entry: &ResolvedEvent) -> Result<(), String> {
    let Some(event) = &entry.event else { return Err("an entry without an event".to_owned()) };
    if event.stream.starts_with('$') {
        return Ok(());
    }
    let id = event.event_id.as_slice().try_into().map(u128::from_be_bytes).map_err(|_| "an id that is none")?;
    if !known::is_data_of(id, &event.data) {
        return Err(format!("{} holds other data than was written", known::name(id)));
    }
    let told = shared.known.enter(&event.stream, event.event_number, [id]);
    told.map_err(|what| format!("{}: {what}", event.stream))
}
