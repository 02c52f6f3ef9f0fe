//! The real program as an operator and a client see it: its options, its ports, its files, its end.

mod bench;
mod bit_flips;
mod closed;
mod cluster;
mod deployment;
mod disk_full;
mod flips_everywhere;
mod frames;
mod garbage;
mod operator;
mod options;
mod refusals;
mod secure;
mod service;
mod single;
#[path = "../support/mod.rs"]
mod support;
