//! Postcard messages of a process that is not trusted, decoded within a number of bytes.
//!
//! A list of nothings takes one byte for each element on the wire and up to a hundred in memory.
//! Before a list or a text is allocated, its size in memory is taken from what is left of the
//! message's bytes. A message that needs more is refused there.

use postcard::de_flavors::Slice;
use postcard::{Deserializer, Error};
use serde::Deserialize;
use serde::de::{
    DeserializeOwned, DeserializeSeed, EnumAccess, IntoDeserializer, SeqAccess, VariantAccess,
    Visitor,
};

use crate::wire::WireError;

/// Takes a message apart, with at most `most` bytes in lists and texts. All bytes must belong
/// to it.
pub(crate) fn decode_within<M: DeserializeOwned>(
    message: &[u8],
    most: usize,
) -> Result<M, WireError> {
    let mut decoder =
        Decoder { from: Deserializer::from_bytes(message), left: most, is_too_large: false };
    let decoded = M::deserialize(&mut decoder);
    if decoder.is_too_large {
        return Err(WireError::TooLarge { bound: most });
    }
    match (decoded?, decoder.from.finalize()?) {
        (value, []) => Ok(value),
        _ => Err(Error::DeserializeBadEncoding.into()),
    }
}

/// Reads values as postcard does, and counts what they allocate.
struct Decoder<'de> {
    from: Deserializer<'de, Slice<'de>>,
    /// Bytes that may still be allocated.
    left: usize,
    is_too_large: bool,
}

impl Decoder<'_> {
    /// Counts `count` things of `size` bytes each.
    fn take(&mut self, count: usize, size: usize) -> Result<(), Error> {
        match count.checked_mul(size).and_then(|bytes| self.left.checked_sub(bytes)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.is_too_large = true;
                Err(Error::SerdeDeCustom)
            }
        }
    }
}

/// Passes kinds of values that allocate nothing on to postcard.
macro_rules! as_postcard {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            self.from.$method(visitor)
        }
    )*};
}

impl<'de> serde::Deserializer<'de> for &mut Decoder<'de> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    as_postcard! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32
        deserialize_i64 deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32
        deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64 deserialize_char
        deserialize_unit deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let text = <&'de str>::deserialize(&mut self.from)?;
        self.take(text.len(), 1)?;
        visitor.visit_borrowed_str(text)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let bytes = <&'de [u8]>::deserialize(&mut self.from)?;
        self.take(bytes.len(), 1)?;
        visitor.visit_borrowed_bytes(bytes)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match u8::deserialize(&mut self.from)? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(Error::DeserializeBadOption),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = usize::deserialize(&mut self.from)?;
        visitor.visit_seq(Elements { decoder: self, left, is_counted: false })
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        // Its elements lie in the value that it is a part of.
        visitor.visit_seq(Elements { decoder: self, left: length, is_counted: true })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(length, visitor)
    }

    /// No such message has a map: what the nodes of one take is not known here.
    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::WontImplement)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(self)
    }
}

/// The elements of a list or a tuple.
struct Elements<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    left: usize,
    /// Whether the memory of all of them is taken already.
    is_counted: bool,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        if !std::mem::replace(&mut self.is_counted, true) {
            self.decoder.take(self.left, size_of::<S::Value>())?;
        }
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // A list of so many elements is refused with its first one.
        Some(self.left).filter(|left| *left <= self.decoder.left)
    }
}

impl<'de> EnumAccess<'de> for &mut Decoder<'de> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let index = u32::deserialize(&mut self.from)?;
        Ok((seed.deserialize(index.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Decoder<'de> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        serde::Deserializer::deserialize_tuple(self, length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        serde::Deserializer::deserialize_tuple(self, fields.len(), visitor)
    }
}
