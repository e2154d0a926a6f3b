use std::collections::BTreeMap;

use ocelli_protocol::wire::Reader;

use super::*;
use crate::guest::state::tests::limits;

/// A grant over this host's answers: what is written is kept where the worker is heard. The
/// host ends with the grant.
pub(crate) fn redis_bucket(heard: bool) -> RedisBucket {
    let (ours, theirs) = pair();
    std::thread::spawn(move || {
        let mut values = BTreeMap::<String, Vec<u8>>::new();
        let (mut to, mut from) = (theirs.try_clone().unwrap(), Reader::new(theirs));
        while let Ok((RedisRequest { id, active: heard, operation }, _)) = from.read() {
            let answer = Ok(answer(&mut values, heard, operation));
            wire::write(&mut to, &RedisResponse { id, result: answer }, &[]).unwrap();
        }
    });
    RedisBucket::new(Some(ours.into()), &limits(), heard)
}

fn answer(
    values: &mut BTreeMap<String, Vec<u8>>,
    heard: bool,
    operation: RedisOperation,
) -> RedisReply {
    match operation {
        RedisOperation::Get(keys) => {
            RedisReply::Values(keys.iter().map(|key| values.get(key).cloned()).collect())
        }
        RedisOperation::Exists(key) => RedisReply::Exists(values.contains_key(&key)),
        RedisOperation::List(_) => {
            RedisReply::Keys { keys: values.keys().cloned().collect(), cursor: None }
        }
        RedisOperation::Increment { delta, .. } => RedisReply::Number(delta),
        RedisOperation::Set(new) => {
            values.extend(new.into_iter().filter(|_| heard));
            RedisReply::Done
        }
        RedisOperation::Delete(keys) => {
            values.retain(|key, _| !heard || !keys.contains(key));
            RedisReply::Done
        }
    }
}

fn pair() -> (UnixStream, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, theirs)
}

fn exists(granted: &RedisBucket, left: Duration) -> Result<RedisReply, String> {
    granted.request(RedisOperation::Exists("k".into()), left)
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn large_values_go_there_and_back() {
    let granted = redis_bucket(true);
    let value = vec![7; 1 << 20];
    granted.request(RedisOperation::Set(vec![("k".into(), value.clone())]), LONG).unwrap();
    let values =
        granted.request(RedisOperation::Get(vec!["k".into(), "none".into()]), LONG).unwrap();
    assert_eq!(values, RedisReply::Values(vec![Some(value), None]));
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_that_of_another_question() {
    let (ours, theirs) = pair();
    let granted = RedisBucket::new(Some(ours.into()), &limits(), true);
    let soon = Duration::from_millis(1);
    assert_eq!(exists(&granted, soon), Err(UNREACHABLE.to_owned()));
    assert_eq!(
        exists(&granted, soon),
        Err(UNREACHABLE.to_owned()),
        "it waits for the first answer"
    );
    let mut to = theirs.try_clone().unwrap();
    let mut from = Reader::new(theirs);
    let mut reply = |expected: u64, exists: bool| {
        let (ask, _) = from.read::<RedisRequest>().unwrap();
        assert_eq!(ask.id, expected);
        wire::write(
            &mut to,
            &RedisResponse { id: ask.id, result: Ok(RedisReply::Exists(exists)) },
            &[],
        )
        .unwrap();
    };
    reply(1, true);
    let answering = std::thread::scope(|scope| {
        let asked = scope.spawn(|| exists(&granted, LONG));
        reply(2, false);
        asked.join().unwrap()
    });
    assert_eq!(answering, Ok(RedisReply::Exists(false)));
}

#[test]
fn a_host_that_is_gone_or_talks_nonsense_is_an_error_and_nothing_else() {
    let (ours, theirs) = pair();
    let granted = RedisBucket::new(Some(ours.into()), &limits(), true);
    (&theirs).write_all(&[0xff; 64]).unwrap();
    assert_eq!(exists(&granted, LONG), Err(UNREACHABLE.to_owned()));
    assert_eq!(exists(&granted, LONG), Err(UNREACHABLE.to_owned()));
    let (ours, theirs) = pair();
    drop(theirs);
    let granted = RedisBucket::new(Some(ours.into()), &limits(), true);
    assert_eq!(exists(&granted, LONG), Err(UNREACHABLE.to_owned()));
    assert_eq!(exists(&RedisBucket::default(), LONG), Err(UNREACHABLE.to_owned()));
}
