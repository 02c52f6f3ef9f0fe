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
        help: "Threads that serve clients; 0 means one for each processor, with ExtCpus one for each of those.",
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
            that the system places them, or IntCpus and ExtCpus do: a thread is named in one of the options only.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "IntCpus",
        kind: Kind::Cpus,
        default: "",
        example: "0-3",
        group: Group::Threads,
        help: "Processors of the internal plane: the log thread with the kernel's workers of its ring, the control \
            thread and the background threads run on these only, each on any of them. Best those that the \
            interrupts of IntDevice arrive on, or their neighbours on the same NUMA node. Not together with log, \
            control or background in CpuPinning, which give each of these threads one processor.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ExtCpus",
        kind: Kind::Cpus,
        default: "",
        example: "4-7",
        group: Group::Threads,
        help: "Processors of the external plane: the edge threads take one each, in turn. Best without those in \
            IntCpus, so that clients cannot slow replication down. Not together with edges in CpuPinning.",
        is_secret: false,
        support: Support::Present,
    },
];
