//! What a caller may do with a stream: the access list in the stream's metadata, and the defaults behind it.
//!
//! For each right on its own: the list in the stream's `$acl` decides; without one, everybody may do everything with
//! user streams and administrators alone with system streams (`$…`). Rights on a metadata stream `$$x` are the metadata
//! rights of `x`. Administrators pass wherever a right exists at all.

use crate::api::users::Identity;
use crate::index::{Acl, Index, NotReady};
use crate::types::{base_stream, is_system_stream};

/// The name of the whole log in access checks.
pub const ALL_STREAM: &str = "$all";

/// What a caller wants to do with a stream, or with a metadata stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Read its events, subscribe to it.
    Read,
    /// Append events.
    Write,
    /// Delete it, softly or for good.
    Delete,
}

#[derive(Clone, Copy)]
enum Right {
    Read,
    Write,
    Delete,
    MetadataRead,
    MetadataWrite,
}

/// True when `identity` may do `action` on `stream` now.
///
/// # Errors
/// [`NotReady`]: the stream's list is not known now.
pub fn is_allowed(index: &Index, identity: &Identity, action: Action, stream: &str) -> Result<bool, NotReady> {
    let (base, right) = match (base_stream(stream), action) {
        (None, Action::Write | Action::Delete) if stream == ALL_STREAM => return Ok(false),
        (None, Action::Read) => (stream, Right::Read),
        (None, Action::Write) => (stream, Right::Write),
        (None, Action::Delete) => (stream, Right::Delete),
        // A metadata stream has no metadata of its own: whatever is written there would mean nothing.
        (Some(base), Action::Write) if base_stream(base).is_some() => return Ok(false),
        (Some(base), Action::Read) => (base, Right::MetadataRead),
        (Some(base), Action::Write) => (base, Right::MetadataWrite),
        (Some(_), Action::Delete) => return Ok(false),
    };
    // Administrators are the common case on system streams, and need no look at the metadata.
    if identity.is_admin() {
        return Ok(true);
    }
    let info = index.stream(base)?;
    let acl = info.as_ref().and_then(|info| info.metadata.acl.as_ref());
    Ok(passes(acl, right, identity, is_system_stream(base)))
}

fn passes(acl: Option<&Acl>, right: Right, identity: &Identity, is_system: bool) -> bool {
    let list = acl.and_then(|acl| match right {
        Right::Read => acl.read.as_ref(),
        Right::Write => acl.write.as_ref(),
        Right::Delete => acl.delete.as_ref(),
        Right::MetadataRead => acl.metadata_read.as_ref(),
        Right::MetadataWrite => acl.metadata_write.as_ref(),
    });
    match list {
        Some(roles) => roles.iter().any(|role| identity.has_role(role)),
        None => !is_system,
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
