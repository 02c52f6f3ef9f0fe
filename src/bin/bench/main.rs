//! `ringstore-bench`: the load generator.
mod outcome;
mod report;
fn main() {}
