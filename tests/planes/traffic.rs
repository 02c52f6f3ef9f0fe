//! What goes over which wires while clients write through a follower.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::Arguments;
use crate::capture::{self, Capture, Frame, Seen};
use crate::counters::Counters;
use crate::house::{CLIENTS, House, NODES};
use crate::load::{self, Sent};
use crate::support::keys::Lock;
use crate::support::wait_until;
use crate::support::wires::{self, Plane, Wires};

/// Clients' connections.
const THREADS: u64 = 8;

/// The external side may carry so much more than the clients' data, and so many bytes beside: heads, acknowledgements,
/// answers, the questions of this test.
const OVERHEAD: f64 = 1.1;
const SLACK_BYTES: u64 = 1 << 20;

/// What counters that are not read in one moment may differ by.
const COUNTERS_APART_BYTES: u64 = 64 << 10;

/// Each byte is forwarded once and replicated twice.
const INTERNAL_COPIES: f64 = 3.0;

/// Ports that only nodes speak on.
const INTERNAL_PORTS: [u16; 2] = [1112, 2112];

/// A host that is not there.
const NOBODY: usize = 249;

/// Runs it.
pub(crate) fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<()> {
    capture::self_test().context("the capture's judgement")?;
    let lock = arguments.lock();
    let house = House::start(folder, lock, &[])?;
    let leader = house.cluster.leader()?;
    let follower = (leader + 1) % NODES;
    let wires = &house.wires;
    let nodes = |plane| (0..NODES).map(|index| wires.address(plane, index)).collect::<Vec<_>>();
    planted(wires, &nodes(Plane::External), &nodes(Plane::Internal)).context("the capture itself")?;
    let external = Capture::start(&wires.hub(Plane::External), external_judge(nodes(Plane::External)))?;
    let internal = Capture::start(&wires.hub(Plane::Internal), internal_judge(nodes(Plane::Internal)))?;
    let hosts: Vec<usize> = (0..NODES).collect();
    let read = || -> anyhow::Result<(Counters, Counters)> {
        let all: Vec<usize> = hosts.iter().copied().chain([CLIENTS]).collect();
        Ok((Counters::read(wires, Plane::External, &all)?, Counters::read(wires, Plane::Internal, &hosts)?))
    };
    let before = read()?;
    let sent = load::fill(house.cluster.nodes[follower].ext_tcp(), arguments.mib, THREADS, arguments.seed as u32)?;
    house.cluster.wait_until_even()?;
    let after = read()?;
    let found = Found {
        sent,
        outside: after.0.since(&before.0),
        inside: after.1.since(&before.1),
        seen_outside: external.stop()?,
        seen_inside: internal.stop()?,
    };
    ensure!(house.cluster.leader()? == leader, "the leader changed: this is no measurement of forwarding");
    found.print(lock, leader, follower);
    found.judge()
}

/// What was counted and seen.
struct Found {
    sent: Sent,
    outside: Counters,
    inside: Counters,
    seen_outside: Seen,
    seen_inside: Seen,
}

impl Found {
    /// Bytes on the external side: from clients, to clients, and of nodes that no client received.
    fn external(&self) -> (u64, u64, u64) {
        let clients = self.outside.of(CLIENTS);
        let between = self.outside.sent_by(0..NODES).saturating_sub(clients.to_host);
        (clients.from_host, clients.to_host, between)
    }

    fn print(&self, lock: Lock, leader: usize, follower: usize) {
        let ((asked, answered, between), internal) = (self.external(), self.inside.sent_by(0..NODES));
        let (sent, payload) = (self.sent, self.sent.payload as f64);
        println!(
            "result mode=traffic lock={} payload_bytes={} writes={} repeated={} seconds={:.1} mib_per_s={:.0} \
             external_bytes={} external_from_clients={asked} external_to_clients={answered} external_between_nodes={between} \
             external_per_payload={:.4} internal_bytes={internal} internal_per_payload={:.3} external_frames_seen={} \
             external_frames_wrong={} internal_frames_seen={} internal_frames_wrong={}",
            lock.name(),
            sent.payload,
            sent.writes,
            sent.repeated,
            sent.time.as_secs_f64(),
            payload / (1 << 20) as f64 / sent.time.as_secs_f64(),
            asked + answered,
            (asked + answered) as f64 / payload,
            internal as f64 / payload,
            self.seen_outside.frames,
            self.seen_outside.wrong,
            self.seen_inside.frames,
            self.seen_inside.wrong,
        );
        for index in 0..NODES {
            let (outside, inside) = (self.outside.of(index), self.inside.of(index));
            let role = if index == leader { "leader" } else { "follower" };
            println!(
                "  node {} ({role}{}): external {} in, {} out; internal {} in, {} out",
                index + 1,
                if index == follower { ", the clients'" } else { "" },
                outside.to_host,
                outside.from_host,
                inside.to_host,
                inside.from_host
            );
        }
        // The bridge's ports saw each frame on its way in and on its way out.
        show("external", &self.seen_outside, 2 * (asked + answered));
        show("internal", &self.seen_inside, 2 * internal);
    }

    fn judge(&self) -> anyhow::Result<()> {
        let ((asked, answered, between), internal) = (self.external(), self.inside.sent_by(0..NODES));
        let (payload, total) = (self.sent.payload, asked + answered);
        let allowed = (payload as f64 * OVERHEAD) as u64 + SLACK_BYTES;
        ensure!(asked >= payload, "the external side carried {asked} bytes from clients, they sent {payload}");
        ensure!(
            total <= allowed,
            "the external side carried {total} bytes; for {payload} of data {allowed} are allowed"
        );
        ensure!(
            between <= COUNTERS_APART_BYTES,
            "nodes sent {between} bytes on the external side that no client received"
        );
        let wanted = (payload as f64 * INTERNAL_COPIES) as u64;
        ensure!(internal >= wanted, "the internal side carried {internal} bytes, fewer than {wanted}");
        for (side, seen) in [("external", &self.seen_outside), ("internal", &self.seen_inside)] {
            ensure!(seen.frames > 0, "nothing was seen on the {side} side");
            ensure!(seen.wrong == 0, "{} frames on the {side} side:\n{}", seen.wrong, seen.first_wrong.join("\n"));
        }
        Ok(())
    }
}

/// Sends what must not be: the captures must see it.
fn planted(wires: &Wires, outside: &[Ipv4Addr], inside: &[Ipv4Addr]) -> anyhow::Result<()> {
    let captures = [
        Capture::start(&wires.hub(Plane::External), external_judge(outside.to_vec()))?,
        Capture::start(&wires.hub(Plane::Internal), internal_judge(inside.to_vec()))?,
    ];
    // From node to node on the external side; from an external address, to one that nobody has, on the internal one. Sent to
    // a hardware address that nobody has: no answer, and no question about it, may be seen later.
    for (plane, to) in [(Plane::External, 1), (Plane::Internal, NOBODY)] {
        wires.set_lost(plane, 0, to, true)?;
        let (from, place) = (outside[0], wires.address(plane, to));
        wires::inside(&wires.name(0), || UdpSocket::bind((from, 0))?.send_to(b"planted", (place, 9)))??;
        wires.set_lost(plane, 0, to, false)?;
    }
    for (side, capture) in ["external", "internal"].into_iter().zip(captures) {
        wait_until("the planted frame is seen", Duration::from_secs(10), || capture.wrong() > 0).context(side)?;
        capture.stop()?;
    }
    Ok(())
}

fn show(side: &str, seen: &Seen, passed: u64) {
    println!(
        "  capture on the {side} side: {} frames, {} bytes, {:.1} % of what the ports counted; {} that must not be",
        seen.frames,
        seen.bytes,
        seen.bytes as f64 / passed.max(1) as f64 * 100.0,
        seen.wrong
    );
}

/// What must not be on the external side.
fn external_judge(nodes: Vec<Ipv4Addr>) -> impl Fn(&Frame<'_>) -> Option<&'static str> {
    move |frame| {
        let (from, to) = frame.addresses()?;
        if let Frame::Ip { ports: Some((from, to)), .. } = frame
            && (INTERNAL_PORTS.contains(from) || INTERNAL_PORTS.contains(to))
        {
            return Some("a port of the internal plane");
        }
        if [from, to].iter().any(|address| address.octets()[2] != nodes[0].octets()[2]) {
            return Some("an address of another plane");
        }
        (nodes.contains(&from) && nodes.contains(&to)).then_some("from node to node")
    }
}

/// What must not be on the internal side.
fn internal_judge(nodes: Vec<Ipv4Addr>) -> impl Fn(&Frame<'_>) -> Option<&'static str> {
    move |frame| {
        let (from, to) = frame.addresses()?;
        let is_stranger = [from, to].iter().any(|address| !nodes.contains(address));
        is_stranger.then_some("an address that is no node's")
    }
}
