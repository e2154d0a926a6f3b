//! The macro that declares settings.

/// Declares settings: each field once, with its default, its limits and, as its comment, its
/// description. The type, its reading, its checks and its JSON Schema are made of that.
///
/// ```
/// use ocelli_sdk::settings;
///
/// settings! {
///     /// How the picture is cut.
///     pub enum Cut {
///         /// As a square.
///         Square = "square",
///         /// As it is.
///         Whole = "whole",
///     }
/// }
///
/// settings! {
///     /// Settings of darkness.
///     pub struct Settings {
///         /// Mean grey below which a picture is dark.
///         pub below: u8 = 40;
///         /// Looks in a second. Null: all that come.
///         pub rate: Option<f64> = None, above(0);
///         /// Width and height of what is looked at.
///         pub size: [u32; 2] = [32, 32], each(at_least(1).up_to(640));
///         /// Where to look.
///         pub cut: Cut = Cut::Whole;
///     }
/// }
///
/// let given = settings::read::<Settings>(r#"{"below":30}"#)?;
/// assert_eq!((given.below, given.size), (30, [32, 32]));
/// assert_eq!(Settings::default().below, 40);
///
/// let wrong = settings::read::<Settings>(r#"{"size":[32,1000]}"#).unwrap_err();
/// assert_eq!(wrong, "settings.size[1]: 1000 is not 1 to 640");
///
/// let schema = settings::schema::<Settings>();
/// assert_eq!(schema["properties"]["below"]["default"], 40);
/// assert_eq!(schema["properties"]["rate"]["exclusiveMinimum"], 0);
/// # Ok::<(), String>(())
/// ```
///
/// A field is written `vis name: Type = default, limits => check;`:
///
/// - Types are numbers, `bool`, `String`, `Vec`, arrays, `Option` (where null is a value), and
///   other types of this macro.
/// - Without `= default` the field has to be given.
/// - `name?: Type` is an `Option` that is `None` where the field is not given; null is no value.
///   With `= default` the schema says what the pipeline takes then.
/// - `name as "key": Type` is called otherwise in JSON.
/// - The limits are those of [`limits`](crate::settings::limits), whose functions are in scope.
/// - The check is a function `(&Type, path: &str) -> Result<(), String>`, for what limits cannot
///   say. It is asked before the limits, as its words are the better ones; the schema
///   does not know it.
///
/// The types derive `Debug`, `Clone` and `PartialEq`, enumerations `Copy` and `Eq` too. A struct
/// whose fields all have a default, or need none, has `Default`.
#[macro_export]
macro_rules! settings {
    ($(#[doc = $doc:literal])* $vis:vis struct $name:ident { $($body:tt)* }) => {
        $crate::__settings_struct! { whole [$($doc)*] [$vis] $name [] $($body)* }
    };
    (
        $(#[doc = $doc:literal])*
        $vis:vis enum $name:ident {
            $($(#[doc = $variant_doc:literal])* $variant:ident = $text:literal),+ $(,)?
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $name {
            $($(#[doc = $variant_doc])* $variant),+
        }

        impl $name {
            /// As the settings write it.
            #[must_use]
            $vis fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text),+
                }
            }
        }

        impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
            fn deserialize<D>(deserializer: D) -> ::std::result::Result<Self, D::Error>
            where
                D: $crate::__private::serde::Deserializer<'de>,
            {
                const NAMES: &[&str] = &[$($text),+];
                let name = deserializer.deserialize_str($crate::settings::object::VariantName(NAMES))?;
                $(if name == $text {
                    return ::std::result::Result::Ok(Self::$variant);
                })+
                ::std::result::Result::Err(
                    $crate::__private::serde::de::Error::unknown_variant(name, NAMES),
                )
            }
        }

        impl $crate::settings::Setting for $name {
            fn describe(
                _: &$crate::settings::limits::Limits,
            ) -> $crate::__private::serde_json::Map<
                ::std::string::String,
                $crate::__private::serde_json::Value,
            > {
                ::std::iter::FromIterator::from_iter([(
                    "enum".to_owned(),
                    $crate::__private::serde_json::json!([$($text),+]),
                )])
            }

            fn to_json(&self) -> $crate::__private::serde_json::Value {
                self.name().into()
            }

            fn check(
                &self,
                _: &$crate::settings::limits::Limits,
                _: &str,
            ) -> ::std::result::Result<(), ::std::string::String> {
                ::std::result::Result::Ok(())
            }
        }
    };
}

/// Takes the fields of a struct one by one, and makes the code when all are taken.
#[doc(hidden)]
#[macro_export]
macro_rules! __settings_struct {
    // `name: Type = default`
    (
        $whole:ident $docs:tt $vis:tt $name:ident [$($done:tt)*]
        $(#[doc = $doc:literal])*
        $field_vis:vis $field:ident $(as $key:literal)? : $ty:ty = $default:expr
        $(, $limits:expr)? $(=> $check:expr)?;
        $($rest:tt)*
    ) => {
        $crate::__settings_struct! {
            $whole $docs $vis $name
            [$($done)* {
                [$($doc)*] [$field_vis] $field [$ty] [$ty]
                [$crate::__settings_key!($field $($key)?)]
                [default $default]
                [$crate::__settings_limits!($($limits)?)]
                [$crate::__settings_check!($($check)?)]
            }]
            $($rest)*
        }
    };
    // `name?: Type`, and `name?: Type = what the schema says`
    (
        $whole:ident $docs:tt $vis:tt $name:ident [$($done:tt)*]
        $(#[doc = $doc:literal])*
        $field_vis:vis $field:ident ? $(as $key:literal)? : $ty:ty $(= $default:expr)?
        $(, $limits:expr)? $(=> $check:expr)?;
        $($rest:tt)*
    ) => {
        $crate::__settings_struct! {
            $whole $docs $vis $name
            [$($done)* {
                [$($doc)*] [$field_vis] $field [::std::option::Option<$ty>] [$ty]
                [$crate::__settings_key!($field $($key)?)]
                [open $($default)?]
                [$crate::__settings_limits!($($limits)?)]
                [$crate::__settings_check!($($check)?)]
            }]
            $($rest)*
        }
    };
    // `name: Type`
    (
        $whole:ident $docs:tt $vis:tt $name:ident [$($done:tt)*]
        $(#[doc = $doc:literal])*
        $field_vis:vis $field:ident $(as $key:literal)? : $ty:ty
        $(, $limits:expr)? $(=> $check:expr)?;
        $($rest:tt)*
    ) => {
        $crate::__settings_struct! {
            partial $docs $vis $name
            [$($done)* {
                [$($doc)*] [$field_vis] $field [$ty] [$ty]
                [$crate::__settings_key!($field $($key)?)]
                [required]
                [$crate::__settings_limits!($($limits)?)]
                [$crate::__settings_check!($($check)?)]
            }]
            $($rest)*
        }
    };
    (
        $whole:ident [$($doc:literal)*] [$vis:vis] $name:ident
        [$({
            [$($field_doc:literal)*] [$field_vis:vis] $field:ident [$ty:ty] [$shown:ty]
            [$key:expr] [$absent:ident $($default:expr)?] [$limits:expr] [$check:expr]
        })*]
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name {
            $($(#[doc = $field_doc])* $field_vis $field: $ty,)*
        }

        $crate::__settings_default! { $whole $name $($field [$absent $($default)?])* }

        impl<'de> $crate::__private::serde::Deserialize<'de> for $name {
            fn deserialize<D>(deserializer: D) -> ::std::result::Result<Self, D::Error>
            where
                D: $crate::__private::serde::Deserializer<'de>,
            {
                const KEYS: &[&str] = &[$($key),*];

                struct Fields;

                impl<'de> $crate::__private::serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(
                        &self,
                        formatter: &mut ::std::fmt::Formatter<'_>,
                    ) -> ::std::fmt::Result {
                        formatter.write_str("an object")
                    }

                    fn visit_map<A>(
                        self,
                        mut map: A,
                    ) -> ::std::result::Result<$name, A::Error>
                    where
                        A: $crate::__private::serde::de::MapAccess<'de>,
                    {
                        $(let mut $field = ::std::option::Option::<$ty>::None;)*
                        while let ::std::option::Option::Some(key) =
                            map.next_key_seed($crate::settings::object::Key(KEYS))?
                        {
                            $(if key == $key {
                                if $field.is_some() {
                                    return ::std::result::Result::Err(
                                        $crate::__private::serde::de::Error::duplicate_field($key),
                                    );
                                }
                                $field = ::std::option::Option::Some(map.next_value()?);
                                continue;
                            })*
                        }
                        ::std::result::Result::Ok($name {
                            $($field: match $field {
                                ::std::option::Option::Some(value) => value,
                                ::std::option::Option::None => {
                                    $crate::__settings_absent!(A $key, $absent $($default)?)
                                }
                            },)*
                        })
                    }
                }

                deserializer.deserialize_struct(stringify!($name), KEYS, Fields)
            }
        }

        impl $crate::settings::Setting for $name {
            fn describe(
                _: &$crate::settings::limits::Limits,
            ) -> $crate::__private::serde_json::Map<
                ::std::string::String,
                $crate::__private::serde_json::Value,
            > {
                #[allow(unused_imports)]
                use $crate::settings::limits::*;
                #[allow(unused_mut)]
                let mut object = $crate::settings::object::ObjectSchema::new(&[$($doc),*]);
                $(object.field(
                    $key,
                    &[$($field_doc),*],
                    <$shown as $crate::settings::Setting>::describe(&$limits),
                    $crate::__settings_shown!($shown, $absent $($default)?),
                );)*
                object.finish()
            }

            fn to_json(&self) -> $crate::__private::serde_json::Value {
                #[allow(unused_mut)]
                let mut object = $crate::__private::serde_json::Map::new();
                $(object.insert(
                    $key.to_owned(),
                    $crate::settings::Setting::to_json(&self.$field),
                );)*
                object.into()
            }

            fn check(
                &self,
                _: &$crate::settings::limits::Limits,
                path: &str,
            ) -> ::std::result::Result<(), ::std::string::String> {
                #[allow(unused_imports)]
                use $crate::settings::limits::*;
                $($crate::settings::object::check_field(
                    &self.$field,
                    &::std::format!("{path}.{}", $key),
                    &$limits,
                    $check,
                )?;)*
                ::std::result::Result::Ok(())
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_key {
    ($field:ident $key:literal) => {
        $key
    };
    ($field:ident) => {
        stringify!($field)
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_limits {
    ($limits:expr) => {
        $limits
    };
    () => {
        $crate::settings::limits::any()
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_check {
    ($check:expr) => {
        $check
    };
    () => {
        |_, _| ::std::result::Result::Ok(())
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_absent {
    ($access:ident $key:expr, default $default:expr) => {
        $default
    };
    ($access:ident $key:expr, open $($default:expr)?) => {
        ::std::option::Option::None
    };
    ($access:ident $key:expr, required) => {
        return ::std::result::Result::Err(
            <$access::Error as $crate::__private::serde::de::Error>::missing_field($key),
        )
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_shown {
    ($ty:ty, $absent:ident $default:expr) => {{
        let default: $ty = $default;
        $crate::settings::object::Absent::Default($crate::settings::Setting::to_json(&default))
    }};
    ($ty:ty, open) => {
        $crate::settings::object::Absent::Open
    };
    ($ty:ty, required) => {
        $crate::settings::object::Absent::Required
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_default {
    (whole $name:ident $($field:ident [$absent:ident $($default:expr)?])*) => {
        impl ::std::default::Default for $name {
            fn default() -> Self {
                Self {
                    $($field: $crate::__settings_or_none!($absent $($default)?),)*
                }
            }
        }
    };
    (partial $name:ident $($rest:tt)*) => {};
}

#[doc(hidden)]
#[macro_export]
macro_rules! __settings_or_none {
    (default $default:expr) => {
        $default
    };
    (open $($default:expr)?) => {
        ::std::option::Option::None
    };
}
