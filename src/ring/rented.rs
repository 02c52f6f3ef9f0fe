//! The bytes of a buffer that was handed over for a send, for those who must read them first: to encrypt them.

use monoio::buf::{IoBuf, IoVecBuf};

/// The initialised bytes of a buffer.
#[must_use]
pub fn rented<T: IoBuf>(buffer: &T) -> &[u8] {
    let (start, length) = (buffer.read_ptr(), buffer.bytes_init());
    if length == 0 {
        return &[];
    }
    // SAFETY: whoever implements `IoBuf` promises that so many bytes from there on are initialised and stay where they are
    // while the buffer is borrowed.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// The first of several buffers that is not empty.
#[must_use]
pub fn rented_first<T: IoVecBuf>(buffers: &T) -> &[u8] {
    let (start, count) = (buffers.read_iovec_ptr(), buffers.read_iovec_len());
    if count == 0 {
        return &[];
    }
    // SAFETY: whoever implements `IoVecBuf` promises that so many structures lie there, and stay while it is borrowed.
    let parts = unsafe { std::slice::from_raw_parts(start, count) };
    let Some(part) = parts.iter().find(|part| part.iov_len > 0) else { return &[] };
    // SAFETY: and that each of them describes initialised bytes of the buffer.
    unsafe { std::slice::from_raw_parts(part.iov_base.cast::<u8>(), part.iov_len) }
}

#[cfg(test)]
mod tests {
    use monoio::buf::VecBuf;

    use super::*;

    #[test]
    fn the_bytes_of_a_part_are_seen() {
        assert_eq!(rented(&b"abcdef".to_vec().slice(2..4)), b"cd");
        assert_eq!(rented(&Vec::<u8>::with_capacity(8)), b"");
        assert_eq!(rented_first(&VecBuf::from(vec![Vec::new(), b"first".to_vec(), b"second".to_vec()])), b"first");
        assert_eq!(rented_first(&VecBuf::from(vec![Vec::new()])), b"");
    }
}
