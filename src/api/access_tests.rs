//! Who may do what: defaults, and access lists from stream metadata.

use super::*;
use crate::api::test_log::{TestLog, user};

const READ: Action = Action::Read;
const WRITE: Action = Action::Write;
const DELETE: Action = Action::Delete;

/// Checks who of anonymous, ops and admin may do `action`.
fn check(log: &TestLog, action: Action, stream: &str, wanted: [bool; 3]) {
    let who = [Identity::Anonymous, user("ops"), user("admin")];
    let found = who.map(|identity| is_allowed(&log.index, &identity, action, stream));
    assert_eq!(found.map(Result::unwrap), wanted, "{action:?} {stream}");
    let system = is_allowed(&log.index, &Identity::System, action, stream);
    assert_eq!(system, Ok(wanted[2]), "{action:?} {stream} as the system");
}

#[test]
fn defaults() {
    let log = TestLog::new();
    for action in [READ, WRITE, DELETE] {
        check(&log, action, "orders", [true; 3]);
        check(&log, action, "$system", [false, false, true]);
    }
    check(&log, READ, "$$orders", [true; 3]);
    check(&log, WRITE, "$$orders", [true; 3]);
    check(&log, READ, "$$$system", [false, false, true]);
    check(&log, WRITE, "$$$system", [false, false, true]);
    check(&log, READ, "$all", [false, false, true]);
}

#[test]
fn what_nobody_may_do() {
    let log = TestLog::new();
    check(&log, WRITE, "$all", [false; 3]);
    check(&log, DELETE, "$all", [false; 3]);
    check(&log, DELETE, "$$orders", [false; 3]);
    check(&log, WRITE, "$$$$orders", [false; 3]);
}

#[test]
fn the_list_of_the_stream_decides_each_right_on_its_own() {
    let mut log = TestLog::new();
    let acl = "{\"$acl\":{\"$r\":\"ops\",\"$w\":[\"x\",\"$ops\"],\"$d\":[],\"$mr\":\"$all\",\"$mw\":\"$admins\"}}";
    for stream in ["orders", "$system"] {
        log.metadata(stream, acl);
        check(&log, READ, stream, [false, true, true]);
        check(&log, WRITE, stream, [false, true, true]);
        check(&log, DELETE, stream, [false, false, true]);
        check(&log, READ, &format!("$${stream}"), [true; 3]);
        check(&log, WRITE, &format!("$${stream}"), [false, false, true]);
    }
    log.metadata("orders", "{\"$acl\":{\"$w\":\"$admins\"}}");
    check(&log, READ, "orders", [true; 3]);
    check(&log, WRITE, "orders", [false, false, true]);
    log.metadata("$system", "{\"$acl\":{\"$r\":\"$all\"}}");
    check(&log, READ, "$system", [true; 3]);
    check(&log, WRITE, "$system", [false, false, true]);
    log.metadata("$all", "{\"$acl\":{\"$r\":\"$all\",\"$w\":\"$all\",\"$d\":\"$all\"}}");
    check(&log, READ, "$all", [true; 3]);
    check(&log, WRITE, "$all", [false; 3]);
}
