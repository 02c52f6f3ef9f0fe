//! Rounds, news, strangers and what reaches the next node, by a clock that is counted.

use super::*;
use crate::gossip::MemberState;
use crate::gossip::table::tests::member;

const WALL: WallTime = WallTime(637_135_310_456_780_000);

fn at(millis: u64) -> Ticks {
    Ticks(3_600_000_000_000).after(Duration::from_millis(millis))
}

fn gossip(n: u8, standing: Standing) -> Gossip {
    let Member { node, instance, addresses, .. } = member(n);
    let options = GossipOptions {
        node,
        instance,
        cluster_size: 3,
        chunk_size: 1 << 20,
        addresses,
        ext_advertise: Vec::new(),
        priority: 0,
        read_only: false,
        interval: Duration::from_secs(1),
        allowed_difference: Duration::from_secs(60),
        standing,
        random_seed: 7,
    };
    Gossip::new(options, at(0), WALL)
}

fn settled(n: u8) -> Gossip {
    gossip(n, Standing::Settled(member(1).membership.unwrap()))
}

fn address(n: u8) -> SocketAddr {
    member(n).addresses.int_http
}

/// An exchange in which node `n` tells about itself only.
fn from(n: u8, change: impl FnOnce(&mut Member)) -> Exchange {
    let mut member = member(n);
    member.membership = super::tests::member(1).membership;
    change(&mut member);
    Exchange::new(member.node, member.instance, vec![Relayed { heard_ms_ago: 0, member }])
}

#[test]
fn rounds_are_quick_at_first_and_go_to_one_partner() {
    let mut gossip = settled(1);
    gossip.set_seeds(&[address(1), address(2), address(3), address(2)]);
    let (mut rounds, mut partners) = (Vec::new(), BTreeSet::new());
    for millis in 0..10_000 {
        let calls = gossip.poll_calls(at(millis));
        assert!(calls.len() <= 1);
        for call in calls {
            rounds.push(millis);
            partners.insert(call);
            gossip.handle_failure(at(millis), call, None);
        }
    }
    assert_eq!(rounds[..3], [0, 100, 200]);
    assert_eq!(rounds[18..22], [1800, 1900, 2900, 3900]);
    assert_eq!(partners.into_iter().collect::<Vec<_>>(), [address(2), address(3)], "all but the node itself");
}

#[test]
fn news_go_to_all_and_once_more_where_a_call_is_under_way() {
    let mut gossip = settled(1);
    gossip.set_seeds(&[address(2), address(3)]);
    let first = gossip.poll_calls(at(0));
    gossip.spread();
    let rest = gossip.poll_calls(at(1));
    assert_eq!((first.len(), rest.len()), (1, 1));
    assert_ne!(first, rest);
    assert!(gossip.poll_calls(at(2)).is_empty());
    gossip.handle_failure(at(3), first[0], None);
    assert_eq!(gossip.poll_calls(at(3)), first, "again, with the news");
}

#[test]
fn any_node_tells_clients_by_the_rules_of_all() {
    let mut gossip = settled(1);
    let rule = |network: &str, address: &str| AddressRule {
        network: network.parse().unwrap(),
        address: address.parse().unwrap(),
    };
    let ruled = from(2, |member| member.ext_advertise = vec![rule("10.1.0.0/16", "10.1.0.2")]);
    gossip.handle_request(at(0), WALL, &Exchange::parse(&ruled.encode()).unwrap()).unwrap();
    let directory = crate::gossip::Directory::default();
    directory.replace(gossip.nodes(at(1)), gossip.document(at(1)));
    let check = |client: &str, expected: &str| {
        let client = client.parse().unwrap();
        let told = directory.addresses_for(member(2).node, Some(client)).unwrap();
        assert_eq!((told.ext_tcp.to_string(), told.int_tcp), (format!("{expected}:1113"), member(2).addresses.int_tcp));
        let line = format!("\"externalTcpIp\": \"{expected}\"");
        assert!(directory.document().for_client(client).contains(&line), "{client}");
    };
    check("10.1.3.4", "10.1.0.2");
    check("10.2.3.4", "127.0.0.2");
    assert_eq!(directory.addresses_for(member(2).node, None), Some(member(2).addresses));
    assert_eq!(directory.addresses_for(member(3).node, None), None);
}

#[test]
fn a_seed_is_shown_until_it_answers() {
    let mut gossip = settled(1);
    let seed: SocketAddr = "10.9.9.9:30777".parse().unwrap();
    gossip.set_seeds(&[seed]);
    let shown = |gossip: &Gossip| {
        let document: serde_json::Value = serde_json::from_str(&gossip.document(at(1)).json()).unwrap();
        let members = document["members"].as_array().unwrap().clone();
        members.iter().map(|m| (m["state"].as_str().unwrap().to_owned(), m["isAlive"] == true)).collect::<Vec<_>>()
    };
    let own = ("Initializing".to_owned(), true);
    assert_eq!(shown(&gossip), [own.clone(), ("Manager".to_owned(), true)]);
    gossip.poll_calls(at(0));
    gossip.handle_failure(at(1), seed, None);
    assert_eq!(shown(&gossip), [own.clone(), ("Manager".to_owned(), false)]);
    gossip.handle_answer(at(1), WALL, seed, &from(2, |_| ()));
    assert_eq!(shown(&gossip), [("Slave".to_owned(), true), own]);
    assert_eq!(gossip.targets(), [address(2)], "the seed is that node");
}

#[test]
fn a_seed_that_leads_back_is_no_partner() {
    let mut gossip = settled(1);
    let alias: SocketAddr = "10.9.9.9:2112".parse().unwrap();
    gossip.set_seeds(&[alias]);
    let own = gossip.exchange(at(0));
    gossip.handle_request(at(0), WALL, &own).unwrap();
    gossip.handle_answer(at(0), WALL, alias, &own);
    assert!(gossip.targets().is_empty());
    assert!(gossip.poll_notices().is_empty());
}

#[test]
fn strangers_are_refused_and_named_once() {
    let check = |exchange: Exchange, expected: &str| {
        let mut gossip = settled(1);
        for _ in 0..3 {
            let words = gossip.handle_request(at(0), WALL, &exchange).unwrap_err();
            assert!(words.contains(expected), "{words}");
        }
        assert_eq!(gossip.poll_notices().len(), 1);
        assert_eq!(gossip.nodes(at(0)).len(), 1, "nothing was taken");
    };
    check(from(2, |m| m.chunk_size = 1), "ChunkSize 1");
    check(from(2, |m| m.membership.as_mut().unwrap().cluster = ClusterId(Guid([66; 16]))), "belongs to cluster");
    check(from(2, |m| (m.membership, m.cluster_size) = (None, 5)), "ClusterSize 5");
    check(from(1, |m| m.instance = Guid([66; 16])), "data directory was copied");
    let mut gossip = settled(1);
    gossip.handle_request(at(0), WALL, &from(2, |m| m.cluster_size = 5)).unwrap();
    assert_eq!(gossip.nodes(at(0)).len(), 2, "founded: the option says nothing any more");
}

#[test]
fn a_clock_that_differs_is_only_a_warning() {
    let mut gossip = settled(1);
    let late = WallTime(WALL.0 + 61 * 10_000_000);
    for version in 1..4 {
        gossip.handle_request(at(0), late, &from(2, |m| m.version = version)).unwrap();
    }
    let notices = gossip.poll_notices();
    assert_eq!(notices.len(), 1, "{notices:?}");
    assert!(notices[0].contains("GossipAllowedDifferenceMs"));
    assert!(gossip.nodes(at(0))[1].is_alive);
}

#[test]
fn what_one_node_hears_reaches_the_next() {
    let (mut a, mut b) = (settled(1), settled(2));
    a.handle_request(at(0), WALL, &from(3, |m| m.report.state = MemberState::Leader)).unwrap();
    b.handle_request(at(100), WALL, &a.exchange(at(100))).unwrap();
    assert_eq!(b.address_of(member(3).node), Some(address(3)));
    assert_eq!(b.nodes(at(4_000)).iter().filter(|known| known.is_alive).count(), 3);
    // Node 3 was last heard of at 0, wherever that word has been since.
    assert_eq!(b.nodes(at(5_050)).iter().filter(|known| known.is_alive).count(), 2);
    assert_eq!(b.address_of(NodeId(Guid([9; 16]))), None);
}
