//! The manifest: which tables make up the index, and what of the log they cover together.

use std::io;

use super::pages::Damage;
use super::store::TableStore;

const NAME: &str = "manifest";
const UNFINISHED: &str = "manifest.tmp";
const MAGIC: &[u8; 8] = b"RSINDEX\0";
const VERSION: u32 = 1;
const HEAD_BYTES: usize = 48;
const LISTED_BYTES: usize = 24;

/// No number that counts manifests or tables comes near this.
const NUMBER_MAX: u64 = 1 << 62;

/// More tables than merging ever leaves.
const TABLES_MAX: usize = 4096;

/// A table as the manifest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) id: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest {
    /// One more with each that is written.
    pub(super) sequence: u64,
    /// The next table's number.
    pub(super) next_id: u64,
    /// The log's chunk size.
    pub(super) chunk_size: u64,
    /// The log is indexed up to here, but for what lies in no table.
    pub(super) covered: u64,
    /// In the order of the log. What lies between two of them is to be indexed again.
    pub(super) tables: Vec<Listed>,
}

impl Manifest {
    /// `None` when there is none.
    pub(super) fn load(store: &dyn TableStore) -> Result<Option<Manifest>, Damage> {
        let file = match store.open(NAME) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let length = usize::try_from(file.length()?).unwrap_or(usize::MAX);
        if length > HEAD_BYTES + TABLES_MAX * LISTED_BYTES + 4 {
            return Err(Damage::Content("it is too long"));
        }
        let mut bytes = vec![0; length];
        file.read_at(0, &mut bytes)?;
        Manifest::decode(&bytes).map(Some)
    }

    pub(super) fn save(&self, store: &dyn TableStore) -> io::Result<()> {
        store.write(UNFINISHED, 0, &self.encode())?;
        store.publish(UNFINISHED, NAME)
    }

    /// True when a file of this name belongs to the index of this manifest.
    pub(super) fn keeps(&self, name: &str) -> bool {
        name == NAME || self.tables.iter().any(|table| super::table::file_name(table.id) == name)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&(self.tables.len() as u32).to_le_bytes());
        let head = [self.sequence, self.next_id, self.chunk_size, self.covered];
        let tables = self.tables.iter().flat_map(|table| [table.id, table.from, table.to]);
        head.into_iter().chain(tables).for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> Result<Manifest, Damage> {
        let (body, crc) = bytes.split_last_chunk::<4>().map_or((&[][..], &[0; 4]), |(body, crc)| (body, crc));
        if body.len() < HEAD_BYTES || !body.starts_with(MAGIC) {
            return Err(Damage::Content("it is no manifest"));
        }
        let (found, computed) = (u32::from_le_bytes(*crc), crc32c::crc32c(body));
        if found != computed {
            return Err(Damage::Page { page: 0, found, computed });
        }
        let u32_at = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().expect("four bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        if u32_at(8) != VERSION {
            return Err(Damage::Content("it has another version"));
        }
        if body.len() != HEAD_BYTES + u32_at(12) as usize * LISTED_BYTES {
            return Err(Damage::Content("its length does not fit its number of tables"));
        }
        let listed = |at: usize| Listed { id: u64_at(at), from: u64_at(at + 8), to: u64_at(at + 16) };
        let tables: Vec<Listed> = (HEAD_BYTES..body.len()).step_by(LISTED_BYTES).map(listed).collect();
        let (sequence, next_id, chunk_size, covered) = (u64_at(16), u64_at(24), u64_at(32), u64_at(40));
        if sequence > NUMBER_MAX || next_id > NUMBER_MAX {
            return Err(Damage::Content("its numbers cannot be counted on from"));
        }
        let mut end = 0;
        for table in &tables {
            if table.from < end || table.to <= table.from || table.to > covered || table.id >= next_id {
                return Err(Damage::Content("its tables do not follow one another"));
            }
            end = table.to;
        }
        Ok(Manifest { sequence, next_id, chunk_size, covered, tables })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::store::memory::MemoryStore;

    #[test]
    fn golden_layout() {
        let tables = vec![Listed { id: 3, from: 0, to: 0x100 }, Listed { id: 5, from: 0x200, to: 0x300 }];
        let manifest = Manifest { sequence: 7, next_id: 6, chunk_size: 1 << 20, covered: 0x400, tables };
        let bytes = manifest.encode();
        let mut expected = b"RSINDEX\0\x01\0\0\0\x02\0\0\0".to_vec();
        for number in [7, 6, 1 << 20, 0x400, 3, 0, 0x100, 5, 0x200, 0x300_u64] {
            expected.extend_from_slice(&number.to_le_bytes());
        }
        assert_eq!(bytes[..bytes.len() - 4], expected);
        assert_eq!(bytes[bytes.len() - 4..], crc32c::crc32c(&expected).to_le_bytes());
        assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
        assert!(
            manifest.keeps("table-0000000003") && manifest.keeps("manifest") && !manifest.keeps("table-0000000004")
        );
    }

    #[test]
    fn any_byte_that_is_wrong_is_seen() {
        let store = MemoryStore::default();
        assert_eq!(Manifest::load(&store).unwrap(), None);
        let tables = vec![Listed { id: 0, from: 0, to: 64 }];
        let manifest = Manifest { sequence: 1, next_id: 1, chunk_size: 4096, covered: 64, tables };
        manifest.save(&store).unwrap();
        assert_eq!(Manifest::load(&store).unwrap(), Some(manifest.clone()));
        let bytes = manifest.encode();
        for at in 0..bytes.len() {
            let mut hurt = bytes.clone();
            hurt[at] ^= 4;
            assert!(Manifest::decode(&hurt).is_err(), "{at}");
            assert!(Manifest::decode(&bytes[..at]).is_err(), "{at}");
        }
        let (sequence, next_id) = (u64::MAX, u64::MAX);
        assert!(Manifest::decode(&Manifest { sequence, ..manifest.clone() }.encode()).is_err(), "no number follows");
        assert!(Manifest::decode(&Manifest { next_id, ..manifest.clone() }.encode()).is_err(), "no table follows");
        let other = Manifest { covered: 63, ..manifest };
        assert!(Manifest::decode(&other.encode()).is_err(), "a table beyond what is covered");
    }
}
