//! Room for large frames: the receive budget of an edge is shared, and whoever sits on a large part of it for long without
//! ending a frame loses the connection, not the one who comes with a large frame after that.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::api::connection::LargeFrame;
use crate::api::edge::EdgeState;
use crate::api::session::{Origin, Session};

/// Time for a large frame however small, and the least speed beyond that, bytes a second.
const FRAME_TIME: Duration = Duration::from_secs(10);
const FRAME_SPEED_MIN: f64 = (128 << 10) as f64;

/// How long what a cut connection holds may take to come back.
const RETURN_TIME: Duration = Duration::from_millis(500);

/// For the sweep: a large frame that comes too slowly ends its connection.
pub(super) fn check_frame(session: &Session, now: Instant) {
    let connection = &session.connection;
    let Some(frame) = connection.frame() else { return };
    // One that waits for its client to take answers does not receive.
    if session.origin == Origin::Client
        && !connection.is_closing()
        && !connection.is_paused()
        && now.saturating_duration_since(frame.since) > time_for(frame.held)
    {
        tracing::info!(
            session = session.key.get(),
            bytes = frame.held,
            "a connection is cut: its frame comes too slowly"
        );
        connection.cut();
    }
}

fn time_for(bytes: usize) -> Duration {
    FRAME_TIME + Duration::from_secs_f64(bytes as f64 / FRAME_SPEED_MIN)
}

/// Makes room for a frame of `session`: cuts the client that has had the most for the longest time, and waits until
/// that is given back. False when it is the session itself, or nobody can be cut: then that one is.
pub(super) async fn make_room(edge: &EdgeState, session: &Rc<Session>) -> bool {
    let holders = || -> Vec<(Rc<Session>, LargeFrame)> {
        let sessions = edge.sessions.borrow();
        let held = |session: &Rc<Session>| Some((Rc::clone(session), session.connection.frame()?));
        sessions.iter().filter_map(|(_, session)| held(session)).collect()
    };
    let all = holders();
    // What is on its way back already may do.
    let leaving = all.iter().find(|(holder, _)| holder.connection.is_closing());
    let now = Instant::now();
    let weight = |frame: &LargeFrame| frame.held as u128 * now.saturating_duration_since(frame.since).as_micros();
    let clients = all.iter().filter(|(holder, _)| holder.origin == Origin::Client);
    let heaviest = clients.max_by_key(|(_, frame)| weight(frame));
    let victim = leaving.or(heaviest).map_or(session, |(holder, _)| holder);
    if !victim.connection.is_closing() {
        let (session, bytes) = (victim.key.get(), victim.connection.frame().map_or(0, |frame| frame.held));
        tracing::info!(session, bytes, "a connection is cut: others need the room that its large frame takes");
        victim.connection.cut();
    }
    if Rc::ptr_eq(victim, session) {
        return false;
    }
    let until = now + RETURN_TIME;
    while victim.connection.frame().is_some() && Instant::now() < until {
        monoio::time::sleep(Duration::from_millis(2)).await;
    }
    true
}
