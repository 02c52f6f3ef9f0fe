//! What can the client hop do on this machine, at this moment? A bare echo server against a bare client.
//!
//! The server is made as the server's edges are: monoio, a thread for each core, each with its own SO_REUSEPORT listener;
//! a task for each connection reads what is there and answers all whole requests of it in one write. The client is made
//! as the load generator is: tokio-uring, in a process of its own, each connection a closed loop. Requests and answers
//! have fixed sizes and no meaning.
//!
//! Without arguments the canonical loads run: 1 connection with 1 request in flight, 32 with 1, 32 with 32.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use hdrhistogram::Histogram;
use monoio::io::{AsyncReadRent, AsyncWriteRentExt};
use serde::Serialize;
use tokio_uring::buf::BoundedBuf;

/// What one read of the server may bring.
const READ_BYTES: usize = 64 << 10;

/// Answers of one connection that may be under way, bytes. More would need a client that reads while it writes.
const ANSWERS_MAX_BYTES: usize = 64 << 10;

/// Longer latencies count as this one.
const LATENCY_MAX_NANOS: u64 = 60_000_000_000;

/// How long the client waits for the server's process to listen.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// A bare monoio echo server against a bare tokio-uring client: what the client hop can do on this machine.
#[derive(Clone, Debug, Parser)]
struct Options {
    /// Connections; without it and `--in-flight` the canonical loads run, one after the other
    #[arg(long, value_name = "COUNT")]
    connections: Option<usize>,
    /// Requests in flight on each
    #[arg(long, value_name = "COUNT")]
    in_flight: Option<usize>,
    /// Bytes of a request; the default is a write of 256 bytes of data with about 120 of frame, names and identifiers
    #[arg(long, value_name = "BYTES", default_value_t = 376)]
    size: usize,
    /// Bytes of an answer
    #[arg(long, value_name = "BYTES", default_value_t = 60)]
    answer_size: usize,
    /// Length of the measured span
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Seconds before it that do not count
    #[arg(long, default_value_t = 1.0)]
    warm_up: f64,
    /// Threads of the server; the machine's cores by default
    #[arg(long, value_name = "COUNT")]
    server_threads: Option<usize>,
    /// Write the results there: an object for one load, an array for several
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A moment only: for CI
    #[arg(long)]
    small: bool,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be the server there.
    #[arg(long, hide = true)]
    serve: Option<SocketAddr>,
}

/// One load.
#[derive(Clone, Copy, Debug)]
struct Load {
    connections: usize,
    in_flight: usize,
}

const CANONICAL: [Load; 3] = [
    Load { connections: 1, in_flight: 1 },
    Load { connections: 32, in_flight: 1 },
    Load { connections: 32, in_flight: 32 },
];

impl Options {
    fn read() -> Result<Options> {
        let mut options = Options::parse();
        if options.small {
            options.seconds = options.seconds.min(0.2);
            options.warm_up = options.warm_up.min(0.05);
        }
        let most = options.loads().iter().map(|load| load.in_flight).max().unwrap_or_default();
        if options.size == 0 || options.answer_size == 0 || most * options.answer_size > ANSWERS_MAX_BYTES {
            bail!(
                "sizes are at least 1, and answers in flight on a connection at most {ANSWERS_MAX_BYTES} bytes together"
            );
        }
        Ok(options)
    }

    fn loads(&self) -> Vec<Load> {
        if self.connections.is_none() && self.in_flight.is_none() {
            return CANONICAL.to_vec();
        }
        vec![Load { connections: self.connections.unwrap_or(1).max(1), in_flight: self.in_flight.unwrap_or(1).max(1) }]
    }
}

fn main() -> ExitCode {
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<()> {
    let options = Options::read()?;
    if let Some(address) = options.serve {
        return serve(&options, address);
    }
    let mut all = Vec::new();
    for load in options.loads() {
        let server = Server::start(&options)?;
        let results = measure(&options, load, server.address)?;
        results.print();
        all.push(results);
    }
    if let Some(path) = &options.json {
        let text = match &all[..] {
            [one] => serde_json::to_string_pretty(one)?,
            all => serde_json::to_string_pretty(all)?,
        };
        std::fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

// --- the server ---

/// The server's process; ended when this is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(options: &Options) -> Result<Server> {
        // A free port: bound for a moment, then the server's. Should somebody else take it in between, the server says so.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut command = Command::new(std::env::current_exe().context("where is this program?")?);
        command.arg(format!("--serve={address}")).stdin(Stdio::piped());
        command.arg(format!("--size={}", options.size)).arg(format!("--answer-size={}", options.answer_size));
        if let Some(threads) = options.server_threads {
            command.arg(format!("--server-threads={threads}"));
        }
        let process = command.spawn().context("the server cannot be started")?;
        let server = Server { process, address };
        let started = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            if started.elapsed() > START_PATIENCE {
                bail!("the server does not listen on {address}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Serves until the process that started this one is gone.
fn serve(options: &Options, address: SocketAddr) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = options.server_threads.unwrap_or(cores);
    let sizes = (options.size, options.answer_size);
    for listener in ringstore::api::listeners(address, threads, None)? {
        std::thread::spawn(move || {
            let mut runtime = monoio::RuntimeBuilder::<monoio::IoUringDriver>::new()
                .with_entries(1024)
                .build()
                .expect("an io_uring for an edge");
            runtime.block_on(accept(listener, sizes));
        });
    }
    // The starter holds the other end and never writes: this returns when it is gone.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

async fn accept(listener: TcpListener, sizes: (usize, usize)) {
    let listener = monoio::net::TcpListener::from_std(listener).expect("a listener");
    while let Ok((stream, _)) = listener.accept().await {
        // Only a socket that is gone already refuses.
        let _ = stream.set_nodelay(true);
        monoio::spawn(answer(stream, sizes));
    }
}

/// Serves one connection until it ends.
async fn answer(mut stream: monoio::net::TcpStream, (size, answer_size): (usize, usize)) {
    let mut buffer = vec![0u8; READ_BYTES];
    let mut answers = Vec::new();
    let mut pending = 0;
    loop {
        let (result, back) = stream.read(buffer).await;
        buffer = back;
        let Ok(count @ 1..) = result else { return };
        pending += count;
        let whole = pending / size;
        pending %= size;
        if whole > 0 {
            answers.resize(whole * answer_size, b'a');
            let (result, back) = stream.write_all(answers).await;
            answers = back;
            if result.is_err() {
                return;
            }
        }
    }
}

// --- the client ---

/// What the connections of a run find together.
struct Measured {
    begins: Instant,
    ends: Instant,
    latency: Histogram<u64>,
}

fn measure(options: &Options, load: Load, address: SocketAddr) -> Result<Results> {
    let begins = Instant::now() + Duration::from_secs_f64(options.warm_up);
    let ends = begins + Duration::from_secs_f64(options.seconds);
    let latency = Histogram::new_with_bounds(1, LATENCY_MAX_NANOS, 3)?;
    let measured = Rc::new(RefCell::new(Measured { begins, ends, latency }));
    tokio_uring::start(async {
        let connections: Vec<_> = (0..load.connections)
            .map(|_| tokio_uring::spawn(ask(options.clone(), load.in_flight, address, Rc::clone(&measured))))
            .collect();
        for connection in connections {
            connection.await.context("a connection panicked")??;
        }
        anyhow::Ok(())
    })?;
    Ok(Results::new(options, load, &measured.borrow().latency))
}

/// One connection: keeps its requests in flight until the time is up.
async fn ask(options: Options, in_flight: usize, address: SocketAddr, measured: Rc<RefCell<Measured>>) -> Result<()> {
    let stream = tokio_uring::net::TcpStream::connect(address).await.context("the server cannot be reached")?;
    stream.set_nodelay(true)?;
    let mut requests = vec![b'q'; in_flight * options.size];
    let mut buffer = vec![0u8; ANSWERS_MAX_BYTES];
    let mut asked: VecDeque<(Instant, usize)> = VecDeque::new();
    let (mut free, mut received) = (in_flight, 0);
    loop {
        if free > 0 {
            asked.push_back((Instant::now(), free));
            let (result, part) = stream.write_all(requests.slice(..free * options.size)).await;
            requests = part.into_inner();
            result.context("a request cannot be sent")?;
        }
        let (result, back) = stream.read(buffer).await;
        buffer = back;
        received += match result.context("an answer cannot be read")? {
            0 => bail!("the server closed a connection"),
            count => count,
        };
        free = received / options.answer_size;
        received %= options.answer_size;
        if measured.borrow_mut().answered(&mut asked, free) {
            return Ok(());
        }
    }
}

impl Measured {
    /// Books `count` answers; they come in the requests' order. True when the time is up.
    fn answered(&mut self, asked: &mut VecDeque<(Instant, usize)>, count: usize) -> bool {
        let now = Instant::now();
        let counts = now >= self.begins && now < self.ends;
        let mut left = count;
        while left > 0 {
            let (at, waiting) = asked.front_mut().expect("an answer to a request");
            let part = left.min(*waiting);
            if counts {
                self.latency.saturating_record_n((now - *at).as_nanos() as u64, part as u64);
            }
            *waiting -= part;
            left -= part;
            if *waiting == 0 {
                asked.pop_front();
            }
        }
        now >= self.ends
    }
}

// --- what came out ---

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Results {
    connections: usize,
    in_flight: usize,
    size: usize,
    answer_size: usize,
    messages_per_second: f64,
    megabytes_per_second: f64,
    p50_us: f64,
    p99_us: f64,
    p999_us: f64,
    max_us: f64,
}

impl Results {
    fn new(options: &Options, load: Load, latency: &Histogram<u64>) -> Results {
        let per_second = latency.len() as f64 / options.seconds;
        let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Results {
            connections: load.connections,
            in_flight: load.in_flight,
            size: options.size,
            answer_size: options.answer_size,
            messages_per_second: per_second,
            megabytes_per_second: per_second * options.size as f64 / 1e6,
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: latency.max() as f64 / 1e3,
        }
    }

    fn print(&self) {
        println!(
            "echo {} x {}, {} B: {:.0} messages/s, {:.1} MB/s, p50 {:.1} us, p99 {:.1} us, p99.9 {:.1} us, max {:.1} us",
            self.connections,
            self.in_flight,
            self.size,
            self.messages_per_second,
            self.megabytes_per_second,
            self.p50_us,
            self.p99_us,
            self.p999_us,
            self.max_us
        );
    }
}
