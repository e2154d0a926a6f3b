//! The keys of Redis that an operator has granted a session: what its workers ask, over a socket
//! that only a worker with a grant has a host at the other end of.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use ::redis::{Pipeline, RedisError, RedisResult, Value, cmd, from_redis_value};
use anyhow::Context;
use ocelli_protocol::redis_bridge::{
    MAX_BYTES, MAX_DECODED, MAX_KEY, MAX_VALUE, RedisOperation, RedisReply, RedisRequest,
    RedisResponse,
};
use ocelli_protocol::wire;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Redis;
use super::quota::QuotaExceeded;

/// How long Redis may take over a pipeline's command, at most: it takes less than a millisecond,
/// and a pipeline that waits processes no frame.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(1);

/// Keys that Redis looks at for one step of a listing. It gives about as many at most.
const SCANNED: usize = 500;

/// Steps of one listing: keys of others lie between those of the prefix, and each step costs Redis
/// some 0.1 ms.
const STEPS: usize = 20;

/// Bytes of the longest number in decimal text.
const MAX_NUMBER: usize = 20;

/// The worker's end of a socket without a peer.
pub(crate) fn unserved_socket() -> io::Result<OwnedFd> {
    let (_, theirs) = std::os::unix::net::UnixStream::pair()?;
    Ok(theirs.into())
}

impl Redis {
    /// Lets the worker that gets this end of a socket use the keys that begin with `prefix`, until
    /// it closes it. The worker waits for `host_call` for an answer.
    pub(crate) fn grant(
        &self,
        session: &str,
        prefix: &str,
        host_call: Duration,
    ) -> io::Result<OwnedFd> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        // The worker waits for no longer than it has time.
        theirs.set_nonblocking(true)?;
        ours.set_nonblocking(true)?;
        let ours = UnixStream::from_std(ours)?;
        // The answer has to be back before the worker gives up.
        let patience = COMMAND_TIMEOUT.min(host_call / 2);
        let granted = RedisBucket { redis: self.clone(), prefix: prefix.into(), patience };
        let session = session.to_owned();
        tokio::spawn(async move {
            if let Err(error) = granted.serve(ours).await {
                tracing::warn!(target: "ocelli::redis", session, "the worker may use Redis no \
                    more: {error:#}");
            }
        });
        Ok(theirs.into())
    }
}

/// Why a pipeline's request fails. It gets the message.
#[derive(Debug, thiserror::Error)]
enum BucketError {
    /// Redis gave no answer, or there is no `[redis]`. The reason is for the log alone.
    #[error("redis is not reachable")]
    Unreachable(Option<RedisError>),
    /// Redis has answered with an error.
    #[error("{code}: {detail}")]
    Refused { code: String, detail: String },
    #[error("this is no cursor of a listing")]
    NotACursor,
    #[error("the sum has more than 64 bits")]
    Overflow,
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    #[error(
        "values of {value} bytes, {all} together: at most {MAX_VALUE} and {MAX_BYTES} are given"
    )]
    TooLarge { value: usize, all: usize },
}

impl From<RedisError> for BucketError {
    fn from(error: RedisError) -> Self {
        match (error.code(), error.detail()) {
            (Some(code), Some(detail)) => {
                Self::Refused { code: code.to_owned(), detail: detail.to_owned() }
            }
            _ => Self::Unreachable(Some(error)),
        }
    }
}

/// What a session was granted.
struct RedisBucket {
    redis: Redis,
    prefix: String,
    patience: Duration,
}

impl RedisBucket {
    /// Answers one question after another, until the worker is gone. One that breaks the rules is
    /// answered no more.
    async fn serve(&self, mut worker: UnixStream) -> anyhow::Result<()> {
        loop {
            let mut header = [0; wire::HEADER];
            if worker.read_exact(&mut header).await.is_err() {
                return Ok(());
            }
            let (length, payload) = wire::decode_header(header)?;
            anyhow::ensure!(payload == 0, "a question has no payload");
            let mut message = vec![0; length];
            if worker.read_exact(&mut message).await.is_err() {
                return Ok(());
            }
            let RedisRequest { id, active: heard, operation } =
                wire::decode_within(&message, MAX_DECODED)?;
            operation.check()?;
            let answer = self.answer(operation, heard).await;
            if let Err(error) = &answer {
                let prefix = &self.prefix;
                tracing::debug!(target: "ocelli::redis", prefix, "a pipeline's question: \
                    {error:?}");
            }
            let result = answer.map_err(|error| error.to_string());
            let answered = wire::encode(&RedisResponse { id, result }, 0).context("an answer")?;
            if worker.write_all(&answered).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn answer(
        &self,
        operation: RedisOperation,
        heard: bool,
    ) -> Result<RedisReply, BucketError> {
        match operation {
            RedisOperation::Get(keys) => self.get(&keys).await,
            RedisOperation::Exists(key) => {
                let exists: i64 = self.execute_one(cmd("EXISTS").arg(self.key(&key))).await?;
                Ok(RedisReply::Exists(exists > 0))
            }
            RedisOperation::List(cursor) => self.list(cursor).await,
            RedisOperation::Increment { key, delta } if heard => {
                self.admit(std::iter::once((key.as_str(), MAX_NUMBER)))?;
                let number = self.execute_one(cmd("INCRBY").arg(self.key(&key)).arg(delta)).await?;
                Ok(RedisReply::Number(number))
            }
            RedisOperation::Increment { key, delta } => {
                let number: Option<i64> = self.execute_one(cmd("GET").arg(self.key(&key))).await?;
                let sum = number.unwrap_or(0).checked_add(delta);
                sum.map(RedisReply::Number).ok_or(BucketError::Overflow)
            }
            RedisOperation::Set(values) => {
                if heard {
                    self.admit(values.iter().map(|(key, value)| (key.as_str(), value.len())))?;
                }
                let mut set = cmd("MSET");
                values.iter().for_each(|(key, value)| {
                    set.arg(self.key(key)).arg(&value[..]);
                });
                self.change(!values.is_empty() && heard, &set).await
            }
            RedisOperation::Delete(keys) => {
                let delete = cmd("DEL").arg(self.keys(&keys)).to_owned();
                let deleted = self.change(!keys.is_empty() && heard, &delete).await?;
                if heard && let Some(usage) = self.redis.usage.lock().get_mut(&self.prefix) {
                    usage.remove(&keys);
                }
                Ok(deleted)
            }
        }
    }

    /// Counts keys with the sizes of their values, where the quota has room for them.
    fn admit<'a>(
        &self,
        values: impl Iterator<Item = (&'a str, usize)>,
    ) -> Result<(), QuotaExceeded> {
        self.redis.usage.lock().entry(self.prefix.clone()).or_default().admit(values)
    }

    async fn change(&self, done: bool, change: &::redis::Cmd) -> Result<RedisReply, BucketError> {
        if done {
            self.execute_one::<Value>(change).await?;
        }
        Ok(RedisReply::Done)
    }

    /// Sizes come first: others may have put there what is too large for a message.
    async fn get(&self, keys: &[String]) -> Result<RedisReply, BucketError> {
        if keys.is_empty() {
            return Ok(RedisReply::Values(Vec::new()));
        }
        let mut sizes = Pipeline::new();
        for key in self.keys(keys) {
            sizes.add_command(cmd("STRLEN").arg(key).to_owned());
        }
        let mut bytes = 0_usize;
        for size in self.ask(&mut sizes).await? {
            let size: usize = from_redis_value(size?).map_err(RedisError::from)?;
            bytes = bytes.saturating_add(size);
            check_size(size, bytes)?;
        }
        let values: Vec<Option<Vec<u8>>> =
            self.execute_one(cmd("MGET").arg(self.keys(keys))).await?;
        let sizes = values.iter().flatten().map(Vec::len);
        check_size(sizes.clone().max().unwrap_or(0), sizes.sum())?;
        Ok(RedisReply::Values(values))
    }

    async fn list(&self, cursor: Option<String>) -> Result<RedisReply, BucketError> {
        let mut cursor = cursor.unwrap_or_else(|| "0".into());
        if cursor.parse::<u64>().is_err() {
            return Err(BucketError::NotACursor);
        }
        let pattern = format!("{}*", literal(&self.prefix));
        for _ in 0..STEPS {
            let scan = cmd("SCAN")
                .arg(&cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(SCANNED)
                .to_owned();
            let (next, found): (String, Vec<Vec<u8>>) = self.execute_one(&scan).await?;
            cursor = next;
            let keys: Vec<String> = found.into_iter().filter_map(|key| self.own(key)).collect();
            if cursor == "0" {
                return Ok(RedisReply::Keys { keys, cursor: None });
            }
            if !keys.is_empty() {
                return Ok(RedisReply::Keys { keys, cursor: Some(cursor) });
            }
        }
        Ok(RedisReply::Keys { keys: Vec::new(), cursor: Some(cursor) })
    }

    /// A key as Redis has it.
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    fn keys(&self, keys: &[String]) -> Vec<String> {
        keys.iter().map(|key| self.key(key)).collect()
    }

    /// A key as the pipeline has it; none where it could not have made it.
    fn own(&self, key: Vec<u8>) -> Option<String> {
        let key = String::from_utf8(key).ok()?;
        key.strip_prefix(&self.prefix).filter(|key| key.len() <= MAX_KEY).map(str::to_owned)
    }

    async fn execute_one<T: ::redis::FromRedisValue>(
        &self,
        command: &::redis::Cmd,
    ) -> Result<T, BucketError> {
        let mut commands = Pipeline::new();
        commands.add_command(command.clone());
        let answer = self.ask(&mut commands).await?.pop().ok_or(BucketError::Unreachable(None))?;
        Ok(from_redis_value(answer?).map_err(RedisError::from)?)
    }

    async fn ask(&self, commands: &mut Pipeline) -> Result<Vec<RedisResult<Value>>, BucketError> {
        let settings = self.redis.settings.borrow().clone();
        let settings = settings.ok_or(BucketError::Unreachable(None))?;
        Ok(self.redis.link.ask(&settings, commands, self.patience).await?)
    }
}

fn check_size(value: usize, all: usize) -> Result<(), BucketError> {
    if value > MAX_VALUE || all > MAX_BYTES {
        return Err(BucketError::TooLarge { value, all });
    }
    Ok(())
}

/// The text as a pattern of Redis that matches it alone.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted() -> RedisBucket {
        // Nothing listens there: a port below 1024 that no service of ours has.
        let settings =
            serde_json::from_value(serde_json::json!({"url": "redis://127.0.0.1:1"})).unwrap();
        RedisBucket {
            redis: Redis::new(Some(settings)),
            prefix: "app[1]:".into(),
            patience: COMMAND_TIMEOUT,
        }
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a*b[c]?\\:"), "a\\*b\\[c\\]\\?\\\\:");
        let granted = granted();
        assert_eq!(granted.key("k"), "app[1]:k");
        assert_eq!(granted.own(b"app[1]:k".to_vec()).as_deref(), Some("k"));
        assert_eq!(granted.own(b"app1:k".to_vec()), None);
        assert_eq!(granted.own(b"app[1]:\xff".to_vec()), None);
    }

    #[tokio::test]
    async fn without_a_redis_every_question_is_answered() {
        let granted = granted();
        for operation in [
            RedisOperation::Get(vec!["k".into()]),
            RedisOperation::Set(vec![("k".into(), vec![1])]),
            RedisOperation::List(None),
            RedisOperation::Increment { key: "k".into(), delta: 1 },
        ] {
            let error = granted.answer(operation, true).await.unwrap_err();
            assert_eq!(error.to_string(), "redis is not reachable");
        }
        // A write that may have reached Redis counts.
        assert!(granted.redis.usage.lock().contains_key("app[1]:"));
        let unheard = RedisOperation::Set(vec![("k".into(), vec![1])]);
        assert_eq!(granted.answer(unheard, false).await.unwrap(), RedisReply::Done);
    }

    #[tokio::test]
    async fn a_full_prefix_is_told_before_redis_is_asked() {
        let granted = granted();
        for number in 0..super::super::quota::MAX_KEYS {
            granted.admit(std::iter::once((number.to_string().as_str(), 1))).unwrap();
        }
        let write = |key: &str| RedisOperation::Set(vec![(key.into(), vec![1])]);
        let error = granted.answer(write("new"), true).await.unwrap_err();
        assert!(matches!(error, BucketError::Quota(_)), "{error}");
        let error = granted.answer(write("7"), true).await.unwrap_err();
        assert!(matches!(error, BucketError::Unreachable(_)), "another value: {error}");
        granted.answer(write("new"), false).await.unwrap();
    }

    #[tokio::test]
    async fn a_worker_that_breaks_the_rules_is_answered_no_more() {
        let over = RedisOperation::Exists("k".repeat(MAX_KEY + 1));
        let message =
            wire::encode(&RedisRequest { id: 1, active: true, operation: over }, 0).unwrap();
        for bytes in [message, vec![0xff; 64]] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(&bytes).await.unwrap();
            granted().serve(ours).await.unwrap_err();
        }
    }
}
