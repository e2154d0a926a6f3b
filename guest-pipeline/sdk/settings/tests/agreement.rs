//! A second opinion: `boon`, the validator that the tests of pipelines were held against before.

#![cfg(test)]

use ocelli_settings::{Schema, SettingsFault};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// What `boon` says; `None` where it takes the schema for none.
fn second(schema: &Value, value: &Value) -> Option<bool> {
    let mut compiler = boon::Compiler::new();
    compiler.set_default_draft(boon::Draft::V2020_12);
    compiler.add_resource("memory:a", schema.clone()).unwrap();
    let mut schemas = boon::Schemas::new();
    let index = compiler.compile("memory:a", &mut schemas).ok()?;
    Some(schemas.validate(value, index).is_ok())
}

/// What is said here; `None` for a schema that is refused.
fn first(schema: &Value, value: &Value) -> Option<bool> {
    match Schema::read(&schema.to_string()).and_then(|schema| schema.check_value(value)) {
        Ok(()) => Some(true),
        Err(SettingsFault::Settings(_)) => Some(false),
        Err(SettingsFault::Schema(_)) => None,
    }
}

/// Zones as the default pipeline has them, with this many labels each.
fn zones(labels: usize) -> (Value, Value) {
    let known: Vec<String> = (0..80).map(|n| format!("label {n}")).collect();
    let point =
        json!({ "type": "array", "items": { "type": "number", "maximum": 1 }, "maxItems": 2 });
    let zone = json!({
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": { "type": "string" },
            "labels": { "type": "array", "items": { "enum": known } },
            "polygon": { "type": "array", "items": point }
        }
    });
    let corners = vec![[0.5, 0.5]; 32];
    let zone_of =
        |n| json!({ "name": format!("{n}"), "labels": known[..labels], "polygon": corners });
    let all: Vec<Value> = (0..32).map(zone_of).collect();
    (json!({ "properties": { "zones": { "items": zone } } }), json!({ "zones": all }))
}

const FLOATS: &str = "boon takes numbers for binary fractions, whose last digits are not exact";

/// A schema, a value, what is said here, and why if that is not what `boon` says.
type Probe = (Value, Value, Option<bool>, &'static str);

#[test]
fn schemas_that_authors_write_get_one_answer_or_a_known_other_one() {
    let below = json!({ "$ref": "#/$defs/a" });
    let at = |keyword: &str, value: Value| json!({ "properties": { "a": { keyword: value } } });
    let probes: Vec<Probe> = vec![
        (zones(8).0, zones(8).1, Some(true), ""),
        (zones(80).0, zones(80).1, Some(true), ""),
        (
            json!({ "properties": { "a": {} }, "unevaluatedProperties": false }),
            json!({ "b": 1 }),
            Some(false),
            "",
        ),
        (
            json!({ "allOf": [below, below], "$defs": { "a": { "properties": { "x": true } } }, "unevaluatedProperties": false }),
            json!({ "x": 1 }),
            Some(true),
            "",
        ),
        (
            json!({ "$defs": { "a": { "$anchor": "here", "type": "string" } }, "properties": { "a": { "$ref": "#here" } } }),
            json!({ "a": 1 }),
            Some(false),
            "",
        ),
        (
            json!({ "$dynamicAnchor": "node", "properties": { "a": { "$dynamicRef": "#node" } }, "additionalProperties": false }),
            json!({ "a": { "b": 1 } }),
            Some(false),
            "",
        ),
        (
            json!({ "$id": "https://example.org/s", "$defs": { "a": { "type": "string" } }, "properties": { "a": { "$ref": "https://example.org/s#/$defs/a" } } }),
            json!({ "a": 1 }),
            Some(false),
            "",
        ),
        (at("multipleOf", json!(0.01)), json!({ "a": 0.07 }), Some(true), FLOATS),
        (
            at("maximum", json!(9_007_199_254_740_992u64)),
            json!({ "a": 9_007_199_254_740_993u64 }),
            Some(false),
            FLOATS,
        ),
        (
            at("const", json!(9_007_199_254_740_993u64)),
            json!({ "a": 9_007_199_254_740_992u64 }),
            Some(false),
            "",
        ),
        (at("pattern", json!("^\\u00e9$")), json!({ "a": "é" }), Some(true), ""),
        (at("pattern", json!("^[\\w/-]+$")), json!({ "a": "a/b-c" }), Some(true), ""),
        (at("format", json!("email")), json!({ "a": "none" }), Some(true), ""),
        (at("uniqueItems", json!(true)), json!({ "a": [1, 1.0] }), Some(false), ""),
        (at("type", json!("integer")), json!({ "a": 1e300 }), Some(true), ""),
        (at("minLength", json!(2)), json!({ "a": "é" }), Some(false), ""),
        (at("$ref", json!("#")), json!({ "a": { "a": 1 } }), Some(true), ""),
        (
            at("items", json!([{ "type": "string" }])),
            json!({ "a": [1] }),
            Some(false),
            "the form of drafts 6 and 7 is known whatever the draft",
        ),
        (at("pattern", json!("^\\p{L}+$")), json!({ "a": "é" }), None, "no tables of Unicode"),
        (
            json!({ "properties": { "a": { "$id": "https://example.org/a", "type": "string" } } }),
            json!({ "a": "b" }),
            None,
            "a schema is one document",
        ),
    ];
    for (schema, value, expected, why) in probes {
        assert_eq!(first(&schema, &value), expected, "{schema}");
        assert_eq!(second(&schema, &value) == expected, why.is_empty(), "{schema}: {why}");
    }
}

fn value() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..6).prop_map(Value::from),
        prop::sample::select(vec![0.5, 1.0, 1.5, -2.0]).prop_map(Value::from),
        prop::sample::select(vec!["", "a", "ab", "xyz"]).prop_map(Value::from),
    ];
    plain.prop_recursive(3, 12, 4, |inner| {
        let name = prop::sample::select(vec!["a", "b", "xyz"]).prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn assertion() -> impl Strategy<Value = (String, Value)> {
    let count = || (0u64..4).prop_map(Value::from);
    let number = || prop::sample::select(vec![json!(0), json!(1), json!(1.5), json!(3)]);
    let names = || prop::sample::subsequence(vec!["a", "b", "xyz"], 0..3).prop_map(Value::from);
    let types = vec!["null", "boolean", "object", "array", "number", "integer", "string"];
    let keyword = |name: &'static str, value: BoxedStrategy<Value>| {
        value.prop_map(move |value| (name.to_owned(), value)).boxed()
    };
    prop_oneof![
        keyword("type", prop::sample::select(types.clone()).prop_map(Value::from).boxed()),
        keyword("type", prop::sample::subsequence(types, 1..3).prop_map(Value::from).boxed()),
        keyword("enum", prop::collection::vec(value(), 1..4).prop_map(Value::from).boxed()),
        keyword("const", value().boxed()),
        keyword("minimum", number().boxed()),
        keyword("exclusiveMaximum", number().boxed()),
        keyword("multipleOf", prop::sample::select(vec![json!(0.5), json!(2)]).boxed()),
        keyword("minLength", count().boxed()),
        keyword("maxItems", count().boxed()),
        keyword("minProperties", count().boxed()),
        keyword("pattern", prop::sample::select(vec![json!("^a"), json!("b$")]).boxed()),
        keyword("uniqueItems", any::<bool>().prop_map(Value::from).boxed()),
        keyword("required", names().boxed()),
        keyword("dependentRequired", names().prop_map(|names| json!({ "a": names })).boxed()),
        keyword("minContains", count().boxed()),
    ]
}

fn schema() -> impl Strategy<Value = Value> {
    let plain = prop_oneof![
        any::<bool>().prop_map(Value::from),
        prop::collection::vec(assertion(), 0..3)
            .prop_map(|keywords| Value::Object(keywords.into_iter().collect())),
    ];
    plain.prop_recursive(4, 24, 3, |inner| {
        let one = || inner.clone();
        let several = || prop::collection::vec(inner.clone(), 1..3).prop_map(Value::from);
        let wrapped = |name: &'static str| inner.clone().prop_map(move |it| json!({ name: it }));
        let keyword = |names: &[&'static str], value: BoxedStrategy<Value>| {
            (prop::sample::select(names.to_vec()), value)
                .prop_map(|(name, value)| (name.to_owned(), value))
                .boxed()
        };
        let singles = [
            "not",
            "if",
            "then",
            "else",
            "items",
            "contains",
            "additionalProperties",
            "propertyNames",
            "unevaluatedProperties",
            "unevaluatedItems",
        ];
        let applicator = prop_oneof![
            4 => keyword(&singles, one().boxed()),
            3 => keyword(&["allOf", "anyOf", "oneOf", "prefixItems"], several().boxed()),
            2 => keyword(&["properties", "dependentSchemas"], wrapped("a").boxed()),
            1 => keyword(&["properties"], wrapped("b").boxed()),
            1 => keyword(&["patternProperties"], wrapped("^[xb]").boxed()),
            1 => keyword(&["$ref"], Just(json!("#/$defs/leaf")).boxed()),
        ];
        let keywords = prop::collection::vec(prop_oneof![applicator, assertion()], 1..5);
        keywords.prop_map(|keywords| Value::Object(keywords.into_iter().collect()))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn any_schema_gets_the_same_answer(schema in schema(), leaf in assertion(), value in value()) {
        let leaf: Map<String, Value> = [leaf].into_iter().collect();
        let schema = json!({ "$defs": { "leaf": leaf }, "allOf": [schema] });
        prop_assert_eq!(first(&schema, &value), second(&schema, &value), "{} {}", schema, value);
    }
}
