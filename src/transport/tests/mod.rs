//! Whole log threads on loopback: real rings, real files, real engines. Votes, which travel by HTTP otherwise, are carried
//! between the nodes by a thread of the test.

mod cluster;
mod links;
mod node;
mod planes;
