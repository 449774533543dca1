//! Messages as bytes. The only file that names the format.
//!
//! - The format says what it holds: fields by their names, variants by theirs. A denser one that counts on the order of the
//!   fields would be smaller, but misreads types with `skip_serializing_if`, without a word if it comes badly.
//! - What is read has to be read to its last byte, and is not nested deeper than a tasklet's stack can take.

use rmp_serde::{Deserializer, Serializer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How deep values may be nested. In a build without optimisation a level takes up to 6 KiB of stack.
const DEPTH: usize = 32;

/// Appends `value` to `bytes`.
pub(super) fn encode<T: Serialize>(value: &T, bytes: &mut Vec<u8>) -> Result<(), String> {
    value
        .serialize(&mut Serializer::new(bytes).with_struct_map())
        .map_err(|error| error.to_string())
}

/// Reads a value that takes all of `bytes`.
pub(super) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = Deserializer::new(&mut bytes);
    deserializer.set_max_depth(DEPTH);
    let value = T::deserialize(&mut deserializer).map_err(|error| error.to_string())?;
    match bytes.len() {
        0 => Ok(value),
        left => Err(format!("{left} bytes are left over")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::fmt::Debug;
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    #[track_caller]
    fn assert_survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
        let mut bytes = Vec::new();
        encode(&value, &mut bytes).unwrap();
        assert_eq!(decode::<T>(&bytes).as_ref(), Ok(&value), "{bytes:?}");
    }

    #[test]
    fn what_survives_json_survives_and_more() {
        assert_survives(());
        assert_survives((u64::MAX, i64::MIN, u128::MAX, i128::MIN));
        assert_survives((f64::INFINITY, f32::MIN_POSITIVE, 'ñ', String::from("ñandú")));
        assert_survives((Some(3), None::<u8>, vec![Some(1), None]));
        assert_survives(Result::<u8, String>::Err("no".into()));
        assert_survives(Result::<(), String>::Ok(()));
        assert_survives(BTreeMap::from(
            [((1, 2), "pair"), ((3, 4), "other")].map(|(k, v)| (k, v.to_string())),
        ));
        assert_survives(HashMap::from([(-1, vec![0_u8, 255]), (1, vec![])]));
        assert_survives((Duration::from_nanos(1_000_000_001), IpAddr::from([127, 0, 0, 1])));
        assert_survives(vec![7_u8; 100_000]);
        let mut bytes = Vec::new();
        encode(&f64::NAN, &mut bytes).unwrap();
        assert!(decode::<f64>(&bytes).unwrap().is_nan());
    }

    #[test]
    fn what_is_left_over_or_missing_is_an_error() {
        let mut bytes = Vec::new();
        encode(&7_u64, &mut bytes).unwrap();
        encode(&8_u64, &mut bytes).unwrap();
        assert!(decode::<u64>(&bytes).unwrap_err().contains("left over"));
        assert!(decode::<u64>(&[]).is_err());
        assert!(decode::<String>(&bytes[..1]).is_err());
        assert!(decode::<u64>(&[0xc1]).is_err());
    }

    #[test]
    fn a_length_that_is_a_lie_takes_no_memory() {
        // An array, a string and a map of four thousand million.
        for lie in
            [[0xdd, 255, 255, 255, 255], [0xdb, 255, 255, 255, 255], [0xdf, 255, 255, 255, 255]]
        {
            assert!(decode::<Vec<u64>>(&lie).is_err());
            assert!(decode::<String>(&lie).is_err());
            assert!(decode::<HashMap<u64, u64>>(&lie).is_err());
        }
    }

    #[derive(Serialize, serde::Deserialize, Default)]
    struct Tree {
        name: String,
        value: f64,
        tags: Vec<String>,
        pair: (u64, Option<String>),
        kind: Sort,
        /// A level for the list, and one for the tree in it.
        children: Vec<Tree>,
    }

    #[derive(Serialize, serde::Deserialize, Default)]
    enum Sort {
        #[default]
        Plain,
        Grafted {
            height: u8,
            onto: Option<Box<Tree>>,
        },
    }

    #[derive(serde::Deserialize)]
    struct Nest(#[allow(dead_code, reason = "it is read, and dropped")] Vec<Nest>);

    #[test]
    fn what_is_nested_too_deep_for_a_tasklet_is_an_error() {
        let read = |height: usize| {
            let grow = |tree, _| Tree { children: vec![tree], ..Tree::default() };
            let mut bytes = Vec::new();
            encode(&(0..height).fold(Tree::default(), grow), &mut bytes).unwrap();
            pila_runtime::tasklet(move || decode::<Tree>(&bytes).map(drop)).join().unwrap()
        };
        assert_eq!(read(DEPTH / 2 - 2), Ok(()));
        assert!(read(DEPTH / 2 + 1).unwrap_err().contains("depth"));
        // Where 10,000 levels would take 60 MiB.
        let deep = [vec![0x91; 10_000], vec![0x90]].concat();
        let list = pila_runtime::tasklet(move || decode::<Nest>(&deep).map(drop));
        assert!(list.join().unwrap().is_err());
    }
}
