//! Strangers on the external side: as many connections and malformed frames as a thread can make, on both client ports.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::support::wires;

/// Connections that a thread keeps open.
const OPEN_MAX: usize = 200;

/// How long one may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// Bytes in the largest piece of rubbish.
const PIECE_BYTES: usize = 16 << 10;

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flood {
    pub(crate) connections: u64,
    pub(crate) failed: u64,
    pub(crate) pieces: u64,
    pub(crate) bytes: u64,
}

/// Threads that flood until they are stopped.
#[derive(Debug)]
pub(crate) struct Flooder {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<anyhow::Result<Flood>>>,
}

impl Flooder {
    /// Threads in `namespace`, on these processors, against TCP and HTTP ports of clients.
    pub(crate) fn start(
        namespace: &str,
        cpus: &[usize],
        targets: &[(SocketAddr, SocketAddr)],
        threads: u64,
        seed: u64,
    ) -> Flooder {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|number| {
            let (stop, targets, cpus) = (Arc::clone(&stop), targets.to_vec(), cpus.to_vec());
            let namespace = namespace.to_owned();
            std::thread::spawn(move || {
                wires::enter(&namespace)?;
                pin(&cpus)?;
                Ok(flood(&targets, &mut fastrand::Rng::with_seed(seed + number), &stop))
            })
        });
        Flooder { threads: threads.collect(), stop }
    }

    pub(crate) fn stop(self) -> anyhow::Result<Flood> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Flood::default();
        for thread in self.threads {
            let one = thread.join().expect("a flooder")?;
            all.connections += one.connections;
            all.failed += one.failed;
            all.pieces += one.pieces;
            all.bytes += one.bytes;
        }
        Ok(all)
    }
}

/// Lets the calling thread run on these processors only.
pub(crate) fn pin(cpus: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().for_each(|cpu| set.set(*cpu));
    sched_setaffinity(None, &set).with_context(|| format!("running on the processors {cpus:?}"))
}

fn flood(targets: &[(SocketAddr, SocketAddr)], random: &mut fastrand::Rng, stop: &AtomicBool) -> Flood {
    let mut flood = Flood::default();
    let mut open: Vec<TcpStream> = Vec::new();
    let mut answers = vec![0; PIECE_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let (tcp, http) = targets[random.usize(0..targets.len())];
        let is_http = random.u8(0..3) == 0;
        match TcpStream::connect_timeout(if is_http { &http } else { &tcp }, CONNECT_LIMIT) {
            Ok(socket) => {
                flood.connections += 1;
                let _ = socket.set_nonblocking(true);
                for _ in 0..random.u8(1..4) {
                    let piece = if is_http { http_rubbish(random) } else { frame_rubbish(random) };
                    if let Ok(count) = (&socket).write(&piece) {
                        flood.pieces += 1;
                        flood.bytes += count as u64;
                    }
                }
                let _ = (&socket).read(&mut answers);
                open.push(socket);
            }
            Err(_) => flood.failed += 1,
        }
        if open.len() > OPEN_MAX {
            open.swap_remove(random.usize(0..open.len()));
        }
    }
    flood
}

/// Something that is no request, or only a part of one.
fn http_rubbish(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.u8(0..4) {
        0 => b"GET /gossip HTTP/1.1\r\nHost: x\r\nX-Never-Ends: ".to_vec(),
        1 => format!("POST /gossip HTTP/1.1\r\nContent-Length: {}\r\n\r\n", u64::MAX).into_bytes(),
        2 => b"GET /stats HTTP/1.1\r\n\r\n".repeat(random.usize(1..20)),
        _ => noise(random),
    }
}

/// A frame that lies about its length, or is of no command, or only the head of one.
fn frame_rubbish(random: &mut fastrand::Rng) -> Vec<u8> {
    let length: u32 = match random.u8(0..4) {
        0 => u32::MAX,
        1 => 4,
        2 => 1 << 20,
        _ => return noise(random),
    };
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend(noise(random));
    frame
}

fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let count = random.usize(1..PIECE_BYTES);
    let mut bytes = vec![0; count];
    random.fill(&mut bytes);
    bytes
}
