//! Variables that a config's texts name: `${NAME}` and `${NAME:default}` in go2rtc's,
//! `{FRIGATE_NAME}` in Frigate's.

use std::collections::BTreeMap;

/// The variables that have a value.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

/// A text names a variable that has no value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unset(pub(super) String);

impl Variables {
    /// Those of this process. Names and values that are not UTF-8 are not among them.
    pub(crate) fn of_environment() -> Self {
        let text = |text: std::ffi::OsString| text.into_string().ok();
        std::env::vars_os().filter_map(|(name, value)| Some((text(name)?, text(value)?))).collect()
    }

    /// These, and `others` where these have none of the name.
    pub(super) fn with_defaults(&self, others: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut all = self.clone();
        for (name, value) in others {
            all.0.entry(name).or_insert(value);
        }
        all
    }

    /// A text with values in the place of the names. What has another form stays as it is.
    pub(super) fn expand(&self, text: &str) -> Result<String, Unset> {
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, from_open) = rest.split_at(open);
            let inside = from_open.strip_prefix('{').unwrap_or_default();
            let Some((name, after)) = inside.split_once('}') else { break };
            if let Some(before) = before.strip_suffix('$') {
                let (name, default) =
                    name.split_once(':').map_or((name, None), |(name, value)| (name, Some(value)));
                let value = self.0.get(name).map(String::as_str).or(default);
                let value = value.ok_or_else(|| Unset(name.to_owned()))?;
                expanded.extend([before, value]);
            } else if name.starts_with("FRIGATE_") {
                let value = self.0.get(name).ok_or_else(|| Unset(name.to_owned()))?;
                expanded.extend([before, value]);
            } else {
                expanded.extend([before, "{", name, "}"]);
            }
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

impl FromIterator<(String, String)> for Variables {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}
