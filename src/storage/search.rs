//! The search for a record of the log where nobody knows where one begins: behind damage.

use std::io;
use std::ops::Range;

use crate::codec::record::Header;
use crate::limits::{RECORD_ALIGNMENT, RECORD_HEADER_BYTES};
use crate::types::{LogPosition, Term};

use super::disk::{Disk, FileName, read_around};
use super::layout::ChunkLayout;

/// Bytes read at a time.
const WINDOW_BYTES: u64 = 1 << 20;

/// Where a record says its position, from its start.
const POSITION_AT: usize = 8;

/// The first record that begins in `range`, stands in its place, has a good checksum, and is of `term` or a later one.
/// Looks at every multiple of eight; what a record says of its own position rules nearly all of them out at once.
///
/// # Errors
/// Those of reading, bad sectors aside: no record is found there.
pub(super) fn find_record(
    disk: &dyn Disk,
    layout: ChunkLayout,
    range: Range<LogPosition>,
    term: Term,
) -> io::Result<Option<Header>> {
    let mut window = vec![0; WINDOW_BYTES.min(layout.chunk_size) as usize];
    let mut at = LogPosition(range.start.0.next_multiple_of(RECORD_ALIGNMENT as u64));
    while at < range.end {
        let length = layout.room(at).min(WINDOW_BYTES) as usize;
        if length < RECORD_HEADER_BYTES {
            // No record begins so close to the end of a chunk.
            at = at.plus(length as u64);
            continue;
        }
        let bytes = &mut window[..length];
        read_around(disk, FileName::Chunk(layout.chunk_of(at)), layout.file_offset(at), bytes)?;
        for candidate in candidates(bytes, at).filter(|&position| position < range.end) {
            if let Some(header) = check(disk, layout, candidate)?.filter(|header| header.term >= term) {
                return Ok(Some(header));
            }
        }
        // A header may lie across the window's end.
        let is_last = length as u64 == layout.room(at);
        at = at.plus(length as u64 - if is_last { 0 } else { RECORD_HEADER_BYTES as u64 - RECORD_ALIGNMENT as u64 });
    }
    Ok(None)
}

/// Where in `bytes`, which begin at `start`, eight bytes say the position that a record around them would have.
fn candidates(bytes: &[u8], start: LogPosition) -> impl Iterator<Item = LogPosition> {
    let places = bytes[POSITION_AT..].as_chunks::<RECORD_ALIGNMENT>().0.iter().zip(0..);
    places.filter_map(move |(place, index)| {
        let position = start.plus(index * RECORD_ALIGNMENT as u64);
        (u64::from_le_bytes(*place) == position.0).then_some(position)
    })
}

/// The record at `position`, when it checks out.
pub(super) fn check(disk: &dyn Disk, layout: ChunkLayout, position: LogPosition) -> io::Result<Option<Header>> {
    let (name, room) = (FileName::Chunk(layout.chunk_of(position)), layout.room(position));
    let mut head = [0; RECORD_HEADER_BYTES];
    if room < head.len() as u64 {
        return Ok(None);
    }
    read_around(disk, name, layout.file_offset(position), &mut head)?;
    let Ok(header) = Header::read(&head, position, room) else { return Ok(None) };
    let (mut crc, mut at) = (crc32c::crc32c(&head[8..]), position.plus(head.len() as u64));
    let mut piece = vec![0; (WINDOW_BYTES as usize).min(header.length as usize)];
    while at < header.end() {
        let length = header.end().since(at).min(piece.len() as u64) as usize;
        read_around(disk, name, layout.file_offset(at), &mut piece[..length])?;
        crc = crc32c::crc32c_append(crc, &piece[..length]);
        at = at.plus(length as u64);
    }
    Ok((crc == header.crc).then_some(header))
}
