//! What a peer said to a node, overheard on the bridge, to be said again by somebody else.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::capture::{Frame, Tap};

/// Bytes that are kept of a connection: its beginning.
const BYTES_MAX: usize = 4 << 10;

/// Connections that are kept.
const CONNECTIONS_MAX: usize = 1_000;

const SYN: u8 = 2;

/// Where a segment's bytes lie behind the first of the connection, and the bytes.
type Pieces = BTreeMap<u32, Vec<u8>>;

/// One connection's beginning, of the side that made it.
#[derive(Clone, Debug)]
pub(crate) struct Overheard {
    pub(crate) from: Ipv4Addr,
    pub(crate) bytes: Vec<u8>,
}

/// Listens until it is stopped.
#[derive(Debug)]
pub(crate) struct Recorder {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Vec<Overheard>>>,
}

impl Recorder {
    /// Listens in a hub for connections to this address and port.
    pub(crate) fn start(namespace: &str, target: (Ipv4Addr, u16)) -> anyhow::Result<Recorder> {
        let tap = Tap::open(namespace)?;
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || record(&tap, target, &is_over));
        Ok(Recorder { stop, thread })
    }

    /// The connections that were made meanwhile, in no order, with what their makers said.
    pub(crate) fn stop(self) -> anyhow::Result<Vec<Overheard>> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a recorder")
    }
}

fn record(tap: &Tap, target: (Ipv4Addr, u16), stop: &AtomicBool) -> anyhow::Result<Vec<Overheard>> {
    let mut buffer = vec![0; 128 << 10];
    let mut connections: BTreeMap<(Ipv4Addr, u16), (u32, Pieces)> = BTreeMap::new();
    loop {
        let over = stop.load(Ordering::Relaxed);
        let Some((bytes, _)) = tap.next(&mut buffer, !over)? else {
            if over {
                break;
            }
            continue;
        };
        let Some(Frame::Ip { source, destination, ports: Some((from, to)), segment }) = Frame::parse(bytes) else {
            continue;
        };
        if (destination, to) != target || segment.len() < 20 {
            continue;
        }
        let sequence = u32::from_be_bytes([segment[4], segment[5], segment[6], segment[7]]);
        if segment[13] & SYN != 0 && connections.len() < CONNECTIONS_MAX {
            connections.insert((source, from), (sequence.wrapping_add(1), Pieces::new()));
        }
        let data = segment.get(usize::from(segment[12] >> 4) * 4..).unwrap_or_default();
        if let Some((first, pieces)) = connections.get_mut(&(source, from)) {
            let at = sequence.wrapping_sub(*first);
            if !data.is_empty() && (at as usize) < BYTES_MAX {
                pieces.insert(at, data.to_vec());
            }
        }
    }
    Ok(connections.into_iter().map(|((from, _), (_, pieces))| Overheard { from, bytes: joined(pieces) }).collect())
}

/// The bytes without a gap from the first on.
fn joined(pieces: Pieces) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, piece) in pieces {
        let at = at as usize;
        if at > bytes.len() || bytes.len() >= BYTES_MAX {
            break;
        }
        let known = bytes.len() - at;
        bytes.extend_from_slice(piece.get(known..).unwrap_or_default());
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

/// How somebody was treated who said something.
#[derive(Clone, Debug)]
pub(crate) struct Treated {
    pub(crate) answer: Vec<u8>,
    pub(crate) is_closed: bool,
}

/// Says `bytes` to `to`, from this address; what comes back until the other side closes, or for so long.
pub(crate) fn say(from: Ipv4Addr, to: SocketAddr, bytes: &[u8], limit: Duration) -> anyhow::Result<Treated> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SockAddr::from(SocketAddr::from((from, 0))))?;
    socket.connect_timeout(&SockAddr::from(to), limit)?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    let start = Instant::now();
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    // An end while it is said is one, too.
    let mut is_closed = stream.write_all(bytes).is_err();
    while !is_closed && start.elapsed() < limit {
        match stream.read(&mut piece) {
            Ok(0) => is_closed = true,
            Ok(count) => answer.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => is_closed = true,
        }
        ensure!(answer.len() < 1 << 20, "{to} answers with more than a MiB");
    }
    Ok(Treated { answer, is_closed })
}
