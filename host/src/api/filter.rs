//! The query of a request about events over several sessions: `session`, `kind`, `label` and `zone`,
//! each as often as wanted, beside the request's own keys.

use std::collections::BTreeSet;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;

use super::access::{Caller, Scope};
use super::problem::Problem;
use crate::config::check_session_id;
use crate::journal::events::EventFilter;

/// Values of one key: a display has no more.
const VALUES: usize = 16;

/// The pairs of a query, percent-decoded.
#[derive(Debug, Default)]
pub(super) struct QueryPairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts.uri.query().unwrap_or_default()))
    }
}

impl QueryPairs {
    fn of(query: &str) -> Self {
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// The value of a key that stands once at most.
    pub(super) fn one(&mut self, key: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(key);
        let value = values.pop();
        if values.is_empty() { Ok(value) } else { Err(bad(format!("{key} stands twice"))) }
    }

    fn all(&mut self, key: &str) -> Vec<String> {
        self.0.extract_if(.., |(name, _)| name.as_str() == key).map(|(_, value)| value).collect()
    }

    /// A time, in milliseconds since 1970.
    pub(super) fn time(&mut self, key: &str) -> Result<Option<i64>, Problem> {
        let time = self.one(key)?.map(|text| time(key, &text)).transpose();
        time.map_err(|error| bad(error.to_string()))
    }

    /// A value that its type reads.
    pub(super) fn parsed<T: std::str::FromStr>(
        &mut self,
        key: &str,
        what: &str,
    ) -> Result<Option<T>, Problem> {
        let text = self.one(key)?;
        text.map(|text| text.parse().map_err(|_| bad(format!("{key} is {what}")))).transpose()
    }

    /// Which events are asked for, of those that the caller sees.
    pub(super) fn filter(&mut self, caller: &Caller) -> Result<EventFilter, Problem> {
        let sessions = self.set("session")?;
        for session in &sessions {
            check_session_id(session).map_err(|error| bad(format!("session: {error}")))?;
        }
        let sessions = match &caller.scope {
            Scope::All => (!sessions.is_empty()).then_some(sessions),
            Scope::Named(names) if sessions.is_empty() => Some(names.clone()),
            Scope::Named(names) => Some(sessions.intersection(names).cloned().collect()),
        };
        let (kinds, labels, zones) = (self.set("kind")?, self.set("label")?, self.set("zone")?);
        Ok(EventFilter { sessions, kinds, labels, zones })
    }

    fn set(&mut self, key: &str) -> Result<BTreeSet<String>, Problem> {
        let values: BTreeSet<String> = self.all(key).into_iter().collect();
        if values.contains("") {
            return Err(bad(format!("{key} is empty")));
        }
        if values.len() > VALUES {
            return Err(bad(format!("{key} has at most {VALUES} values")));
        }
        Ok(values)
    }

    /// Refuses a key that the route does not have.
    pub(super) fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            Some((key, _)) => Err(bad(format!("there is no key {key:?}"))),
            None => Ok(()),
        }
    }
}

fn bad(detail: String) -> Problem {
    Problem::bad("bad_query", detail)
}

/// A query has something else in the place of a time.
#[derive(Debug, thiserror::Error)]
#[error("{key} is a time of RFC 3339, as 2026-01-31T12:00:00Z, its + written %2B: {error}")]
pub(super) struct NoTime {
    key: String,
    error: jiff::Error,
}

/// A time of a query, in milliseconds since 1970.
pub(super) fn time(key: &str, text: &str) -> Result<i64, NoTime> {
    match text.parse::<Timestamp>() {
        Ok(time) => Ok(time.as_millisecond()),
        Err(error) => Err(NoTime { key: key.to_owned(), error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn caller(names: &[&str]) -> Caller {
        Caller { scope: Scope::Named(set(names)), ..Caller::local() }
    }

    #[test]
    fn each_key_may_stand_several_times_and_the_token_bounds_the_sessions() {
        let query = "session=a&session=b%3B%201&kind=left&label=car&label=bus&zone=&x=1";
        let filter = |caller: &Caller, query: &str| QueryPairs::of(query).filter(caller);
        assert!(filter(&Caller::local(), query).is_err(), "a zone has a name");
        let query = query.replace("zone=&", "zone=road&");
        let all = filter(&Caller::local(), &query).unwrap();
        assert_eq!(all.sessions, Some(set(&["a", "b; 1"])));
        assert_eq!((all.kinds, all.labels), (set(&["left"]), set(&["bus", "car"])));
        assert_eq!(all.zones, set(&["road"]));
        assert_eq!(filter(&Caller::local(), "").unwrap(), EventFilter::default());
        let some = caller(&["a", "c"]);
        assert_eq!(filter(&some, &query).unwrap().sessions, Some(set(&["a"])));
        assert_eq!(filter(&some, "").unwrap().sessions, Some(set(&["a", "c"])));
        assert_eq!(filter(&some, "session=b").unwrap().sessions, Some(set(&[])));
        let many: String = (0..=VALUES).map(|kind| format!("kind=k{kind}&")).collect();
        assert!(filter(&Caller::local(), &many).is_err());
    }

    #[test]
    fn what_is_unknown_or_stands_twice_is_refused_by_name() {
        let mut pairs = QueryPairs::of("limit=3&limit=4&from=yesterday&other=1");
        let said = |problem: Problem| serde_json::to_string(&problem).unwrap();
        assert!(said(pairs.one("limit").unwrap_err()).contains("limit"));
        assert!(said(pairs.time("from").unwrap_err()).contains("from"));
        assert!(said(pairs.end().unwrap_err()).contains("other"));
        let mut pairs = QueryPairs::of("limit=x&to=1970-01-01T00:00:01Z");
        assert!(said(pairs.parsed::<u64>("limit", "a number").unwrap_err()).contains("a number"));
        assert_eq!(pairs.time("to").unwrap(), Some(1000));
        assert!(pairs.end().is_ok());
    }
}
