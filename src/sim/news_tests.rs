//! Goal: a follower learns soon what is committed, also the one that had not flushed it when it became so. Method: beats of
//! the heart so far apart that nothing can wait for them, and pauses between writes.

use super::*;
use crate::engine::Role;
use crate::sim::agenda::SECOND;
use crate::types::LogPosition;

/// A benign world of three nodes and one client.
fn quiet_world() -> World {
    let options = Options { nodes: Some(3), faulty: Duration::from_secs(3600), ..Options::default() };
    let mut world = (0..).map(|seed| World::new(seed, &options)).find(|world| world.profile.clones == 0).unwrap();
    world.profile.make_benign();
    world.profile.election_timeout = Duration::from_secs(10);
    world.profile.heartbeat_interval = Duration::from_secs(2);
    (world.profile.clients, world.profile.think) = (1, (20 * MILLISECOND, 100 * MILLISECOND));
    world
}

/// The end of the log when there is a leader and all nodes have made all of it durable, and whether all know that it is
/// committed.
fn end(world: &World) -> Option<(LogPosition, bool)> {
    let engines: Vec<_> = world.nodes.iter().filter_map(|node| node.engine.as_ref()).collect();
    let leader = engines.iter().find(|engine| engine.role() == Role::Leader)?;
    let end = leader.positions().0;
    let is_durable = engines.iter().all(|engine| (engine.positions().0, engine.positions().1) == (end, end));
    is_durable.then(|| (end, engines.iter().all(|engine| engine.positions().2 == end)))
}

#[test]
fn a_follower_learns_what_is_committed_before_the_next_heartbeat() {
    let mut world = quiet_world();
    world.begin();
    // The end of the log, since when it is durable everywhere, and whether all have heard that it is committed.
    let mut last = (LogPosition::ZERO, 0, true);
    let (mut count, mut longest) = (0, 0);
    while world.now < 120 * SECOND {
        let (at, event) = world.agenda.next().unwrap();
        world.now = at;
        world.handle(event);
        assert!(world.objection.is_none(), "{:?}", world.objection);
        let Some((end, is_known)) = end(&world) else { continue };
        if end != last.0 {
            assert!(last.2 || at - last.1 < 10 * MILLISECOND, "{last:?} was not heard of until {at}");
            last = (end, at, false);
        }
        if is_known && !last.2 {
            longest = longest.max(at - last.1);
            count += 1;
            last.2 = true;
        }
    }
    assert!(count > 100, "{count}");
    assert!(longest < 10 * MILLISECOND, "{longest} ns");
}
