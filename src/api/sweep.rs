//! The one timer of an edge: heartbeats, requests that took too long, connections that will not close.

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::api::edge::EdgeState;
use crate::api::forward;
use crate::api::room;
use crate::api::work;

/// How exact the edge's times are.
const PERIOD: Duration = Duration::from_millis(50);

/// Runs as long as the edge.
pub(super) async fn run(edge: Rc<EdgeState>) {
    loop {
        monoio::time::sleep(PERIOD).await;
        let now = Instant::now();
        let sessions: Vec<_> = edge.sessions.borrow().iter().map(|(_, session)| Rc::clone(session)).collect();
        for session in sessions {
            session.check_heartbeat(now);
            room::check_frame(&session, now);
            session.connection.enforce_close(now);
        }
        forward::check_link(&edge, now);
        // In two steps: answering changes the table.
        let late = edge.pending.borrow().keys(|waiting| waiting.deadline <= now);
        for key in late {
            work::time_out(&edge, key);
        }
    }
}
