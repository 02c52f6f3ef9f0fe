//! `ringstore-bench`: the load generator.
mod outcome;
fn main() {}
