//! `wasi:keyvalue`: the session's store, and one bucket with the keys of Redis that the operator
//! has granted it, for components of every version of the contract.

use ocelli_protocol::redis_bridge::{self, RedisOperation, RedisReply};
use wasmtime::component::{HasData, Resource, ResourceTable};

use self::bindings::wasi::keyvalue::{atomics, batch, store};
use super::HostResult;
use super::deadline::CallBudget;
use crate::kv_store::{SharedKvStore, StoreError, ValueVersion};
use crate::redis_bridge::RedisBucket;

/// Generated from `wasi:keyvalue` alone.
pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.3/deps/wasi-keyvalue",
        inline: "
            package ocelli:host;

            world keeps {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "ocelli:host/keeps",
        imports: { default: trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::guest::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::guest::keyvalue::Cas,
        },
    });
}

/// The part of an instance's state behind `wasi:keyvalue`.
pub(super) struct KeyValueState {
    kv_store: SharedKvStore,
    redis: RedisBucket,
    /// A query is under way: nothing is written.
    read_only: bool,
}

impl KeyValueState {
    pub(super) fn new(kv_store: SharedKvStore, redis: RedisBucket) -> Self {
        Self { kv_store, redis, read_only: false }
    }

    /// Whether writes are refused from now on.
    pub(super) fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    pub(super) fn view<'a>(
        &'a mut self,
        table: &'a mut ResourceTable,
        call: &'a CallBudget,
    ) -> KeyValueView<'a> {
        let Self { kv_store, redis, read_only } = self;
        KeyValueView { kv_store, redis, read_only: *read_only, table, call }
    }
}

/// The view of `wasi:keyvalue`: the only state that its functions reach.
pub(super) struct KeyValueView<'a> {
    kv_store: &'a SharedKvStore,
    redis: &'a RedisBucket,
    read_only: bool,
    table: &'a mut ResourceTable,
    call: &'a CallBudget,
}

/// Links the functions of `wasi:keyvalue` to [`KeyValueView`].
pub(super) struct KeyValue;

impl HasData for KeyValue {
    type Data<'a> = KeyValueView<'a>;
}

/// A component's handle to a bucket.
#[derive(Debug, Clone)]
pub enum Bucket {
    /// A bucket of the session's store, by its name.
    Session(String),
    /// The keys of Redis that the session was granted.
    Redis,
}

/// A component's handle to a value of the session's store as it was when the handle was made.
#[derive(Debug, Clone)]
pub struct Cas {
    bucket: String,
    key: String,
    version: ValueVersion,
}

impl From<StoreError> for store::Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NoSuchBucket => Self::NoSuchStore,
            StoreError::OverLimit(_) => Self::Other(error.to_string()),
        }
    }
}

impl KeyValueView<'_> {
    fn bucket(&self, handle: &Resource<Bucket>) -> wasmtime::Result<Bucket> {
        let bucket = self.table.get(handle)?.clone();
        if let Bucket::Session(_) = bucket {
            self.kv_store.lock().set_used();
        }
        Ok(bucket)
    }

    /// The bucket, for a function that writes. A query may call none.
    fn writable(
        &self,
        handle: &Resource<Bucket>,
    ) -> wasmtime::Result<Result<Bucket, store::Error>> {
        let bucket = self.bucket(handle)?;
        Ok(if self.read_only { Err(read_only()) } else { Ok(bucket) })
    }

    fn cas(&mut self, bucket: String, key: String) -> wasmtime::Result<Resource<Cas>> {
        let version = self.kv_store.lock().version(&bucket, &key);
        Ok(self.table.push(Cas { bucket, key, version })?)
    }

    /// Performs an operation in Redis. `expected` takes the reply apart.
    fn ask_redis<T>(
        &self,
        operation: RedisOperation,
        expected: impl FnOnce(RedisReply) -> Option<T>,
    ) -> Result<T, store::Error> {
        let reply =
            self.redis.request(operation, self.call.time_left()).map_err(store::Error::Other)?;
        expected(reply)
            .ok_or_else(|| store::Error::Other("the host's answer is to another question".into()))
    }
}

/// The error of a write by a query.
fn read_only() -> store::Error {
    store::Error::Other("a query changes nothing: only a command may write".into())
}

/// The reply to [`RedisOperation::Set`] and [`RedisOperation::Delete`].
fn done(reply: RedisReply) -> Option<()> {
    matches!(reply, RedisReply::Done).then_some(())
}

impl store::Host for KeyValueView<'_> {
    fn open(&mut self, identifier: String) -> HostResult<Resource<Bucket>, store::Error> {
        if identifier == redis_bridge::BUCKET {
            return Ok(if self.redis.is_granted() {
                Ok(self.table.push(Bucket::Redis)?)
            } else {
                Err(store::Error::NoSuchStore)
            });
        }
        let opened = {
            let mut kv = self.kv_store.lock();
            kv.set_used();
            kv.open(&identifier)
        };
        match opened {
            Ok(()) => Ok(Ok(self.table.push(Bucket::Session(identifier))?)),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl store::HostBucket for KeyValueView<'_> {
    fn get(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> HostResult<Option<Vec<u8>>, store::Error> {
        Ok(match self.bucket(&bucket)? {
            Bucket::Session(bucket) => {
                Ok(self.kv_store.lock().get(&bucket, &key).map(<[u8]>::to_vec))
            }
            Bucket::Redis => self.ask_redis(RedisOperation::Get(vec![key]), |reply| match reply {
                RedisReply::Values(mut values) if values.len() == 1 => values.pop(),
                _ => None,
            }),
        })
    }

    fn set(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        value: Vec<u8>,
    ) -> HostResult<(), store::Error> {
        Ok(match self.writable(&bucket)? {
            Err(refused) => Err(refused),
            Ok(Bucket::Session(bucket)) => {
                self.kv_store.lock().set(&bucket, &key, value).map_err(Into::into)
            }
            Ok(Bucket::Redis) => self.ask_redis(RedisOperation::Set(vec![(key, value)]), done),
        })
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> HostResult<(), store::Error> {
        Ok(match self.writable(&bucket)? {
            Err(refused) => Err(refused),
            Ok(Bucket::Session(bucket)) => {
                self.kv_store.lock().delete(&bucket, &key).map_err(Into::into)
            }
            Ok(Bucket::Redis) => self.ask_redis(RedisOperation::Delete(vec![key]), done),
        })
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> HostResult<bool, store::Error> {
        Ok(match self.bucket(&bucket)? {
            Bucket::Session(bucket) => Ok(self.kv_store.lock().get(&bucket, &key).is_some()),
            Bucket::Redis => self.ask_redis(RedisOperation::Exists(key), |reply| match reply {
                RedisReply::Exists(exists) => Some(exists),
                _ => None,
            }),
        })
    }

    fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> HostResult<store::KeyResponse, store::Error> {
        Ok(match self.bucket(&bucket)? {
            Bucket::Session(bucket) => {
                let (keys, cursor) = self.kv_store.lock().list(&bucket, cursor.as_deref());
                Ok(store::KeyResponse { keys, cursor })
            }
            Bucket::Redis => self.ask_redis(RedisOperation::List(cursor), |reply| match reply {
                RedisReply::Keys { keys, cursor } => Some(store::KeyResponse { keys, cursor }),
                _ => None,
            }),
        })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for KeyValueView<'_> {
    fn increment(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
        delta: i64,
    ) -> HostResult<i64, store::Error> {
        let bucket = match self.writable(&bucket)? {
            Err(refused) => return Ok(Err(refused)),
            Ok(Bucket::Session(bucket)) => bucket,
            Ok(Bucket::Redis) => {
                return Ok(self.ask_redis(RedisOperation::Increment { key, delta }, |reply| {
                    match reply {
                        RedisReply::Number(number) => Some(number),
                        _ => None,
                    }
                }));
            }
        };
        let mut kv = self.kv_store.lock();
        let number = match kv.get(&bucket, &key) {
            None => Ok(0),
            Some(value) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .ok_or_else(|| format!("the value of {key:?} is no decimal number")),
        };
        let sum = number.and_then(|number| {
            number
                .checked_add(delta)
                .ok_or_else(|| format!("{number} and {delta} make more than 64 bits hold"))
        });
        Ok(sum.map_err(store::Error::Other).and_then(|sum| {
            kv.set(&bucket, &key, sum.to_string().into_bytes())?;
            Ok(sum)
        }))
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> HostResult<(), atomics::CasError> {
        let Cas { bucket, key, version } = self.table.delete(cas)?;
        if self.read_only {
            return Ok(Err(atomics::CasError::StoreError(read_only())));
        }
        let swapped = {
            let mut kv = self.kv_store.lock();
            (kv.version(&bucket, &key) == version).then(|| kv.set(&bucket, &key, value))
        };
        Ok(match swapped {
            Some(set) => set.map_err(|error| atomics::CasError::StoreError(error.into())),
            None => Err(atomics::CasError::CasFailed(self.cas(bucket, key)?)),
        })
    }
}

impl atomics::HostCas for KeyValueView<'_> {
    fn new(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> HostResult<Resource<Cas>, store::Error> {
        match self.bucket(&bucket)? {
            Bucket::Session(bucket) => Ok(Ok(self.cas(bucket, key)?)),
            Bucket::Redis => Ok(Err(store::Error::Other(
                "the bucket of Redis has no compare-and-swap: use increment, or one writer for \
                    each key"
                    .into(),
            ))),
        }
    }

    /// The handle holds the value's version and not the value: thousands of handles to large values
    /// would fill the process.
    fn current(&mut self, cas: Resource<Cas>) -> HostResult<Option<Vec<u8>>, store::Error> {
        let Cas { bucket, key, version } = self.table.get(&cas)?;
        let kv = self.kv_store.lock();
        if kv.version(bucket, key) != *version {
            let message = format!("the value of {key:?} has changed since");
            return Ok(Err(store::Error::Other(message)));
        }
        Ok(Ok(kv.get(bucket, key).map(<[u8]>::to_vec)))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for KeyValueView<'_> {
    fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> HostResult<Vec<Option<(String, Vec<u8>)>>, store::Error> {
        let bucket = match self.bucket(&bucket)? {
            Bucket::Session(bucket) => bucket,
            Bucket::Redis => {
                return Ok(self.ask_redis(
                    RedisOperation::Get(keys.clone()),
                    |reply| match reply {
                        RedisReply::Values(values) if values.len() == keys.len() => Some(
                            keys.into_iter()
                                .zip(values)
                                .map(|(key, value)| Some((key, value?)))
                                .collect(),
                        ),
                        _ => None,
                    },
                ));
            }
        };
        let kv = self.kv_store.lock();
        // A key may be asked for again and again.
        let bytes: usize = keys
            .iter()
            .filter_map(|key| Some(key.len().saturating_add(kv.get(&bucket, key)?.len())))
            .fold(0, usize::saturating_add);
        if bytes > kv.max_bytes() {
            let bound = kv.max_bytes();
            return Ok(Err(store::Error::Other(format!(
                "the answer would have {bytes} bytes, at most {bound} are given"
            ))));
        }
        let values = keys.into_iter().map(|key| {
            let value = kv.get(&bucket, &key)?.to_vec();
            Some((key, value))
        });
        Ok(Ok(values.collect()))
    }

    fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        key_values: Vec<(String, Vec<u8>)>,
    ) -> HostResult<(), store::Error> {
        let bucket = match self.writable(&bucket)? {
            Err(refused) => return Ok(Err(refused)),
            Ok(Bucket::Session(bucket)) => bucket,
            Ok(Bucket::Redis) => return Ok(self.ask_redis(RedisOperation::Set(key_values), done)),
        };
        let mut kv = self.kv_store.lock();
        let mut values = key_values.into_iter();
        Ok(values.try_for_each(|(key, value)| kv.set(&bucket, &key, value)).map_err(Into::into))
    }

    fn delete_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> HostResult<(), store::Error> {
        let bucket = match self.writable(&bucket)? {
            Err(refused) => return Ok(Err(refused)),
            Ok(Bucket::Session(bucket)) => bucket,
            Ok(Bucket::Redis) => return Ok(self.ask_redis(RedisOperation::Delete(keys), done)),
        };
        let mut kv = self.kv_store.lock();
        Ok(keys.iter().try_for_each(|key| kv.delete(&bucket, key)).map_err(Into::into))
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::limits;
    use super::atomics::{Host as _, HostCas as _};
    use super::batch::Host as _;
    use super::store::{Host as _, HostBucket as _};
    use super::*;
    use crate::redis_bridge::tests::redis_bucket;
    use ocelli_protocol::limit::MAX_STORE_BUCKETS;

    /// The parts of an instance that the functions need.
    struct Instance {
        table: ResourceTable,
        call: CallBudget,
        state: KeyValueState,
    }

    impl Instance {
        fn new(redis: RedisBucket) -> Self {
            Self {
                table: ResourceTable::new(),
                call: CallBudget::new(limits(), 0),
                state: KeyValueState::new(SharedKvStore::new(&limits()), redis),
            }
        }

        fn view(&mut self) -> KeyValueView<'_> {
            self.state.view(&mut self.table, &self.call)
        }

        /// Opens a bucket; gives handles to it.
        fn open(&mut self, name: &str) -> impl Fn() -> Resource<Bucket> + use<> {
            let bucket = self.view().open(name.into()).unwrap().unwrap().rep();
            move || Resource::new_borrow(bucket)
        }
    }

    /// An instance and a bucket of its session's store.
    fn opened() -> (Instance, impl Fn() -> Resource<Bucket>) {
        let mut instance = Instance::new(RedisBucket::default());
        let bucket = instance.open("b");
        (instance, bucket)
    }

    fn text<T: std::fmt::Debug>(answer: HostResult<T, store::Error>) -> String {
        match answer.unwrap().unwrap_err() {
            store::Error::Other(words) => words,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (mut instance, b) = opened();
        assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), None);
        instance.view().set(b(), "k".into(), b"one".to_vec()).unwrap().unwrap();
        assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), Some(b"one".to_vec()));
        assert!(instance.view().exists(b(), "k".into()).unwrap().unwrap());
        assert_eq!(instance.view().list_keys(b(), None).unwrap().unwrap().keys, ["k"]);
        instance.view().delete(b(), "k".into()).unwrap().unwrap();
        assert!(!instance.view().exists(b(), "k".into()).unwrap().unwrap());
        store::HostBucket::drop(&mut instance.view(), Resource::new_own(b().rep())).unwrap();
        assert!(
            instance.view().get(b(), "k".into()).is_err(),
            "a handle that is gone is the component's fault"
        );
    }

    #[test]
    fn a_query_reads_and_writes_nowhere() {
        for (bucket, redis) in [("b", RedisBucket::default()), ("redis", redis_bucket(true))] {
            let mut instance = Instance::new(redis);
            let b = instance.open(bucket);
            instance.view().set(b(), "k".into(), b"7".to_vec()).unwrap().unwrap();
            instance.state.set_read_only(true);
            let mut view = instance.view();
            let pairs = vec![("k".to_owned(), b"8".to_vec())];
            for refused in [
                text(view.set(b(), "k".into(), b"8".to_vec())),
                text(view.set_many(b(), pairs)),
                text(view.delete(b(), "k".into())),
                text(view.delete_many(b(), vec!["k".into()])),
                text(view.increment(b(), "k".into(), 1)),
            ] {
                assert!(refused.contains("a query changes nothing"), "{bucket}: {refused}");
            }
            if bucket == "b" {
                let cas = atomics::HostCas::new(&mut view, b(), "k".into()).unwrap().unwrap();
                let refused = view.swap(cas, b"8".to_vec()).unwrap().unwrap_err();
                assert!(
                    matches!(refused, atomics::CasError::StoreError(store::Error::Other(_))),
                    "{refused:?}"
                );
            }
            assert_eq!(view.get(b(), "k".into()).unwrap().unwrap(), Some(b"7".to_vec()));
            instance.state.set_read_only(false);
            instance.view().set(b(), "k".into(), b"8".to_vec()).unwrap().unwrap();
            assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), Some(b"8".to_vec()));
        }
    }

    #[test]
    fn a_number_is_kept_as_decimal_text() {
        let (mut instance, b) = opened();
        assert_eq!(instance.view().increment(b(), "n".into(), 5).unwrap().unwrap(), 5);
        assert_eq!(instance.view().increment(b(), "n".into(), -7).unwrap().unwrap(), -2);
        assert_eq!(instance.view().get(b(), "n".into()).unwrap().unwrap(), Some(b"-2".to_vec()));
        assert!(text(instance.view().increment(b(), "n".into(), i64::MIN)).contains("64 bits"));
        instance.view().set(b(), "n".into(), b"two".to_vec()).unwrap().unwrap();
        assert!(text(instance.view().increment(b(), "n".into(), 1)).contains("no decimal number"));
        assert_eq!(instance.view().get(b(), "n".into()).unwrap().unwrap(), Some(b"two".to_vec()));
    }

    #[test]
    fn a_value_is_swapped_only_for_the_one_that_was_seen() {
        let (mut instance, b) = opened();
        let handle = |cas: &Resource<Cas>| Resource::new_borrow(cas.rep());
        let cas = atomics::HostCas::new(&mut instance.view(), b(), "k".into()).unwrap().unwrap();
        assert_eq!(instance.view().current(handle(&cas)).unwrap().unwrap(), None);
        instance.view().swap(cas, vec![1]).unwrap().unwrap();

        let late = atomics::HostCas::new(&mut instance.view(), b(), "k".into()).unwrap().unwrap();
        assert_eq!(instance.view().current(handle(&late)).unwrap().unwrap(), Some(vec![1]));
        instance.view().set(b(), "k".into(), vec![2]).unwrap().unwrap();
        assert!(text(instance.view().current(handle(&late))).contains("has changed"));
        let Err(atomics::CasError::CasFailed(again)) = instance.view().swap(late, vec![3]).unwrap()
        else {
            panic!("the value had changed")
        };
        assert_eq!(instance.view().current(handle(&again)).unwrap().unwrap(), Some(vec![2]));
        instance.view().swap(again, vec![3]).unwrap().unwrap();
        assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), Some(vec![3]));

        let cas = atomics::HostCas::new(&mut instance.view(), b(), "k".into()).unwrap().unwrap();
        let full =
            instance.view().swap(cas, vec![0; limits().store_bytes as usize]).unwrap().unwrap_err();
        assert!(matches!(full, atomics::CasError::StoreError(store::Error::Other(_))), "{full:?}");
    }

    #[test]
    fn a_batch_has_an_answer_for_each_key_and_is_no_way_around_the_bounds() {
        let (mut instance, b) = opened();
        let keys = || vec!["a".to_owned(), "none".to_owned()];
        instance
            .view()
            .set_many(b(), vec![("a".into(), vec![1]), ("c".into(), vec![2])])
            .unwrap()
            .unwrap();
        assert_eq!(
            instance.view().get_many(b(), keys()).unwrap().unwrap(),
            [Some(("a".into(), vec![1])), None]
        );
        instance.view().delete_many(b(), keys()).unwrap().unwrap();
        assert_eq!(instance.view().list_keys(b(), None).unwrap().unwrap().keys, ["c"]);
        instance.view().set(b(), "large".into(), vec![0; 600 << 10]).unwrap().unwrap();
        let twice = vec!["large".to_owned(); 2];
        assert!(text(instance.view().get_many(b(), twice)).contains("at most 1048576"));
        let over = vec![("x".into(), vec![0; 600 << 10])];
        assert!(text(instance.view().set_many(b(), over)).contains("at most 1048576"));
    }

    #[test]
    fn the_bucket_of_redis_is_there_where_it_was_granted_and_nowhere_else() {
        let (mut instance, _) = opened();
        assert!(matches!(
            instance.view().open("redis".into()).unwrap(),
            Err(store::Error::NoSuchStore)
        ));
        let mut instance = Instance::new(redis_bucket(true));
        let b = instance.open("redis");
        instance.view().set(b(), "k".into(), b"one".to_vec()).unwrap().unwrap();
        assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), Some(b"one".to_vec()));
        assert!(instance.view().exists(b(), "k".into()).unwrap().unwrap());
        assert_eq!(instance.view().list_keys(b(), None).unwrap().unwrap().keys, ["k"]);
        assert_eq!(instance.view().increment(b(), "n".into(), 5).unwrap().unwrap(), 5);
        instance.view().set_many(b(), vec![("l".into(), vec![2])]).unwrap().unwrap();
        let keys = || ["k", "l", "none"].map(str::to_owned).to_vec();
        let values =
            [Some(("k".to_owned(), b"one".to_vec())), Some(("l".to_owned(), vec![2])), None];
        assert_eq!(instance.view().get_many(b(), keys()).unwrap().unwrap(), values);
        instance.view().delete_many(b(), keys()).unwrap().unwrap();
        assert!(!instance.view().exists(b(), "l".into()).unwrap().unwrap());
        assert!(
            text(atomics::HostCas::new(&mut instance.view(), b(), "k".into()))
                .contains("compare-and-swap")
        );
        assert!(text(instance.view().set(b(), "k".repeat(257), vec![])).contains("at most 256"));
        assert!(
            text(instance.view().set(b(), "k".into(), vec![0; (1 << 20) + 1]))
                .contains("at most 1048576")
        );
        assert!(
            instance.state.kv_store.lock().take_changes().is_empty(),
            "the session's own store is another"
        );
    }

    #[test]
    fn a_worker_on_standby_changes_nothing_in_redis() {
        let mut instance = Instance::new(redis_bucket(false));
        let b = instance.open("redis");
        instance.view().set(b(), "k".into(), b"one".to_vec()).unwrap().unwrap();
        assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), None);
        instance.state.redis.activate();
        instance.view().set(b(), "k".into(), b"one".to_vec()).unwrap().unwrap();
        assert_eq!(instance.view().get(b(), "k".into()).unwrap().unwrap(), Some(b"one".to_vec()));
    }

    #[test]
    fn there_is_no_seventeenth_bucket() {
        let (mut instance, _) = opened();
        for bucket in 0..MAX_STORE_BUCKETS {
            let bucket = instance.view().open(bucket.to_string()).unwrap().unwrap();
            instance.view().set(bucket, "k".into(), vec![]).unwrap().unwrap();
        }
        assert!(matches!(
            instance.view().open("b".into()).unwrap(),
            Err(store::Error::NoSuchStore)
        ));
        assert!(text(instance.view().open("b".repeat(65))).contains("65 bytes"));
    }
}
