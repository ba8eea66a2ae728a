//! Maps and sets of few entries, in one piece of memory each. An outbox of 100 000 mails has several of them for every mail, most
//! with one entry, where a node of a tree has room for eleven. They never change what is written: encoded they are maps and lists.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map with few entries, in the order of its keys. What it costs grows with their number at every insertion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FewMap<K, V>(Vec<(K, V)>);

/// A set of few values, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FewSet<T>(Vec<T>);

impl<K, V> Default for FewMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Default for FewSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Puts something where it belongs, and takes no more room than it needs.
fn insert_at<T>(all: &mut Vec<T>, at: usize, one: T) {
    all.reserve_exact(1);
    all.insert(at, one);
}

impl<K: Ord, V> FewMap<K, V> {
    fn find(&self, key: &K) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| known.cmp(key))
    }
    /// What is known under a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.0.get(self.find(key).ok()?).map(|(_, value)| value)
    }
    /// The same, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let at = self.find(key).ok()?;
        self.0.get_mut(at).map(|(_, value)| value)
    }
    /// Whether something is known under a key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }
    /// Puts a value under a key, in the place of the one that is there.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => insert_at(&mut self.0, at, (key, value)),
        }
    }
    /// Puts a value under a key where none is.
    pub fn insert_new(&mut self, key: K, value: V) {
        if let Err(at) = self.find(&key) {
            insert_at(&mut self.0, at, (key, value));
        }
    }
}

impl<K, V> FewMap<K, V> {
    /// Every entry, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.into_iter()
    }
    /// Every key, in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }
    /// Every value, in the order of the keys.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Ord> FewSet<T> {
    /// Whether it is one of them.
    pub fn contains(&self, one: &T) -> bool {
        self.0.binary_search(one).is_ok()
    }
}

impl<T> FewSet<T> {
    /// Each of them, in order.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for FewMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(all: I) -> Self {
        let mut map = Self::default();
        for (key, value) in all {
            map.insert(key, value);
        }
        map
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for FewMap<K, V> {
    fn from(all: [(K, V); N]) -> Self {
        all.into_iter().collect()
    }
}

impl<T: Ord> FromIterator<T> for FewSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(all: I) -> Self {
        let mut ordered: Vec<T> = all.into_iter().collect();
        ordered.sort_unstable();
        ordered.dedup();
        ordered.shrink_to_fit();
        Self(ordered)
    }
}

impl<'a, K, V> IntoIterator for &'a FewMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

impl<'a, T> IntoIterator for &'a FewSet<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T> IntoIterator for FewSet<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Serialize, V: Serialize> Serialize for FewMap<K, V> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_map(self)
    }
}

impl<'de, K: Ord + Deserialize<'de>, V: Deserialize<'de>> Deserialize<'de> for FewMap<K, V> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(std::collections::BTreeMap::deserialize(from)?.into_iter().collect())
    }
}

impl<T: Serialize> Serialize for FewSet<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self)
    }
}

impl<'de, T: Ord + Deserialize<'de>> Deserialize<'de> for FewSet<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;
    use crate::wire;

    proptest! {
        #[test]
        fn they_are_what_trees_are_also_when_encoded(entries in prop::collection::vec((0u8..20, any::<u16>()), 0..30)) {
            let tree: BTreeMap<u8, u16> = entries.iter().copied().collect();
            let few: FewMap<u8, u16> = entries.iter().copied().collect();
            prop_assert!(tree.iter().eq(few.iter()) && tree.keys().eq(few.keys()) && tree.values().eq(few.values()));
            prop_assert!((0..20).all(|key| tree.get(&key) == few.get(&key)));
            prop_assert_eq!(wire::encode(&tree), wire::encode(&few));
            let again: FewMap<u8, u16> = wire::decode(&wire::encode(&tree)).unwrap();
            prop_assert_eq!(&again, &few);
            let (tree, few): (BTreeSet<u8>, FewSet<u8>) =
                (tree.into_keys().collect(), entries.iter().map(|(key, _)| *key).collect());
            prop_assert!(tree.iter().eq(few.iter()) && (0..20).all(|one| tree.contains(&one) == few.contains(&one)));
            prop_assert_eq!(wire::encode(&tree), wire::encode(&few));
        }
    }

    #[test]
    fn what_is_there_stays_when_only_something_new_is_wanted() {
        let mut few = FewMap::from([(2, 'b'), (1, 'a')]);
        few.insert_new(2, 'x');
        few.insert_new(3, 'c');
        few.insert(1, 'y');
        assert!(few.values().eq(&['y', 'b', 'c']) && few.len() == 3 && !few.is_empty());
        *few.get_mut(&3).unwrap() = 'z';
        assert_eq!((few.get(&3), few.get(&9)), (Some(&'z'), None));
    }
}
