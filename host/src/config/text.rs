//! Values that the config writes as text, for `#[serde(with = "text")]`.

use serde::{Deserialize, Deserializer, Serializer, de::Error};

pub(super) fn serialize<T: ToString, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&value.to_string())
}

pub(super) fn deserialize<
    'de,
    T: std::str::FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
>(
    from: D,
) -> Result<T, D::Error> {
    String::deserialize(from)?.parse().map_err(D::Error::custom)
}

/// The same for a key that may be left out.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(in crate::config) fn serialize<T: ToString, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(ToString::to_string).serialize(to)
    }

    pub(in crate::config) fn deserialize<
        'de,
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    >(
        from: D,
    ) -> Result<Option<T>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
