//! The leader: makes records, sends them to two followers, writes and flushes its own log, and takes the time from
//! append to "flushed by two of three".

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use ringstore::limits::{LOG_BUFFER_BYTES, SEND_MAX_BYTES};
use ringstore::ring::{Completion, Driver, FileId, MirroredBuffer, Outcome, Source, Wait, prepare_link};
use ringstore::types::LogPosition;

use crate::log_file::{BLOCK_BYTES, LogFile};
use crate::options::Options;
use crate::read_back::ReadBack;
use crate::results::{Counts, Results, cpu_seconds, histogram};
use crate::tag::Tag;

const FOLLOWERS: usize = 2;

/// A dead peer is noticed after so long.
pub(crate) const LINK_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks for a follower.
const ACCEPT_PAUSE: Duration = Duration::from_millis(2);

/// The followers' processes; they end by themselves when their connection does.
struct Followers(Vec<Child>);

impl Followers {
    fn start(options: &Options, leader: SocketAddr) -> Result<Followers> {
        let program = std::env::current_exe().context("where is this program?")?;
        let mut started = Followers(Vec::new());
        for node in 1..=FOLLOWERS {
            let arguments = options.follower_arguments(leader, node);
            started.0.push(Command::new(&program).args(arguments).spawn().context("a follower cannot be started")?);
        }
        Ok(started)
    }

    /// The next connection of one of them. One that has ended will not come.
    fn accept(&mut self, listener: &TcpListener) -> Result<TcpStream> {
        listener.set_nonblocking(true)?;
        let deadline = Instant::now() + LINK_PATIENCE;
        loop {
            match listener.accept() {
                Ok((stream, _)) => return Ok(stream),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error).context("no follower came"),
                Err(_) => {}
            }
            for child in &mut self.0 {
                if let Some(status) = child.try_wait()? {
                    bail!("a follower ended before it connected, {status}; what it said stands above");
                }
            }
            if Instant::now() > deadline {
                bail!("no follower came within {} s", LINK_PATIENCE.as_secs());
            }
            std::thread::sleep(ACCEPT_PAUSE);
        }
    }

    fn cpu_seconds(&self) -> f64 {
        self.0.iter().map(|child| cpu_seconds(child.id())).sum()
    }

    fn wait(mut self) -> Result<()> {
        for child in &mut self.0 {
            let status = child.wait()?;
            if !status.success() {
                bail!("a follower failed: {status}");
            }
        }
        Ok(())
    }
}

/// A follower as the leader sees it.
struct Peer {
    socket: FileId,
    sending: bool,
    /// Sent up to here; what is before is not needed in the log buffer for it.
    sent: u64,
    /// Durable there up to here.
    durable: u64,
    /// The beginning of an acknowledgement.
    partial: Vec<u8>,
}

impl Peer {
    /// Takes acknowledgements in: each is eight bytes, the position that is durable.
    fn acknowledged(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
        let whole = self.partial.len() / 8 * 8;
        if let Some(last) = self.partial[..whole].last_chunk::<8>() {
            self.durable = u64::from_le_bytes(*last);
            self.partial.drain(..whole);
        }
    }
}

/// Records that were appended in one turn.
struct Appended {
    end: u64,
    count: u64,
    at: Instant,
}

struct Leader {
    in_flight: u64,
    size: u64,
    record: Vec<u8>,
    driver: Driver,
    buffer: MirroredBuffer,
    log: LogFile,
    peers: Vec<Peer>,
    end: u64,
    waiting: VecDeque<Appended>,
    outstanding: u64,
    committed: Arc<AtomicU64>,
    done: u64,
    latency: Histogram<u64>,
}

/// One run: starts followers, measures, ends them.
pub(crate) fn run(options: &Options) -> Result<Results> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot listen on the loopback interface")?;
    let mut followers = Followers::start(options, listener.local_addr()?)?;
    let mut leader = Leader::new(options)?;
    for _ in 0..FOLLOWERS {
        leader.add_peer(followers.accept(&listener)?)?;
    }
    let read_back = options.read_back.then(|| ReadBack::start(options, Arc::clone(&leader.committed))).transpose()?;
    leader.run_for(options.warm_up())?;
    leader.forget();
    if let Some(read_back) = &read_back {
        read_back.forget();
    }
    let cpu_before = followers.cpu_seconds() + cpu_seconds(std::process::id());
    let enters_before = leader.driver.enters();
    let measured = leader.run_for(options.span())?;
    let cpu_seconds = followers.cpu_seconds() + cpu_seconds(std::process::id()) - cpu_before;
    let enters = leader.driver.enters() - enters_before;
    let read_back = read_back.map(ReadBack::stop).transpose()?;
    let Leader { done, latency, log, driver, .. } = leader;
    drop(driver);
    followers.wait()?;
    let counts = Counts { measured, records: done, cpu_seconds, enters };
    Ok(Results::new(options, &counts, &latency, &log, read_back))
}

impl Leader {
    fn new(options: &Options) -> Result<Leader> {
        let mut driver = Driver::new()?;
        let log = LogFile::open(&mut driver, options, 0)?;
        let size = options.size.expect("set for each run");
        Ok(Leader {
            in_flight: options.in_flight.expect("set for each run") as u64,
            size: size as u64,
            record: (0..size).map(|at| (at % 251) as u8).collect(),
            driver,
            buffer: MirroredBuffer::new(LOG_BUFFER_BYTES).context("no memory for the log buffer")?,
            log,
            peers: Vec::new(),
            end: 0,
            waiting: VecDeque::new(),
            outstanding: 0,
            committed: Arc::default(),
            done: 0,
            latency: histogram(),
        })
    }

    fn add_peer(&mut self, stream: TcpStream) -> Result<()> {
        prepare_link(&stream, LINK_PATIENCE)?;
        let socket = self.driver.attach(stream.into());
        let group = self.driver.add_group(4, 4096)?;
        self.driver.stream(socket, group, Tag::Stream(self.peers.len()).pack());
        self.peers.push(Peer { socket, sending: false, sent: 0, durable: 0, partial: Vec::new() });
        Ok(())
    }

    fn forget(&mut self) {
        self.done = 0;
        self.latency.reset();
        self.log.forget();
    }

    /// Turns until the time is up. Returns how long that really was.
    fn run_for(&mut self, span: Duration) -> Result<Duration> {
        let started = Instant::now();
        let mut completions = Vec::new();
        loop {
            for completion in completions.drain(..) {
                self.handle(completion)?;
            }
            let now = Instant::now();
            self.commit(now);
            if now - started >= span {
                // The driver is left without completions that nobody saw.
                return Ok(now - started);
            }
            self.append(now);
            self.feed_peers();
            self.log.poll_buffer(&mut self.driver, &mut self.buffer, self.end)?;
            self.commit(now);
            self.driver.enter(Wait::For(Duration::from_millis(100)), &mut completions)?;
        }
    }

    fn handle(&mut self, completion: Completion) -> Result<()> {
        match (Tag::unpack(completion.tag), completion.outcome) {
            (Tag::Write(id), Outcome::Written { result, .. }) => self.log.handle_written(&mut self.driver, id, result),
            (Tag::Sync(id), Outcome::Synced(result)) => self.log.handle_synced(id, result),
            (Tag::Stream(peer), Outcome::Streamed(slice)) => {
                self.peers[peer].acknowledged(&slice);
                Ok(())
            }
            (Tag::Send(peer), Outcome::Sent { source: Some(Source::Log(window)), result }) => {
                result.context("a send to a follower failed")?;
                let peer = &mut self.peers[peer];
                peer.sending = false;
                peer.sent += u64::from(window.length());
                Ok(())
            }
            (Tag::Stream(_), Outcome::StreamEnded(result)) => bail!("a follower left: {result:?}"),
            (tag, outcome) => bail!("{tag:?} brought {outcome:?}"),
        }
    }

    /// What two of the three have flushed is done.
    fn commit(&mut self, now: Instant) {
        let mut positions = [self.log.flushed(), self.peers[0].durable, self.peers[1].durable];
        positions.sort_unstable();
        let committed = positions[1];
        while let Some(appended) = self.waiting.pop_front_if(|appended| appended.end <= committed) {
            self.record_done(&appended, now);
        }
        // The front may be done in part.
        if let Some(front) = self.waiting.front_mut() {
            let left = (front.end - committed).div_ceil(self.size).min(front.count);
            let part = Appended { end: committed, count: front.count - left, at: front.at };
            front.count = left;
            self.record_done(&part, now);
        }
        self.committed.store(committed, Ordering::Release);
    }

    fn record_done(&mut self, appended: &Appended, now: Instant) {
        self.outstanding -= appended.count;
        self.done += appended.count;
        self.latency.saturating_record_n((now - appended.at).as_nanos() as u64, appended.count);
    }

    /// Fills the places of records that are done, as far as the log buffer has room.
    fn append(&mut self, now: Instant) {
        let needed_from = self.peers.iter().map(|peer| peer.sent).fold(self.log.needed_from(), u64::min);
        let room = LOG_BUFFER_BYTES as u64 - BLOCK_BYTES - (self.end - needed_from);
        let count = (self.in_flight - self.outstanding).min(room / self.size);
        for _ in 0..count {
            let place = self.buffer.slice_mut(LogPosition(self.end), self.record.len());
            place.copy_from_slice(&self.record);
            place[..8].copy_from_slice(&self.end.to_le_bytes());
            self.end += self.size;
        }
        if count > 0 {
            self.outstanding += count;
            self.waiting.push_back(Appended { end: self.end, count, at: now });
        }
    }

    fn feed_peers(&mut self) {
        for (number, peer) in self.peers.iter_mut().enumerate() {
            let length = (self.end - peer.sent).min(SEND_MAX_BYTES);
            if length > 0 && !peer.sending {
                peer.sending = true;
                let window = self.buffer.window(LogPosition(peer.sent), length as u32);
                self.driver.send(peer.socket, Source::Log(window), Tag::Send(number).pack());
            }
        }
    }
}
