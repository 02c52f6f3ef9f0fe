//! The prose of the project as doc modules, so that links are checked. No code.
//!
//! Start with [`architecture`]; [`glossary`] has the words, [`decisions`] the reasons. [`options`] is for operators,
//! [`measuring`] says how fast it is and how to find out, [`log_format`] and [`wire`] have the bytes.

pub mod architecture;
pub mod decisions;
pub mod glossary;
pub mod log_format;
pub mod measuring;
pub mod options;
pub mod wire;
