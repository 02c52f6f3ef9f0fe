//! Which requests a node takes in which state.

use crate::engine::Role;

/// The kinds of request that the states tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RequestClass {
    /// A read that any node may answer, or with `true` only the leader.
    Read {
        /// The client asks for the leader.
        require_leader: bool,
    },
    /// Subscribe or unsubscribe.
    Subscription,
    /// Anything that changes the log.
    Write {
        /// The client refuses to be forwarded.
        require_leader: bool,
    },
}

/// What to do with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    /// Serve it here.
    Serve,
    /// Serve it here, once the cluster has confirmed that this node still leads.
    ServeConfirmed,
    /// Send it to the leader and bring the answer back.
    Forward,
    /// Not now: `NotHandled`, not ready.
    NotReady,
    /// Only the leader does this: `NotHandled`, with its addresses.
    NotLeader,
}

/// The table.
pub(super) fn gate(role: Role, class: RequestClass) -> Gate {
    use RequestClass::{Read, Subscription, Write};
    match role {
        Role::Initializing | Role::PreLeader | Role::ShuttingDown => Gate::NotReady,
        Role::Unknown => match class {
            Read { require_leader: false } | Subscription => Gate::Serve,
            Read { require_leader: true } | Write { .. } => Gate::NotReady,
        },
        Role::PreReplica | Role::CatchingUp | Role::Clone | Role::Follower => match class {
            Read { require_leader: false } | Subscription => Gate::Serve,
            Write { require_leader: false } => Gate::Forward,
            Read { require_leader: true } | Write { require_leader: true } => Gate::NotLeader,
        },
        Role::Leader | Role::ResigningLeader => match class {
            Read { require_leader: true } => Gate::ServeConfirmed,
            Read { require_leader: false } | Subscription => Gate::Serve,
            // Another node leads in a moment: the client tries again.
            Write { .. } if role == Role::ResigningLeader => Gate::NotReady,
            Write { .. } => Gate::Serve,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_answers_as_the_protocol_says() {
        let read = RequestClass::Read { require_leader: false };
        let sure_read = RequestClass::Read { require_leader: true };
        let write = RequestClass::Write { require_leader: false };
        let sure_write = RequestClass::Write { require_leader: true };
        let check = |role, expected: [Gate; 5]| {
            let classes = [read, sure_read, RequestClass::Subscription, write, sure_write];
            assert_eq!(classes.map(|class| gate(role, class)), expected, "{role:?}");
        };
        use Gate::{Forward, NotLeader, NotReady, Serve, ServeConfirmed};
        for role in [Role::Initializing, Role::PreLeader, Role::ShuttingDown] {
            check(role, [NotReady; 5]);
        }
        check(Role::Unknown, [Serve, NotReady, Serve, NotReady, NotReady]);
        for role in [Role::PreReplica, Role::CatchingUp, Role::Clone, Role::Follower] {
            check(role, [Serve, NotLeader, Serve, Forward, NotLeader]);
        }
        check(Role::Leader, [Serve, ServeConfirmed, Serve, Serve, Serve]);
        check(Role::ResigningLeader, [Serve, ServeConfirmed, Serve, NotReady, NotReady]);
    }
}
