//! Threads and processors.

use crate::config::table::{Group, Kind, OptionSpec, Support};
use crate::limits::EDGE_THREADS_MAX;

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "EdgeThreads",
        kind: Kind::Integer { min: 0, max: EDGE_THREADS_MAX as i64 },
        default: "1",
        example: "4",
        group: Group::Threads,
        help: "Threads that serve clients; 0 means one for each processor.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "CpuPinning",
        kind: Kind::Pinning,
        default: "",
        example: "log=0,control=1,edges=2-3",
        group: Group::Threads,
        help: "Binds threads to processors: log, control and background to one each, edges to several. Empty means \
            that the system places them.",
        is_secret: false,
        support: Support::Present,
    },
];
