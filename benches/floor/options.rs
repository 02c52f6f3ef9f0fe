//! What the bench is asked to do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use ringstore::storage::ChunkLayout;

/// The stripped pipeline: what the disk and the links of this machine can do at this moment.
///
/// One process leads, two follow: the leader's log goes to both as a stream of bytes, each writes and flushes it, and a
/// record is done when two of the three have it flushed. No protocol, no consensus, no parsing.
#[derive(Clone, Debug, Parser)]
pub(crate) struct Options {
    /// Records outstanding at a time; without it and `--size` the canonical workloads run, one after the other
    #[arg(long, value_name = "RECORDS")]
    pub(crate) in_flight: Option<usize>,
    /// Bytes of a record
    #[arg(long, value_name = "BYTES")]
    pub(crate) size: Option<usize>,
    /// Length of the measured span
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// Seconds before it that do not count
    #[arg(long, default_value_t = 1.0)]
    pub(crate) warm_up: f64,
    /// Write the results there: an object for one run, an array for several
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Where the nodes' folders are made, floor-node-0 to -2, and removed afterwards; nothing else there is touched
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_TARGET_TMPDIR"), "/floor"))]
    pub(crate) folder: PathBuf,
    /// A moment only, with small files: for CI
    #[arg(long)]
    pub(crate) small: bool,
    /// How the log reaches the disk: buffered, inline, blocking, dsync, gathered, direct or direct-sync
    #[arg(long, value_name = "MODE", default_value = "buffered")]
    pub(crate) write_mode: WriteMode,
    /// Flushes in flight at a time
    #[arg(long, default_value_t = 1)]
    pub(crate) flushes: usize,
    /// Write only when a flush may follow, not as soon as there are bytes
    #[arg(long)]
    pub(crate) lazy: bool,
    /// Followers copy into a log buffer of their own and write from there (some modes always do)
    #[arg(long)]
    pub(crate) copy: bool,
    /// A thread of the leader reads what is committed through a memory map of the files
    #[arg(long)]
    pub(crate) read_back: bool,
    /// Run each workload in several ways in turn and print ratios to the first, e.g. buffered,inline,dsync+2,direct+lazy
    #[arg(long, value_name = "VARIANTS", value_delimiter = ',')]
    pub(crate) compare: Vec<Variant>,
    /// How often, with `--compare`
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// `cargo bench` passes it.
    #[arg(long, hide = true)]
    bench: bool,
    /// Be a follower of the leader there.
    #[arg(long, hide = true)]
    pub(crate) follow: Option<SocketAddr>,
    /// Which process this is.
    #[arg(long, hide = true, default_value_t = 0)]
    pub(crate) node: usize,
}

/// How the log reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteMode {
    /// Write of whole pages, then fdatasync, both through the ring.
    Buffered,
    /// `pwrite` on this thread, fdatasync through the ring.
    Inline,
    /// `pwrite` and `fdatasync` on this thread, which waits.
    Blocking,
    /// One buffered write with RWF_DSYNC through the ring.
    Dsync,
    /// Like `Dsync`, and followers write what they received from where it lies (a vector).
    Gathered,
    /// One O_DIRECT write of whole blocks with RWF_DSYNC through the ring.
    Direct,
    /// One O_DIRECT write of whole blocks, then fdatasync.
    DirectSync,
}

impl WriteMode {
    const NAMES: [(&str, WriteMode); 7] = [
        ("buffered", WriteMode::Buffered),
        ("inline", WriteMode::Inline),
        ("blocking", WriteMode::Blocking),
        ("dsync", WriteMode::Dsync),
        ("gathered", WriteMode::Gathered),
        ("direct", WriteMode::Direct),
        ("direct-sync", WriteMode::DirectSync),
    ];

    pub(crate) fn name(self) -> &'static str {
        WriteMode::NAMES.iter().find(|(_, mode)| *mode == self).expect("all have a name").0
    }

    /// A write and its flush are one step: none of it is done ahead.
    pub(crate) fn is_one_step(self) -> bool {
        matches!(self, WriteMode::Dsync | WriteMode::Gathered) || self.is_direct()
    }

    /// Fills the last page of a write with zeros, as the server does.
    pub(crate) fn pads(self) -> bool {
        self == WriteMode::Buffered
    }

    /// Past the page cache.
    pub(crate) fn is_direct(self) -> bool {
        matches!(self, WriteMode::Direct | WriteMode::DirectSync)
    }

    /// Followers cannot write from where they received.
    pub(crate) fn must_copy(self) -> bool {
        self == WriteMode::Dsync || self.is_direct()
    }

    /// Written on the thread itself.
    pub(crate) fn is_inline(self) -> bool {
        matches!(self, WriteMode::Inline | WriteMode::Blocking)
    }
}

impl FromStr for WriteMode {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<WriteMode> {
        let found = WriteMode::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| *mode).with_context(|| format!("no write mode \"{text}\""))
    }
}

/// One way of writing and flushing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Variant {
    pub(crate) mode: WriteMode,
    pub(crate) flushes: usize,
    pub(crate) lazy: bool,
    /// Followers copy what they receive.
    pub(crate) copy: bool,
}

impl Variant {
    /// As `--compare` takes it.
    pub(crate) fn name(self) -> String {
        let mut name = self.mode.name().to_owned();
        if self.flushes > 1 {
            name += &format!("+{}", self.flushes);
        }
        if self.lazy {
            name += "+lazy";
        }
        if self.copy && !self.mode.must_copy() {
            name += "+copy";
        }
        name
    }
}

impl FromStr for Variant {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Variant> {
        let mut words = text.split('+');
        let mode: WriteMode = words.next().unwrap_or_default().parse()?;
        let mut variant = Variant { mode, flushes: 1, lazy: false, copy: mode.must_copy() };
        for word in words {
            match word {
                "lazy" => variant.lazy = true,
                "copy" => variant.copy = true,
                number => variant.flushes = number.parse().with_context(|| format!("no variant \"{text}\""))?,
            }
        }
        Ok(variant)
    }
}

/// One load: the record's bytes, and how many are outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workload {
    pub(crate) in_flight: usize,
    pub(crate) size: usize,
}

/// One record at a time, a moderate and a high load of small ones, and bulk.
const CANONICAL: [Workload; 4] = [
    Workload { in_flight: 1, size: 256 },
    Workload { in_flight: 32, size: 256 },
    Workload { in_flight: 1024, size: 256 },
    Workload { in_flight: 64, size: 64 << 10 },
];

/// Bytes that may be outstanding: well below the log buffer.
const OUTSTANDING_MAX_BYTES: usize = 32 << 20;

impl Options {
    pub(crate) fn read() -> Result<Options> {
        let mut options = Options::parse();
        if options.small {
            options.seconds = options.seconds.min(0.2);
            options.warm_up = options.warm_up.min(0.05);
            options.rounds = 1;
        }
        for Workload { in_flight, size } in options.workloads() {
            if in_flight == 0 || size < 8 || in_flight.saturating_mul(size) > OUTSTANDING_MAX_BYTES {
                bail!("{in_flight} records of {size} bytes: at least one of 8 bytes, together {OUTSTANDING_MAX_BYTES}");
            }
        }
        if options.variants().iter().any(|variant| !(1..=8).contains(&variant.flushes)) {
            bail!("flushes in flight are 1 to 8");
        }
        Ok(options)
    }

    pub(crate) fn workloads(&self) -> Vec<Workload> {
        if self.in_flight.is_none() && self.size.is_none() {
            return CANONICAL.to_vec();
        }
        vec![Workload { in_flight: self.in_flight.unwrap_or(1), size: self.size.unwrap_or(256) }]
    }

    /// The one variant of a run.
    pub(crate) fn variant(&self) -> Variant {
        let copy = self.copy || self.write_mode.must_copy();
        Variant { mode: self.write_mode, flushes: self.flushes, lazy: self.lazy, copy }
    }

    pub(crate) fn variants(&self) -> Vec<Variant> {
        if self.compare.is_empty() { vec![self.variant()] } else { self.compare.clone() }
    }

    /// The options of one run.
    pub(crate) fn of_run(&self, workload: Workload, variant: Variant) -> Options {
        Options {
            in_flight: Some(workload.in_flight),
            size: Some(workload.size),
            write_mode: variant.mode,
            flushes: variant.flushes,
            lazy: variant.lazy,
            copy: variant.copy,
            ..self.clone()
        }
    }

    /// What a follower needs to know, as arguments.
    pub(crate) fn follower_arguments(&self, leader: SocketAddr, node: usize) -> Vec<String> {
        let mut arguments = vec![
            format!("--follow={leader}"),
            format!("--node={node}"),
            format!("--folder={}", self.folder.display()),
            format!("--write-mode={}", self.write_mode.name()),
            format!("--flushes={}", self.flushes),
        ];
        for (name, set) in [("--small", self.small), ("--lazy", self.lazy), ("--copy", self.copy)] {
            if set {
                arguments.push(name.to_owned());
            }
        }
        arguments
    }

    /// The bench's own: it is written over and removed, so its name is one that nobody else would choose.
    pub(crate) fn node_folder(&self, node: usize) -> PathBuf {
        self.folder.join(format!("floor-node-{node}"))
    }

    pub(crate) fn layout(&self) -> ChunkLayout {
        ChunkLayout { chunk_size: if self.small { 16 << 20 } else { 256 << 20 } }
    }

    pub(crate) fn span(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs_f64(self.warm_up)
    }
}
