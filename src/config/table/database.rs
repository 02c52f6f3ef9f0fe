//! The log and its files.

use crate::config::table::{Group, Kind, OptionSpec, Support};
use crate::limits::{APPEND_SIZE_MAX_BYTES, APPEND_SIZE_MIN_BYTES, CHUNK_SIZE_MAX_BYTES, CHUNK_SIZE_MIN_BYTES};

pub(super) const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        name: "Db",
        kind: Kind::Path,
        default: "/var/lib/ringstore",
        example: "./data",
        group: Group::Database,
        help: "Directory of the log. One node only may use it.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ChunkSize",
        kind: Kind::Bytes { min: CHUNK_SIZE_MIN_BYTES, max: CHUNK_SIZE_MAX_BYTES },
        default: "256MiB",
        example: "64MiB",
        group: Group::Database,
        help: "Size of a chunk file; a multiple of 4096 and at least twice MaxAppendSize. The same on all nodes, \
            and fixed once the node has started for the first time.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "MaxAppendSize",
        kind: Kind::Bytes { min: APPEND_SIZE_MIN_BYTES, max: APPEND_SIZE_MAX_BYTES },
        default: "16MiB",
        example: "1MiB",
        group: Group::Database,
        help: "Largest write of a client: all events of one request together.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "ScrubMibPerSecond",
        kind: Kind::Integer { min: 0, max: 10_000 },
        default: "20",
        example: "100",
        group: Group::Database,
        help: "MiB of full chunks that are read and checked each second, round and round, to find what the disk has lost. \
            0 = off.",
        is_secret: false,
        support: Support::Present,
    },
    OptionSpec {
        name: "UnsafeDisableFlushToDisk",
        kind: Kind::Switch,
        default: "false",
        example: "true",
        group: Group::Database,
        help: "Acknowledge writes that are not on disk. Unsafe: a power failure loses acknowledged writes.",
        is_secret: false,
        support: Support::Present,
    },
];
