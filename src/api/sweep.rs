//! One timer for all connections and waiting requests of an edge: heartbeats, requests that took too long, connections
//! that will not close. Late requests are looked for each time, the connections in parts: thousands of them at once would
//! be a pause for everyone.

use std::rc::Rc;
use std::time::Duration;

use crate::api::edge::EdgeState;
use crate::api::forward;
use crate::api::room;
use crate::api::work;

/// How exact the times of requests are.
const PERIOD: Duration = Duration::from_millis(50);

/// The connections are looked at in so many parts, one a period: how exact their times are.
const PARTS: usize = 4;

/// Runs as long as the edge.
pub(super) async fn run(edge: Rc<EdgeState>) {
    let mut place = 0;
    loop {
        monoio::time::sleep(PERIOD).await;
        edge.begin_turn();
        let now = edge.now();
        place = check_sessions(&edge, place);
        forward::check_link(&edge, now);
        // In two steps: answering changes the table.
        let late = edge.pending.borrow_mut().late(now);
        for key in late {
            work::time_out(&edge, key);
        }
        edge.tell_figures();
    }
}

/// Looks at the next part of the connections, from `place` in the table on. Gives where the part after it begins.
fn check_sessions(edge: &EdgeState, place: usize) -> usize {
    let now = edge.now();
    let places = edge.sessions.borrow().places();
    let part = places.div_ceil(PARTS);
    for place in place..(place + part).min(places) {
        // Not borrowed meanwhile: what is done here may change the table.
        let session = edge.sessions.borrow().at(place).cloned();
        if let Some(session) = session {
            session.check_heartbeat(now);
            room::check_frame(&session, now);
            session.connection.enforce_close(now);
        }
    }
    if place + part >= places { 0 } else { place + part }
}
