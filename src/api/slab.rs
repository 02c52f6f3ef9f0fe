//! Numbered places whose numbers are never used twice: a late answer to a place that was given up finds nothing.

/// A bounded table. A key is a place and the count of its earlier tenants.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
    capacity: usize,
    count: usize,
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    value: Option<T>,
}

impl<T> Slab<T> {
    /// An empty table for `capacity` values. Memory is taken as it fills.
    pub(super) fn new(capacity: usize) -> Slab<T> {
        assert!(u32::try_from(capacity).is_ok(), "{capacity} places");
        Slab { places: Vec::new(), free: Vec::new(), capacity, count: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.count >= self.capacity
    }

    /// Puts a value in and gives its key; hands it back when the table is full.
    pub(super) fn insert(&mut self, value: T) -> Result<u64, T> {
        if self.is_full() {
            return Err(value);
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, value: None });
            u32::try_from(self.places.len() - 1).expect("capacity was checked")
        });
        let place = &mut self.places[index as usize];
        assert!(place.value.is_none(), "place {index} was free");
        place.value = Some(value);
        self.count += 1;
        Ok(key(index, place.generation))
    }

    pub(super) fn get(&self, key: u64) -> Option<&T> {
        let (index, generation) = parts(key);
        self.places.get(index).filter(|place| place.generation == generation)?.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (index, generation) = parts(key);
        self.places.get_mut(index).filter(|place| place.generation == generation)?.value.as_mut()
    }

    /// Takes a value out; `None` when it is gone already.
    pub(super) fn remove(&mut self, key: u64) -> Option<T> {
        let (index, generation) = parts(key);
        let place = self.places.get_mut(index).filter(|place| place.generation == generation)?;
        let value = place.value.take()?;
        place.generation = place.generation.wrapping_add(1);
        self.free.push(index as u32);
        self.count -= 1;
        Some(value)
    }

    /// How many places there are, free ones among them.
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Who is at a place.
    pub(super) fn at(&self, place: usize) -> Option<&T> {
        self.places.get(place)?.value.as_ref()
    }

    /// All values with their keys, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        let tenants = self.places.iter().enumerate();
        tenants.filter_map(|(index, place)| Some((key(index as u32, place.generation), place.value.as_ref()?)))
    }
}

fn key(index: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(index)
}

fn parts(key: u64) -> (usize, u32) {
    ((key & u64::from(u32::MAX)) as usize, (key >> 32) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_means_one_value_only() {
        let mut slab = Slab::new(2);
        let first = slab.insert("a").unwrap();
        let second = slab.insert("b").unwrap();
        assert_eq!(slab.insert("c"), Err("c"), "full");
        assert_eq!(slab.remove(first), Some("a"));
        let third = slab.insert("c").unwrap();
        assert_eq!(slab.get(first), None, "the place has another tenant");
        assert_eq!(slab.remove(first), None);
        assert_eq!((slab.get(second), slab.get(third), slab.len()), (Some(&"b"), Some(&"c"), 2));
        assert_eq!(slab.iter().count(), 2);
        slab.remove(second);
        assert_eq!((slab.places(), slab.at(0), slab.at(1), slab.at(2)), (2, Some(&"c"), None, None));
    }
}
