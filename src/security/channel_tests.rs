//! Two channels back to back, and everybody who must not get in.
