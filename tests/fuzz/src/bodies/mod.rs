//! The bodies of the fuzz targets: what is done with the bytes, and what must hold of it beyond "no crash".
//!
//! Each body takes any bytes. Where plain bytes would never get past a checksum, a part of the input says how to mend
//! it. Bodies give `Seed`s, too: well-formed inputs to begin with, made from the codecs and from recorded messages.

mod client;
mod config;
mod consensus;
mod footer;
mod gossip;
mod http;
mod index;
mod link;
mod operator;
mod records;
mod recovery;
mod state;
mod tools;

/// One target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: that of its program, and of its folder in `corpus`.
    pub name: &'static str,
    /// What is done with an input.
    pub body: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets.
pub const TARGETS: [Target; 19] = [
    Target { name: "admin", body: operator::admin, seeds: operator::admin_seeds },
    Target { name: "backup_json", body: operator::backup_json, seeds: operator::backup_json_seeds },
    Target { name: "chunk_header", body: state::chunk_header, seeds: state::chunk_header_seeds },
    Target { name: "chunk_footer", body: footer::chunk_footer, seeds: footer::chunk_footer_seeds },
    Target { name: "client_frames", body: client::frames, seeds: client::frames_seeds },
    Target { name: "client_messages", body: client::messages, seeds: client::messages_seeds },
    Target { name: "command_line", body: config::command_line, seeds: config::command_line_seeds },
    Target { name: "config_file", body: config::file, seeds: config::file_seeds },
    Target { name: "consensus", body: consensus::replica, seeds: consensus::replica_seeds },
    Target { name: "gossip", body: gossip::exchanges, seeds: gossip::exchanges_seeds },
    Target { name: "http", body: http::requests_and_answers, seeds: http::seeds },
    Target { name: "index_manifest", body: index::index_manifest, seeds: index::index_manifest_seeds },
    Target { name: "index_table", body: index::index_table, seeds: index::index_table_seeds },
    Target { name: "link", body: link::link, seeds: link::link_seeds },
    Target { name: "log_info", body: footer::log_info, seeds: footer::log_info_seeds },
    Target { name: "peer_answer", body: operator::peer_answer, seeds: operator::peer_answer_seeds },
    Target { name: "records", body: records::records, seeds: records::records_seeds },
    Target { name: "recovery", body: recovery::recovery, seeds: recovery::recovery_seeds },
    Target { name: "state", body: state::slots, seeds: state::slots_seeds },
];

/// The body of a target.
///
/// # Panics
/// When there is none of that name.
#[must_use]
pub fn body(name: &str) -> fn(&[u8]) {
    TARGETS.iter().find(|target| target.name == name).expect("a target of that name").body
}
