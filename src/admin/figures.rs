//! The figures of `/stats`.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::stages::stages;
use super::status::{NodeStatus, wall_now};
use crate::engine::{ClientCounters, FollowerView, LogCounters, Role};
use crate::gossip::PeerRoute;
use crate::security::Expiry;
use crate::storage::StorageFigures;

/// Everything, as JSON. Where v5 has a figure of the same meaning it has v5's name (`proc`, `es`); the rest is ours.
/// `histograms`: not only quantiles of the stages.
pub(super) fn stats(status: &NodeStatus, histograms: bool) -> Value {
    let published = &status.published;
    let view = published.view();
    let log_end = published.log_end();
    let flushed = published.flushed();
    let epoch = view
        .epoch
        .map(|epoch| json!({ "number": epoch.term.0, "position": epoch.position.0, "id": epoch.id.to_string() }));
    json!({
        "proc": process(status),
        "es": { "checksum": flushed.0, "checksumNonFlushed": log_end.0 },
        "node": {
            "id": status.node.to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "role": role_name(view.role),
            "term": view.term.0,
            "leader": view.leader.map(|leader| leader.to_string()),
            "epoch": epoch,
            "diskFull": view.disk_full,
            "chunkFailed": view.chunk_failed,
            "uptimeMs": u64::try_from(status.started_at.elapsed().as_millis()).unwrap_or(u64::MAX),
        },
        "positions": {
            "logEnd": log_end.0,
            "writerCheckpoint": flushed.0,
            "commit": published.committed().0,
            "readable": published.readable().0,
            "applied": status.index.applied().0,
        },
        "index": index(status),
        "planes": planes(status, &published.counters),
        "followers": view.followers.iter().map(|view| follower(view, log_end.0)).collect::<Vec<_>>(),
        "log": log_counters(&published.counters),
        "storage": storage_figures(&status.storage),
        "clients": client_counters(&status.clients),
        "stages": stages(&published.stages, histograms),
    })
}

/// The planes: the internal one's device where it is known, by which one each other node is reached, and who may speak.
fn planes(status: &NodeStatus, counters: &LogCounters) -> Value {
    let (expected, peers) = status.routes.read();
    let shown = |route: &PeerRoute| json!({ "peer": route.peer.to_string(), "device": route.device, "isWrong": route.is_wrong });
    let locks = &status.locks;
    json!({
        "internalDevice": expected,
        "peersOnWrongDevice": peers.iter().filter(|route| route.is_wrong).count(),
        "peers": peers.iter().map(shown).collect::<Vec<_>>(),
        "internal": locks.plane.words(),
        "refused": count(&locks.refused),
        "refusedLinks": count(&counters.refused_links),
        "certificates": {
            "internal": locks.plane.trust().map(|trust| certificate(&trust.expiry())),
            "external": locks.external.as_ref().map(|trust| certificate(&trust.expiry())),
        },
    })
}

fn certificate(expiry: &Expiry) -> Value {
    json!({
        "file": expiry.file.display().to_string(),
        "subject": expiry.names.subject,
        "names": expiry.names.names,
        "notAfter": expiry.not_after.to_string(),
        "daysLeft": expiry.days_left(wall_now()),
    })
}

/// The index: what of it is where, and what its upkeep did since the start.
fn index(status: &NodeStatus) -> Value {
    let figures = status.index.figures();
    json!({
        "isComplete": status.index.is_complete(),
        "streams": figures.streams,
        "events": figures.events,
        "memoryBytes": figures.bytes,
        "memoryEvents": figures.memory_events,
        "tables": figures.tables,
        "tableBytes": figures.table_bytes,
        "merges": figures.merges,
        "damagedTables": figures.damaged,
        "misfits": figures.misfits,
        "rebuilds": figures.rebuilds,
    })
}

/// The role in our own words.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Initializing => "initializing",
        Role::Unknown => "unknown",
        Role::PreReplica => "preReplica",
        Role::CatchingUp => "catchingUp",
        Role::Clone => "clone",
        Role::Follower => "follower",
        Role::PreLeader => "preLeader",
        Role::Leader => "leader",
        Role::ResigningLeader => "resigningLeader",
        Role::ShuttingDown => "shuttingDown",
    }
}

pub(super) fn follower(view: &FollowerView, log_end: u64) -> Value {
    json!({
        "node": view.node.to_string(),
        "isMember": view.is_member,
        "sent": view.sent.0,
        "acknowledged": view.acknowledged.0,
        "lagBytes": log_end.saturating_sub(view.acknowledged.0),
        "fromFiles": view.from_files,
        "isLinked": view.is_linked,
        "flushMicros": view.flush_micros,
        "priority": view.priority,
        "isFull": view.is_full,
        "isReady": view.is_ready,
    })
}

fn log_counters(counters: &LogCounters) -> Value {
    json!({
        "appends": count(&counters.appends),
        "flushes": count(&counters.flushes),
        "writtenBytes": count(&counters.written_bytes),
        "sentCopiedBytes": count(&counters.sent_copied_bytes),
        "sentZeroCopyBytes": count(&counters.sent_zero_copy_bytes),
        "sentFromFilesBytes": count(&counters.sent_from_files_bytes),
        "damagedUncommitted": count(&counters.damaged_uncommitted),
        "receivedBytes": count(&counters.received_bytes),
        "elections": count(&counters.elections),
        "enters": count(&counters.enters),
    })
}

fn storage_figures(figures: &StorageFigures) -> Value {
    json!({
        "sealedChunks": count(&figures.sealed_chunks),
        "scrubRateBytes": count(&figures.scrub_rate_bytes),
        "scrubPosition": count(&figures.scrub_position),
        "scrubPasses": count(&figures.scrub_passes),
        "scrubbedBytes": count(&figures.scrubbed_bytes),
        "damageFound": count(&figures.damage_found),
        "damageWaiting": count(&figures.damage_waiting),
        "damageRepaired": count(&figures.damage_repaired),
        "pagesMended": count(&figures.pages_mended),
        "unsealedPasses": count(&figures.unsealed_passes),
        "renewalsAsked": count(&figures.renewals_asked),
        "backgroundErrors": count(&figures.background_errors),
    })
}

fn client_counters(counters: &ClientCounters) -> Value {
    json!({
        "tcpConnectionsNow": count(&counters.tcp_connections_now),
        "tcpConnections": count(&counters.tcp_connections),
        "httpConnectionsNow": count(&counters.http_connections_now),
        "httpConnections": count(&counters.http_connections),
        "tlsConnectionsNow": count(&counters.tls_connections_now),
        "tlsFailures": count(&counters.tls_failures),
        "forwardConnectionsNow": count(&counters.forward_connections_now),
        "requests": count(&counters.requests),
        "forwardedRequests": count(&counters.forwarded_requests),
        "subscriptionsNow": count(&counters.subscriptions_now),
        "pendingRequestsNow": count(&counters.pending_requests_now),
        "queuedBytesNow": count(&counters.queued_bytes_now),
        "busyRefusals": count(&counters.busy_refusals),
        "cutConnections": count(&counters.cut_connections),
        "acceptErrors": count(&counters.accept_errors),
        "receivedBytes": count(&counters.received_bytes),
        "sentBytes": count(&counters.sent_bytes),
    })
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// The process: what the kernel says about it. A figure that cannot be read is null.
fn process(status: &NodeStatus) -> Value {
    let usage = fs::read_to_string("/proc/self/stat").ok().and_then(|text| Usage::parse(&text));
    json!({
        "startTime": status.started.to_string(),
        "id": std::process::id(),
        "mem": usage.as_ref().map(|usage| usage.resident_pages.saturating_mul(rustix::param::page_size() as u64)),
        "cpuMs": usage.as_ref().map(|usage| usage.cpu_ticks * 1000 / rustix::param::clock_ticks_per_second().max(1)),
        "threadsCount": usage.as_ref().map(|usage| usage.threads),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Usage {
    cpu_ticks: u64,
    threads: u64,
    resident_pages: u64,
}

impl Usage {
    /// Reads `/proc/self/stat`. The process name in it may hold spaces and brackets, so counting begins behind it.
    fn parse(text: &str) -> Option<Usage> {
        let (_, rest) = text.rsplit_once(')')?;
        // The first of these is field 3 of proc_pid_stat(5).
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Usage { cpu_ticks: field(14)? + field(15)?, threads: field(20)?, resident_pages: field(24)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let line =
            "5 (a) b) S 1 5 5 0 -1 4194560 900 0 0 0 120 30 0 0 20 0 7 0 100 1000000 2500 18446744073709551615 1";
        assert_eq!(Usage::parse(line), Some(Usage { cpu_ticks: 150, threads: 7, resident_pages: 2500 }));
        assert_eq!(Usage::parse("5 (a) S 1"), None);
        let own = Usage::parse(&fs::read_to_string("/proc/self/stat").unwrap()).unwrap();
        assert!(own.threads > 0 && own.resident_pages > 0);
    }
}
