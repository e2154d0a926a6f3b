//! The store against a model: what calls see, what the host gets, and that the bounds hold.

use super::*;
use proptest::prelude::*;

const LIMIT: usize = 200;
const KEYS: usize = 6;

fn store() -> KvStore {
    KvStore::bounded(LIMIT, KEYS)
}

#[derive(Debug, Clone)]
enum Step {
    Set(usize, usize, usize),
    Delete(usize, usize),
    Keep,
    RollBack,
    Reset,
    Tell,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..4usize, 0..5usize, 0..60usize).prop_map(|(bucket, key, length)| Step::Set(bucket, key, length)),
        4 => (0..4usize, 0..5usize).prop_map(|(bucket, key)| Step::Delete(bucket, key)),
        3 => Just(Step::Keep),
        2 => Just(Step::RollBack),
        1 => Just(Step::Reset),
        2 => Just(Step::Tell),
    ]
}

fn name(what: &str, index: usize) -> String {
    format!("{what}{}", "-".repeat(index))
}

fn size(kept: &StoreContents) -> usize {
    let values = |values: &BTreeMap<String, Vec<u8>>| -> usize {
        values.iter().map(|(key, value)| key.len() + value.len()).sum()
    };
    kept.iter().map(|(bucket, held)| bucket.len() + values(held)).sum()
}

fn content(store: &KvStore) -> StoreContents {
    let mut content = StoreContents::new();
    for (bucket, key) in store.entries() {
        let value = store.get(bucket, key).unwrap().to_vec();
        content.entry(bucket.to_owned()).or_default().insert(key.to_owned(), value);
    }
    content
}

fn put(kept: &mut StoreContents, bucket: &str, key: &str, value: Option<Vec<u8>>) {
    let values = kept.entry(bucket.to_owned()).or_default();
    match value {
        Some(value) => values.insert(key.to_owned(), value),
        None => values.remove(key),
    };
    kept.retain(|_, values| !values.is_empty());
}

proptest! {
    /// The model is what a reader of the documentation would keep: three whole copies.
    #[test]
    fn a_call_sees_what_it_writes_and_the_host_gets_what_was_kept(steps in proptest::collection::vec(step(), 0..120)) {
        let mut store = store();
        let (mut now, mut kept, mut host) = (StoreContents::new(), StoreContents::new(), StoreContents::new());
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Set(bucket, key, length) => {
                    let (bucket, key, value) = (name("b", bucket), name("k", key), vec![number as u8; length]);
                    let mut then = now.clone();
                    put(&mut then, &bucket, &key, Some(value.clone()));
                    let fits = size(&then) <= LIMIT && then.values().map(BTreeMap::len).sum::<usize>() <= KEYS;
                    let set = store.set(&bucket, &key, value);
                    prop_assert_eq!(set.is_ok(), fits, "{:?}", set);
                    if fits {
                        now = then;
                    }
                }
                Step::Delete(bucket, key) => {
                    store.delete(&name("b", bucket), &name("k", key)).unwrap();
                    put(&mut now, &name("b", bucket), &name("k", key), None);
                }
                Step::Keep => {
                    store.commit();
                    kept = now.clone();
                }
                Step::RollBack => {
                    store.roll_back();
                    now = kept.clone();
                }
                Step::Reset => {
                    store.reset();
                    (now, kept) = (host.clone(), host.clone());
                }
                Step::Tell => {
                    store.commit();
                    kept = now.clone();
                    for StoreChange { bucket, key, value } in store.take_changes() {
                        let before = host.get(&bucket).and_then(|values| values.get(&key)).cloned();
                        prop_assert_ne!(&before, &value, "what has not changed is not told");
                        put(&mut host, &bucket, &key, value);
                    }
                    prop_assert_eq!(&host, &kept);
                    prop_assert_eq!(store.changes, 0);
                }
            }
            prop_assert_eq!(&content(&store), &now);
            prop_assert_eq!(store.bytes, size(&now));
            prop_assert_eq!(store.keys, now.values().map(BTreeMap::len).sum::<usize>());
            prop_assert_eq!(store.changes, store.measure());
        }
    }

    #[test]
    fn what_is_adopted_is_what_there_is(
        first in proptest::collection::btree_map("[ab]", proptest::collection::btree_map("[a-c]", any::<[u8; 2]>(), 1..3), 0..2),
        second in proptest::collection::btree_map("[ab]", proptest::collection::btree_map("[a-c]", any::<[u8; 2]>(), 1..3), 0..2),
        used: bool,
    ) {
        let kept = |content: BTreeMap<String, BTreeMap<String, [u8; 2]>>| -> StoreContents {
            let values = |values: BTreeMap<String, [u8; 2]>| values.into_iter().map(|(key, value)| (key, value.to_vec()));
            content.into_iter().map(|(bucket, held)| (bucket, values(held).collect())).collect()
        };
        let (first, second) = (kept(first), kept(second));
        let mut store = store();
        prop_assert_eq!(store.load(first.clone()), Ok(false), "nobody has seen the empty store");
        prop_assert_eq!(content(&store), first.clone());
        if used {
            store.set_used();
            store.set("a", "a", vec![7]).unwrap();
            store.commit();
        }
        let other = first != second;
        prop_assert_eq!(store.load(second.clone()), Ok(used && other));
        if other {
            prop_assert_eq!(content(&store), second);
            prop_assert_eq!(store.take_changes(), vec![]);
        } else if used {
            prop_assert_eq!(store.get("a", "a"), Some([7].as_slice()), "what was written on the \
                same content stands");
        }
    }
}

#[test]
fn each_bound_is_named_with_both_figures() {
    let mut store = store();
    let words = |result: Result<(), StoreError>| result.unwrap_err().to_string();
    assert_eq!(
        words(store.set("bucket", "key", vec![0; 192])),
        "the store would hold 201 bytes, at most 200 are taken"
    );
    store.set("bucket", "key", vec![0; 191]).unwrap();
    store.set("bucket", "key", vec![0; 191]).unwrap();
    assert_eq!(
        words(store.set(&"b".repeat(65), "key", vec![])),
        "the bucket's name has 65 bytes, at most 64 are taken"
    );
    assert_eq!(
        words(store.set("bucket", &"k".repeat(257), vec![])),
        "the key has 257 bytes, at most 256 are taken"
    );
    store.delete("bucket", "key").unwrap();
    for key in 0..KEYS {
        store.set("b", &key.to_string(), vec![]).unwrap();
    }
    assert_eq!(
        words(store.set("b", "x", vec![])),
        "the store would hold 7 keys, at most 6 are taken"
    );

    let mut store = KvStore::bounded(8 << 20, 100);
    store.set("b", "key", vec![0; 2 << 20]).unwrap();
    assert_eq!(
        words(store.set("b", "other", vec![0; 1 << 20])),
        "the call would change 3145770 bytes, at most 3145728 are taken"
    );
    store.commit();
    assert_eq!(store.take_changes().len(), 1);
    store.set("b", "other", vec![0; 1 << 20]).unwrap();
}

#[test]
fn there_are_sixteen_buckets_and_those_that_are_empty_do_not_count() {
    let mut store = KvStore::bounded(1000, 1000);
    for bucket in 0..MAX_STORE_BUCKETS {
        store.set(&bucket.to_string(), "key", vec![]).unwrap();
    }
    assert_eq!(store.open("other"), Err(StoreError::NoSuchBucket));
    assert_eq!(store.set("other", "key", vec![]), Err(StoreError::NoSuchBucket));
    store.open("7").unwrap();
    store.delete("7", "key").unwrap();
    store.set("other", "key", vec![]).unwrap();
}

#[test]
fn what_exceeds_the_bounds_is_not_adopted() {
    let mut store = store();
    let large = StoreContents::from([("b".into(), BTreeMap::from([("k".into(), vec![0; LIMIT])]))]);
    assert!(matches!(store.load(large), Err(StoreError::OverLimit(_))));
    let many = (0..=KEYS).map(|key| (key.to_string(), vec![])).collect();
    assert!(matches!(
        store.load(StoreContents::from([("b".into(), many)])),
        Err(StoreError::OverLimit(_))
    ));
    assert_eq!(content(&store), StoreContents::new());
}

#[test]
fn keys_are_listed_page_by_page_in_ascending_order() {
    let mut store = KvStore::bounded(10_000, 1000);
    for key in 0..2 * PAGE + 1 {
        store.set("b", &format!("{key:04}"), vec![]).unwrap();
    }
    let (mut listed, mut cursor, mut pages) = (Vec::new(), None, 0);
    loop {
        let (page, next) = store.list("b", cursor.as_deref());
        assert!(page.len() <= PAGE);
        listed.extend(page);
        pages += 1;
        match next {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    assert_eq!((listed.len(), pages), (2 * PAGE + 1, 3));
    assert!(listed.is_sorted());
    store.delete("b", "0000").unwrap();
    assert_eq!(store.list("b", Some("0100")).1, None, "exactly a page is left");
    assert_eq!(store.list("b", Some("~")), (vec![], None));
    assert_eq!(store.list("other", None), (vec![], None));
}

#[test]
fn a_value_that_was_written_again_is_another() {
    let mut store = store();
    let absent = store.version("b", "k");
    store.set("b", "k", vec![1]).unwrap();
    let one = store.version("b", "k");
    assert_ne!(one, absent);
    store.commit();
    store.set("b", "k", vec![1]).unwrap();
    assert_ne!(store.version("b", "k"), one);
    store.roll_back();
    assert_eq!(store.version("b", "k"), one, "undone, it is the one that was seen");
    store.reset();
    assert_eq!(store.version("b", "k"), absent);
}
