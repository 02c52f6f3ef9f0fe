//! What must be true after the faults.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::load::Writer;

/// The first page of a chunk file differs from node to node: identity and durable mark.
const CHUNK_HEADER_BYTES: u64 = 4096;

/// Reads every stream at every node and compares it with what the writers know; the number of events.
pub(crate) fn events(cluster: &Cluster, writers: &[Writer]) -> anyhow::Result<usize> {
    let mut streams: BTreeMap<&str, Vec<&Writer>> = BTreeMap::new();
    for writer in writers {
        streams.entry(&writer.stream).or_default().push(writer);
    }
    let mut count = 0;
    for (stream, writers) in streams {
        let mut first_seen: Option<Vec<Vec<u8>>> = None;
        for node in &cluster.nodes {
            let seen = stream_at(node.ext_tcp(), stream, &writers).with_context(|| format!("at {}", node.ip))?;
            match &first_seen {
                None => first_seen = Some(seen),
                Some(first) => ensure!(*first == seen, "{stream}: {} holds another order than the first", node.ip),
            }
        }
        count += first_seen.map_or(0, |seen| seen.len());
    }
    Ok(count)
}

/// The identifiers of one stream at one node, after they were compared with what its writers know.
fn stream_at(address: std::net::SocketAddr, stream: &str, writers: &[&Writer]) -> anyhow::Result<Vec<Vec<u8>>> {
    let events = Client::connect(address, Duration::from_secs(5))?.read_to_end(stream)?;
    let mut numbers: BTreeMap<&[u8], i64> = BTreeMap::new();
    for (place, event) in events.iter().enumerate() {
        ensure!(event.event_number == place as i64, "{stream}: number {} at place {place}", event.event_number);
        let other = numbers.insert(&event.event_id, event.event_number);
        ensure!(other.is_none(), "{stream}: event {place} is also event {}", other.unwrap_or_default());
    }
    let mut known = 0;
    for writer in writers {
        let mut previous = -1;
        for counter in 0..writer.sent {
            let found = numbers.get(writer.id(counter).as_slice()).copied();
            let acknowledged = usize::try_from(counter).ok().and_then(|at| writer.acknowledged.get(at)).copied();
            let name = format!("{stream}: event {counter} of writer {}", writer.index());
            ensure!(
                acknowledged.is_none() || found == acknowledged,
                "{name}: acknowledged {acknowledged:?}, found {found:?}"
            );
            let Some(number) = found else { continue };
            ensure!(number > previous, "{name} is before the one written earlier");
            let data = &events[usize::try_from(number)?].data;
            ensure!(*data == writer.data(counter), "{name} holds other data ({} bytes)", data.len());
            (previous, known) = (number, known + 1);
        }
    }
    ensure!(known == events.len(), "{stream}: {} events, of which the writers wrote {known}", events.len());
    Ok(events.into_iter().map(|event| event.event_id).collect())
}

/// Ends all nodes, at once, so that those who are left do not elect and write.
pub(crate) fn stop(cluster: &mut Cluster) -> anyhow::Result<()> {
    for node in &cluster.nodes {
        node.signal(Signal::TERM);
    }
    for node in &mut cluster.nodes {
        let status = node.wait()?;
        ensure!(status.success(), "{} ended with {status} after SIGTERM\n{}", node.ip, node.tail());
    }
    Ok(())
}

/// Compares the bytes of all logs below `end`. The nodes have ended.
pub(crate) fn logs(cluster: &Cluster, chunk_size: u64, end: u64) -> anyhow::Result<()> {
    logs_between(cluster, chunk_size, 0, end)
}

/// The same for the bytes from `from` on; up to the commit position of all nodes they may run.
pub(crate) fn logs_between(cluster: &Cluster, chunk_size: u64, from: u64, end: u64) -> anyhow::Result<()> {
    for chunk in from / chunk_size..end.div_ceil(chunk_size) {
        let start = from.saturating_sub(chunk * chunk_size);
        let length = chunk_size.min(end - chunk * chunk_size);
        let name = format!("chunk-{chunk:06}.000000");
        let first = cluster.nodes[0].db().join(&name);
        for other in &cluster.nodes[1..] {
            same_bytes(&first, &other.db().join(&name), start, length)
                .with_context(|| format!("{name} of {} and {}", cluster.nodes[0].ip, other.ip))?;
        }
    }
    Ok(())
}

fn same_bytes(left: &Path, right: &Path, start: u64, length: u64) -> anyhow::Result<()> {
    let open = |path: &Path| File::open(path).with_context(|| path.display().to_string());
    let (left, right) = (open(left)?, open(right)?);
    let (mut one, mut two) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = start;
    while at < length {
        let count = usize::try_from((length - at).min(one.len() as u64))?;
        left.read_exact_at(&mut one[..count], CHUNK_HEADER_BYTES + at)?;
        right.read_exact_at(&mut two[..count], CHUNK_HEADER_BYTES + at)?;
        if let Some(place) = (0..count).find(|place| one[*place] != two[*place]) {
            anyhow::bail!("the logs part {} bytes into the chunk", at + place as u64);
        }
        at += count as u64;
    }
    Ok(())
}
