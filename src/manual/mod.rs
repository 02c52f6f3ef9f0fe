//! The manual: prose as doc modules, so that links are checked.

pub mod options;
