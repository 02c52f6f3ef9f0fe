//! From options to a plan: which connections there are, what they do, and how the settings are shown.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::ensure;

use crate::connection::Role;
use crate::directory::{Directory, Target};
use crate::load::{Clock, Expected, Load, Writes};
use crate::options::{Common, ReadShape, Workload, WriteShape};
use crate::prepare::{Span, prepare};
use crate::wire::EventTemplate;
use crate::worker::{Control, Plan};

const STREAMS: u32 = 1000;
/// With subscriptions: few enough that every subscriber is woken often.
const STREAMS_SUBSCRIBED: u32 = 10;

/// Settings by name, in the order in which they are shown.
pub(crate) type Settings = Vec<(&'static str, String)>;

/// What the workload asks for, before anything is connected.
pub(crate) struct Wanted {
    common: Common,
    writes: Option<WriteShape>,
    reads: Option<ReadShape>,
    writes_percent: u32,
    /// Connections beside those that make requests.
    idle: u32,
    subscribers: u32,
    all: bool,
    pub settings: Settings,
}

impl Wanted {
    pub(crate) fn new(workload: Workload) -> Self {
        let (name, common) = match &workload {
            Workload::Writes { common, .. } => ("writes", common),
            Workload::Reads { common, .. } => ("reads", common),
            Workload::Subscriptions { common, .. } => ("subscriptions", common),
            Workload::Mixed { common, .. } => ("mixed", common),
            Workload::Connections { common, .. } => ("connections", common),
        };
        let mut wanted = Self {
            settings: common_settings(name, common),
            common: common.clone(),
            writes: None,
            reads: None,
            writes_percent: 100,
            idle: 0,
            subscribers: 0,
            all: false,
        };
        wanted.of(workload);
        wanted
    }

    fn of(&mut self, workload: Workload) {
        match workload {
            Workload::Writes { shape, .. } => self.set_writes(shape, STREAMS),
            Workload::Reads { shape, .. } => self.set_reads(shape),
            Workload::Subscriptions { shape, subscribers, all, .. } => {
                self.set_writes(shape, STREAMS_SUBSCRIBED);
                (self.subscribers, self.all) = (subscribers, all);
                self.settings.push(("subscribers", subscribers.to_string()));
                self.settings.push(("subscribed to", if all { "all" } else { "streams" }.to_owned()));
            }
            Workload::Mixed { shape, reads, writes, .. } => {
                self.set_writes(shape, STREAMS);
                self.set_reads(reads);
                self.writes_percent = writes;
                self.settings.push(("writes of 100", writes.to_string()));
            }
            Workload::Connections { shape, idle, .. } => {
                self.set_writes(shape, STREAMS);
                self.idle = idle;
                self.settings.push(("idle connections", idle.to_string()));
            }
        }
    }

    fn set_writes(&mut self, mut shape: WriteShape, streams: u32) {
        let streams = *shape.streams.get_or_insert(streams);
        self.settings.extend([
            ("events", shape.events.to_string()),
            ("size", shape.size.to_string()),
            ("metadata", shape.metadata.to_string()),
            ("streams", streams.to_string()),
            ("expected", format!("{:?}", shape.expected)),
        ]);
        self.writes = Some(shape);
    }

    fn set_reads(&mut self, shape: ReadShape) {
        self.settings.extend([
            ("direction", format!("{:?}", shape.direction)),
            ("page", shape.page.to_string()),
            ("span", shape.span.to_string()),
            ("read size", shape.read_size.to_string()),
            ("reads", if shape.cold { "cold" } else { "warm" }.to_owned()),
        ]);
        self.reads = Some(shape);
    }

    pub(crate) fn common(&self) -> &Common {
        &self.common
    }

    pub(crate) fn idle(&self) -> u32 {
        self.idle
    }

    /// All connections of the run.
    pub(crate) fn connections(&self) -> u64 {
        u64::from(self.common.connections) + u64::from(self.idle) + u64::from(self.subscribers)
    }

    /// Options that do not go together.
    ///
    /// # Errors
    /// Says which, and what to do.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(shape) = &self.writes {
            let (streams, connections) = (shape.streams.unwrap_or(STREAMS), self.common.connections);
            ensure!(
                shape.expected != Expected::Exact || streams >= connections,
                "--expected exact wants a stream for each connection: {streams} streams, {connections} connections; \
                 give --streams {connections} or more"
            );
            ensure!(
                shape.expected != Expected::NoStream || self.subscribers == 0 || self.all,
                "--expected no-stream begins new streams, which nobody can subscribe to before; add --all"
            );
            let bytes = u64::from(shape.events) * (u64::from(shape.size.largest()) + u64::from(shape.metadata) + 64);
            ensure!(
                bytes <= 60 << 20,
                "{} events of up to {} bytes are {} MB in one write; the protocol's limit is 64 MiB",
                shape.events,
                shape.size.largest(),
                bytes / 1_000_000
            );
        }
        if let Some(shape) = &self.reads {
            ensure!(
                shape.span >= shape.page,
                "--span {} is less than one page of {} events; make it larger",
                shape.span,
                shape.page
            );
        }
        Ok(())
    }

    /// The plan; what is to be read is prepared for it.
    ///
    /// # Errors
    /// When the preparation fails.
    pub(crate) fn plan(&self, directory: Arc<Directory>, control: Control) -> anyhow::Result<Plan> {
        let common = &self.common;
        let writes = self.writes.as_ref().map(|shape| writes(common, shape));
        let reads = match &self.reads {
            Some(shape) => Some(prepare(&span(common, shape), &directory, &common.user)?),
            None => None,
        };
        let mut roles = vec![Role::Active; common.connections as usize];
        roles.extend(self.subscriptions(writes.as_ref()).into_iter().map(Role::Subscriber));
        roles.extend((0..self.idle).map(|_| Role::Idle));
        Ok(Plan {
            load: Load { writes, reads, writes_percent: self.writes_percent },
            threads: (common.threads as usize).min(roles.len()),
            roles,
            in_flight: common.in_flight,
            rate: common.rate,
            warm_up: common.warm_up,
            measured: common.seconds,
            timeout: common.timeout,
            user: common.user.clone(),
            directory,
            control,
        })
    }

    /// The streams of each subscriber: with more streams than subscribers each has some, else some are alike.
    fn subscriptions(&self, writes: Option<&Writes>) -> Vec<Vec<Vec<u8>>> {
        let Some(writes) = writes else { return Vec::new() };
        let subscribers = self.subscribers;
        let of = |index: u32| {
            if self.all {
                return vec![Vec::new()];
            }
            if subscribers > writes.streams {
                return vec![writes.stream_name(u64::from(index % writes.streams))];
            }
            (index..writes.streams).step_by(subscribers as usize).map(|n| writes.stream_name(n.into())).collect()
        };
        (0..subscribers).map(of).collect()
    }
}

/// Where the memory of idle connections shows: nodes that the load connects to.
pub(crate) fn connected_nodes(directory: &Directory) -> Vec<SocketAddr> {
    let members = directory.members().into_iter();
    members.filter(|member| directory.wants(member.tcp)).map(|member| member.http).collect()
}

fn common_settings(name: &str, common: &Common) -> Settings {
    let target = match &common.target {
        Target::Leader => "leader".to_owned(),
        Target::Follower => "follower".to_owned(),
        Target::Node(name, _) => name.clone(),
    };
    vec![
        ("workload", name.to_owned()),
        ("target", target),
        ("connections", common.connections.to_string()),
        ("in flight", common.in_flight.to_string()),
        ("loop", common.rate.map_or("closed".to_owned(), |rate| format!("open, {rate} a second"))),
        ("seconds", common.seconds.as_secs_f64().to_string()),
        ("warm-up", common.warm_up.as_secs_f64().to_string()),
        ("threads", common.threads.to_string()),
    ]
}

fn writes(common: &Common, shape: &WriteShape) -> Writes {
    Writes {
        prefix: format!("bench-{:08x}-", fastrand::u32(..)),
        streams: shape.streams.unwrap_or(STREAMS),
        events: shape.events,
        sizes: shape.size.clone(),
        metadata: shape.metadata,
        expected: shape.expected,
        require_leader: common.target == Target::Leader,
        template: EventTemplate::new("bench", shape.size.largest(), shape.metadata),
        clock: Clock::start(),
    }
}

fn span(common: &Common, shape: &ReadShape) -> Span {
    Span {
        way: shape.direction,
        page: shape.page,
        // Whole pages.
        events: shape.span / shape.page * shape.page,
        size: shape.read_size,
        cold: shape.cold,
        require_leader: common.target == Target::Leader,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    fn wanted(line: &str) -> Wanted {
        let arguments = ["ringstore-bench"].into_iter().chain(line.split_whitespace());
        Wanted::new(Options::try_parse_from(arguments).unwrap().workload)
    }

    #[test]
    fn options_that_do_not_go_together_are_refused() {
        for (line, reason) in [
            ("writes --expected exact --connections 5 --streams 4", "--streams 5"),
            ("subscriptions --expected no-stream", "--all"),
            ("writes --events 10000 --size 16k", "64 MiB"),
            ("reads --page 500 --span 400", "less than one page"),
        ] {
            let error = wanted(line).check().unwrap_err().to_string();
            assert!(error.contains(reason), "{line}: {error}");
        }
        for line in ["writes", "reads", "subscriptions --all --expected no-stream", "mixed", "connections"] {
            wanted(line).check().unwrap();
        }
    }

    #[test]
    fn every_stream_has_a_subscriber() {
        let check = |line: &str, expected: &[usize]| {
            let wanted = wanted(line);
            let writes = writes(&wanted.common, wanted.writes.as_ref().unwrap());
            let streams = wanted.subscriptions(Some(&writes));
            assert_eq!(streams.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{line}");
        };
        check("subscriptions --streams 5 --subscribers 2", &[3, 2]);
        check("subscriptions --streams 2 --subscribers 3", &[1, 1, 1]);
        check("subscriptions --subscribers 2 --all", &[1, 1]);
    }
}
