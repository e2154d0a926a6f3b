//! The way to Redis.

use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ErrorKind, Pipeline, RedisError, RedisResult, Value};
use tokio::sync::Mutex;

use crate::config;

/// How long a Redis that did not answer is not asked again for a pipeline: each of its calls would
/// wait for an answer.
const REST: Duration = Duration::from_millis(500);

/// Longest text of an error that is logged or told. Redis repeats what it was given in some.
const MAX_WORDS: usize = 300;

/// Connects, within the time that the settings allow.
///
/// A connection does not connect again by itself: what was asked when it broke may have been done
/// or not, which the caller has to find out.
pub(crate) async fn connect(settings: &config::RedisConfig) -> RedisResult<MultiplexedConnection> {
    let wait = Duration::from_millis(u64::from(settings.timeout_ms));
    let how = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(wait))
        .set_response_timeout(Some(wait));
    let client = Client::open(settings.url.as_str())?;
    client.get_multiplexed_async_connection_with_config(&how).await
}

/// Asks everything at once. An answer for each command, or the error that concerns all of them: no
/// connection, no answer in time, a transaction that was not done.
pub(crate) async fn ask(
    connection: &mut MultiplexedConnection,
    commands: &mut Pipeline,
) -> RedisResult<Vec<RedisResult<Value>>> {
    let asked = commands.len();
    let answers: Vec<RedisResult<Value>> = commands.ignore_errors().query_async(connection).await?;
    if answers.len() == asked {
        Ok(answers)
    } else {
        Err(RedisError::from((
            ErrorKind::UnexpectedReturnType,
            "Redis did not answer every command",
        )))
    }
}

/// An error's words, cut to a length for a log.
pub(crate) fn short_message(error: &RedisError) -> String {
    let mut text = error.to_string();
    text.truncate(text.floor_char_boundary(MAX_WORDS));
    text
}

/// A connection that is made when it is needed, and again when it was lost.
#[derive(Default)]
pub(super) struct SharedConnection {
    made: Mutex<Option<(config::RedisConfig, MultiplexedConnection)>>,
    /// When Redis was last found not to answer.
    failed: parking_lot::Mutex<Option<Instant>>,
}

impl SharedConnection {
    /// Asks, as [`ask`] does, for an answer within `patience`. A Redis that gave none is left alone
    /// for [`REST`].
    pub(super) async fn ask(
        &self,
        settings: &config::RedisConfig,
        commands: &mut Pipeline,
        patience: Duration,
    ) -> RedisResult<Vec<RedisResult<Value>>> {
        let asked = async {
            let mut connection = self.connection(settings).await?;
            ask(&mut connection, commands).await
        };
        let answers = tokio::time::timeout(patience, asked).await;
        let answers = answers.unwrap_or_else(|_| Err(failure("no answer in time")));
        // A replica that was the master before answers, and takes nothing.
        let stale = |error: &RedisError| error.code() == Some("READONLY");
        let lost = match &answers {
            Ok(answers) => answers.iter().any(|answer| answer.as_ref().is_err_and(stale)),
            Err(error) => error.is_unrecoverable_error() || error.is_io_error() || stale(error),
        };
        if lost {
            self.set_failed();
            // The task that holds it is about to make another one.
            if let Ok(mut made) = self.made.try_lock() {
                *made = None;
            }
        }
        answers
    }

    async fn connection(
        &self,
        settings: &config::RedisConfig,
    ) -> RedisResult<MultiplexedConnection> {
        self.check_rest()?;
        let mut made = self.made.lock().await;
        if let Some((made_with, connection)) = &*made
            && made_with == settings
        {
            return Ok(connection.clone());
        }
        // It may have been found not to answer meanwhile.
        self.check_rest()?;
        let connection = connect(settings).await?;
        *made = Some((settings.clone(), connection.clone()));
        Ok(connection)
    }

    fn check_rest(&self) -> RedisResult<()> {
        let failed = *self.failed.lock();
        match failed {
            Some(failed) if failed.elapsed() < REST => {
                Err(failure("it did not answer a moment ago"))
            }
            _ => Ok(()),
        }
    }

    fn set_failed(&self) {
        let mut failed = self.failed.lock();
        // A refusal to ask is no new failure.
        if failed.is_none_or(|failed| failed.elapsed() >= REST) {
            *failed = Some(Instant::now());
        }
    }
}

fn failure(words: &'static str) -> RedisError {
    RedisError::from((ErrorKind::Io, words))
}
