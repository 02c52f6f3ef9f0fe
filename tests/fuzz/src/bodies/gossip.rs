//! JSON between nodes: gossip exchanges, and the bodies of votes.

use std::net::SocketAddr;
use std::time::Duration;

use ringstore::codec::record::{MemberRecord, MembershipBody};
use ringstore::consensus::{TransferRequest, VoteRequest, VoteResponse};
use ringstore::gossip::{
    Addresses, EXCHANGE_MAX_BYTES, Exchange, Gossip, GossipOptions, MemberState, Report, Standing, Step,
};
use ringstore::types::{ClusterId, Guid, NodeId, Term, Ticks, WallTime};
use serde::Serialize;
use serde::de::DeserializeOwned;

const WALL: WallTime = WallTime(637_135_310_456_780_000);
const CHUNK_SIZE: u64 = 1 << 20;
const NODES_MAX: usize = 64;

/// Each line is a body that another node sends: an exchange, or of a vote. The first byte says what this node is.
pub(super) fn exchanges(input: &[u8]) {
    let Some((&standing, bodies)) = input.split_first() else { return };
    let mut gossip = gossip(1, standing);
    for (index, body) in bodies.split(|byte| *byte == b'\n').take(16).enumerate() {
        same_again::<VoteRequest>(body);
        same_again::<VoteResponse>(body);
        same_again::<TransferRequest>(body);
        let Ok(exchange) = Exchange::parse(body) else { continue };
        assert_eq!(Exchange::parse(&exchange.encode()).as_ref().ok(), Some(&exchange));
        take(&mut gossip, at(index), &exchange);
    }
}

fn same_again<T: DeserializeOwned + Serialize + PartialEq + std::fmt::Debug>(body: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(body) {
        let text = serde_json::to_vec(&value).expect("it has a JSON form");
        assert_eq!(serde_json::from_slice::<T>(&text).ok(), Some(value));
    }
}

fn at(index: usize) -> Ticks {
    Ticks(3_600_000_000_000).after(Duration::from_millis(700) * u32::try_from(index).unwrap_or(0))
}

/// What the node does with an exchange, and what must hold then.
fn take(gossip: &mut Gossip, now: Ticks, exchange: &Exchange) {
    let before = gossip.nodes(now);
    if let Err(words) = gossip.handle_request(now, WALL, exchange) {
        assert!(!words.is_empty());
        assert_eq!(gossip.nodes(now), before, "a refused exchange changes nothing");
    }
    gossip.set_seeds(&[address(2, 2112), address(3, 2112)]);
    for called in gossip.poll_calls(now) {
        assert_ne!(called, address(1, 2112), "it does not call itself");
        gossip.handle_answer(now, WALL, called, exchange);
    }
    let standing = gossip.standing().clone();
    for step in gossip.poll_founding(now, ClusterId(Guid([77; 16]))) {
        if let Step::Accept(list) = step {
            assert_eq!(standing, Standing::Empty, "a list is accepted once");
            assert!(list.members.iter().any(|member| member.node == gossip.node()));
            gossip.handle_accepted(now, true);
        }
    }
    gossip.poll_notices();
    let _ = gossip.leader_hint(now);
    let nodes = gossip.nodes(now);
    assert!(nodes.len() <= NODES_MAX && nodes[0].node == gossip.node());
    assert!(nodes[1..].iter().all(|other| other.node != gossip.node()));
    let own = gossip.exchange(now).encode();
    assert!(own.len() <= EXCHANGE_MAX_BYTES && Exchange::parse(&own).is_ok(), "others understand it");
    let document: serde_json::Value = serde_json::from_str(&gossip.document(now).json()).expect("a JSON document");
    assert!(document["members"].as_array().is_some_and(|members| members.len() >= nodes.len()));
}

fn address(n: u8, port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, n], port))
}

fn record(n: u8) -> MemberRecord {
    MemberRecord { node: NodeId(Guid([n; 16])), int_ip: address(n, 0).ip(), int_tcp_port: 1112, int_http_port: 2112 }
}

fn gossip(n: u8, standing: u8) -> Gossip {
    let list = MembershipBody { cluster: ClusterId(Guid([5; 16])), members: (1..=3).map(record).collect() };
    let standing = match standing % 3 {
        0 => Standing::Empty,
        1 => Standing::Accepted(list),
        _ => Standing::Settled(list),
    };
    let addresses = Addresses {
        int_tcp: address(n, 1112),
        int_http: address(n, 2112),
        ext_tcp: address(n, 1113),
        ext_http: address(n, 2113),
        ext_secure_tcp: n.is_multiple_of(2).then(|| address(n, 1116)),
    };
    let options = GossipOptions {
        node: NodeId(Guid([n; 16])),
        instance: Guid([100 + n; 16]),
        cluster_size: 3,
        chunk_size: CHUNK_SIZE,
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

pub(super) fn exchanges_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for standing in 0..3 {
        let (mut two, mut three) = (gossip(2, standing), gossip(3, standing));
        let state = if standing == 2 { MemberState::Leader } else { MemberState::Follower };
        two.refresh(WALL, Report { state, term: Term(3), writer_checkpoint: 2155, ..Report::default() });
        let alone = three.exchange(at(1)).encode();
        let both = three.handle_request(at(1), WALL, &two.exchange(at(1)));
        both.expect("the two fit");
        let both = three.exchange(at(2)).encode();
        seeds.push([&[standing], &alone[..]].concat());
        seeds.push([&[standing], &two.exchange(at(1)).encode()[..], b"\n", &both].concat());
    }
    let (cluster, term) = (ClusterId(Guid([5; 16])), Term(4));
    let (candidate, voter, leader) = (NodeId(Guid([2; 16])), NodeId(Guid([3; 16])), NodeId(Guid([2; 16])));
    let request =
        VoteRequest { cluster, candidate, term, last_term: Term(3), log_end: 2155, transfer: false, is_suspect: true };
    let response = VoteResponse { voter, term, granted: true, leader: Some(leader), is_suspect: false };
    let transfer = TransferRequest { cluster, leader, term };
    let bodies = [serde_json::to_vec(&request), serde_json::to_vec(&response), serde_json::to_vec(&transfer)];
    let mut votes = vec![0];
    bodies.into_iter().for_each(|body| votes.extend([body.expect("it has a JSON form"), b"\n".to_vec()].concat()));
    seeds.push(votes);
    seeds
}
