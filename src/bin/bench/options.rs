//! The command line: every option with its unit, its default and what it does; values are checked here, once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::directory::{Target, endpoint};
use crate::load::{Expected, Way};
use crate::size::{SIZE_MAX, Sizes};

#[derive(Debug, Parser)]
#[command(
    name = "ringstore-bench",
    // A script may append to a line: the last value counts.
    args_override_self = true,
    about = "Load for ringstore, or for any server that speaks the EventStoreDB v5 TCP protocol",
    after_help = "Exit status: 0 the run is good; 1 something acknowledged is missing, or nothing succeeded; \
                  2 wrong options, or no node to connect to."
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub workload: Workload,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Workload {
    /// Writes events to streams.
    #[command(after_help = "Examples:\n  ringstore-bench writes --connections 32 --in-flight 32\n  \
        ringstore-bench writes --events 500 --in-flight 8 --streams 1 --verify\n  \
        ringstore-bench writes --size 256:90,4096:10 --rate 50000 --seconds 60 --json result.json")]
    Writes {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        shape: WriteShape,
    },
    /// Reads pages of a stream, or of the all-stream. What is read is written first where it is not there yet.
    #[command(after_help = "Examples:\n  ringstore-bench reads --page 500 --in-flight 4\n  \
        ringstore-bench reads --direction all --span 1000000 --connections 8\n  \
        ringstore-bench reads --target follower --direction backward --cold")]
    Reads {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        shape: ReadShape,
    },
    /// Writes events and receives them through subscriptions: the time from the write's start to the arrival.
    #[command(
        after_help = "Examples:\n  ringstore-bench subscriptions --rate 5000 --connections 4 --subscribers 8\n  \
        ringstore-bench subscriptions --all --in-flight 32 --verify"
    )]
    Subscriptions {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        shape: WriteShape,
        /// Connections that subscribe
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        subscribers: u32,
        /// Each of them subscribes to the all-stream; without it they share the streams, and every stream has one at
        /// least
        #[arg(long)]
        all: bool,
    },
    /// Writes and reads over the same connections.
    #[command(after_help = "Example:\n  ringstore-bench mixed --writes 80 --page 20 --connections 16 --in-flight 4")]
    Mixed {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        shape: WriteShape,
        #[command(flatten)]
        reads: ReadShape,
        /// Writes among 100 requests
        #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=100))]
        writes: u32,
    },
    /// Many idle connections that only answer heartbeats, and some that write: memory for each, and the latency.
    #[command(after_help = "Example:\n  ringstore-bench connections --idle 5000 --connections 32")]
    Connections {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        shape: WriteShape,
        /// Connections that are idle, beside the `--connections` that write
        #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
        idle: u32,
    },
}

/// Options of every workload.
#[derive(Debug, Args, Clone)]
pub(crate) struct Common {
    /// Connections that make requests
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: u32,
    /// Requests that each of them has on the way at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// Length of the measured span, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub seconds: Duration,
    /// The load runs for so long before it is measured, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds_or_none)]
    pub warm_up: Duration,
    /// Threads that make the load; they share the connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub threads: u32,
    /// Open loop: so many requests a second of all connections together, at times fixed beforehand, from which the
    /// latency counts. Without it: closed loop, the next request leaves when an answer came
    #[arg(long, value_name = "PER_SECOND", value_parser = rate)]
    pub rate: Option<f64>,
    /// The node to connect to: `leader`, `follower`, or HOST:PORT of a client TCP port
    #[arg(long, value_name = "NODE", default_value = "leader")]
    pub target: Target,
    /// HTTP endpoints that are asked for the gossip
    #[arg(
        long,
        value_name = "HOST:PORT,...",
        value_delimiter = ',',
        default_value = "127.0.0.1:2113,127.0.0.2:2113,127.0.0.3:2113",
        value_parser = endpoint
    )]
    pub seed: Vec<SocketAddr>,
    /// Login and password
    #[arg(long, value_name = "LOGIN:PASSWORD", default_value = "admin:changeit", value_parser = user)]
    pub user: (String, String),
    /// A request without an answer is sent again after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "7", value_parser = seconds)]
    pub timeout: Duration,
    /// At the end read back what was acknowledged; exit status 1 when something is missing
    #[arg(long)]
    pub verify: bool,
    /// Write the result as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Write the latency's percentiles to this file, in the form of HdrHistogram's plotting tools
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Draw latency by percentile and throughput over time into this file
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// How events are written.
#[derive(Debug, Args, Clone)]
pub(crate) struct WriteShape {
    /// Events in each write
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub events: u32,
    /// Bytes of data in each event: `256`, a range `100-2000`, or sizes with weights `256:90,4096:10`; `16k` is 16,384
    #[arg(long, value_name = "BYTES", default_value = "256")]
    pub size: Sizes,
    /// Bytes of metadata in each event
    #[arg(long, value_name = "BYTES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=SIZE_MAX as i64))]
    pub metadata: u32,
    /// Streams that are written in turn [default: 1000; 10 with subscriptions]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub streams: Option<u32>,
    /// Expected version of each write
    #[arg(long, value_enum, default_value_t = Expected::Any)]
    pub expected: Expected,
}

/// How pages are read.
#[derive(Debug, Args, Clone)]
pub(crate) struct ReadShape {
    /// Which way
    #[arg(long, value_enum, default_value_t = Way::Forward)]
    pub direction: Way,
    /// Events in a page; the protocol's limit is 4096
    #[arg(long, value_name = "EVENTS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub page: u32,
    /// Events that are read again and again: of one stream, or from the end of the log where the direction begins
    #[arg(long, value_name = "EVENTS", default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub span: u32,
    /// Bytes of data in each event of the stream that is prepared
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(..=1_048_576))]
    pub read_size: u32,
    /// Do not read the span once before the run. To empty the kernel's page cache as well is the caller's matter. The
    /// all-stream is then read one page after the other on each connection: only a page says where the next one begins
    #[arg(long)]
    pub cold: bool,
}

fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| format!("`{text}` is not a number"))?;
    if number.is_finite() { Ok(number) } else { Err(format!("`{text}` is not a number")) }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = number(text)?;
    if !(0.1..=86_400.0).contains(&seconds) {
        return Err(format!("{seconds} seconds; allowed are 0.1 to 86400"));
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn seconds_or_none(text: &str) -> Result<Duration, String> {
    if number(text)? == 0.0 { Ok(Duration::ZERO) } else { seconds(text) }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate = number(text)?;
    if (0.1..=100e6).contains(&rate) { Ok(rate) } else { Err(format!("{rate} a second; allowed are 0.1 to 100000000")) }
}

fn user(text: &str) -> Result<(String, String), String> {
    let (login, password) = text.split_once(':').ok_or("write it as LOGIN:PASSWORD")?;
    for part in [login, password] {
        if part.is_empty() || part.len() > 255 {
            return Err("login and password have 1 to 255 bytes each".into());
        }
    }
    Ok((login.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }

    #[test]
    fn every_example_is_understood() {
        use clap::CommandFactory;
        let command = Options::command();
        for workload in command.get_subcommands() {
            let help = workload.get_after_help().expect("examples").to_string();
            let examples: Vec<_> = help.lines().filter(|line| line.contains("ringstore-bench")).collect();
            assert!(!examples.is_empty(), "{}", workload.get_name());
            for example in examples {
                Options::try_parse_from(example.split_whitespace())
                    .unwrap_or_else(|error| panic!("{example}: {error}"));
            }
        }
    }

    #[test]
    fn the_last_value_counts() {
        let line = "ringstore-bench writes --seconds 1 --seconds 2 --expected exact --expected any";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        let Workload::Writes { common, shape } = options.workload else { panic!("writes") };
        assert_eq!((common.seconds, shape.expected), (Duration::from_secs(2), Expected::Any));
    }

    #[test]
    fn bad_values_are_refused_with_the_limit() {
        for (arguments, reason) in [
            (&["--seconds", "0"][..], "0.1 to 86400"),
            (&["--warm-up", "-1"], "unexpected argument"),
            (&["--rate", "inf"], "not a number"),
            (&["--rate", "0"], "0.1 to"),
            (&["--connections", "0"], "1..=20000"),
            (&["--user", "admin"], "LOGIN:PASSWORD"),
            (&["--size", "huge"], "not a size"),
            (&["--seed", "nowhere"], "HOST:PORT"),
            (&["--expected", "some"], "no-stream"),
            (&["--metadata", "99999999"], "16766216"),
        ] {
            let all = ["ringstore-bench", "writes"].iter().chain(arguments);
            let error = Options::try_parse_from(all).unwrap_err().to_string();
            assert!(error.contains(reason), "{arguments:?}: {error}");
        }
    }
}
