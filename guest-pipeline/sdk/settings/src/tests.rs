//! Settings against schemas: those of built-in pipelines, each keyword, and malicious schemas.

use super::*;
use serde_json::json;

fn checked(schema: &Value, settings: Value) -> Result<(), SettingsFault> {
    let Value::Object(settings) = settings else { panic!("settings are an object") };
    check(&schema.to_string(), &settings)
}

/// What is said against one value of this schema.
fn said(schema: Value, value: Value) -> Vec<String> {
    match checked(&json!({ "properties": { "a": schema } }), json!({ "a": value })) {
        Ok(()) => Vec::new(),
        Err(SettingsFault::Settings(words)) => words.split("; ").map(str::to_owned).collect(),
        Err(SettingsFault::Schema(words)) => panic!("{words}"),
    }
}

fn broken(schema: &str) -> String {
    match check(schema, &Map::new()) {
        Err(SettingsFault::Schema(words)) => words,
        other => panic!("{schema}: {other:?}"),
    }
}

#[test]
fn every_violation_is_named_by_its_path() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings",
        "type": "object",
        "additionalProperties": false,
        "required": ["model"],
        "properties": {
            "model": { "type": "string", "default": "nanodet" },
            "score": { "type": "number", "exclusiveMinimum": 0, "maximum": 1 },
            "labels": { "type": "array", "items": { "enum": ["person", "car"] } },
            "rate": { "type": ["number", "null"], "exclusiveMinimum": 0 },
            "stages": { "type": "array", "items": { "$ref": "#/$defs/stage" } }
        },
        "$defs": { "stage": {
            "type": "object",
            "required": ["model"],
            "properties": {
                "model": { "type": "string" },
                "then": { "type": "array", "items": { "$ref": "#/$defs/stage" } }
            }
        } }
    });
    let right = json!({ "model": "m", "score": 1, "labels": ["car"], "rate": null, "stages": [{ "model": "n", "then": [] }] });
    assert_eq!(checked(&schema, right), Ok(()));
    let wrong = json!({ "score": 1.5, "labels": ["car", "dog"], "rate": "2", "scores": 1, "stages": [{ "model": "n", "then": [{}] }] });
    let fault = checked(&schema, wrong).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "the settings do not fit the pipeline's schema: settings.model: is missing; \
         settings.labels[1]: \"dog\" is none of \"person\", \"car\"; \
         settings.rate: \"2\" is of type string, not number or null; \
         settings.score: 1.5 is not at most 1; \
         settings.scores: there is no such setting; \
         settings.stages[0].then[0].model: is missing"
    );
    let many: Vec<u32> = (0..50).collect();
    let fault = checked(
        &json!({ "properties": { "a": { "items": { "type": "string" } } } }),
        json!({ "a": many }),
    );
    let words = fault.unwrap_err().to_string();
    assert!(words.contains("settings.a[19]:") && !words.contains("settings.a[20]:"), "{words}");
    assert!(words.ends_with("; and more"), "{words}");
}

#[test]
fn each_keyword_takes_what_it_should_and_refuses_what_it_should() {
    let cases = [
        (json!({ "type": "integer" }), json!(2.0), json!(2.5)),
        (json!({ "type": ["null", "boolean"] }), json!(true), json!(0)),
        (json!({ "enum": [1, [1]] }), json!([1.0]), json!("1")),
        (json!({ "const": { "b": 1 } }), json!({ "b": 1.0 }), json!({ "b": 2 })),
        (json!({ "minimum": 1 }), json!(1), json!(0.9)),
        (json!({ "exclusiveMaximum": 1 }), json!(0.9), json!(1)),
        (json!({ "multipleOf": 0.1 }), json!(0.3), json!(0.35)),
        (json!({ "minLength": 2, "maxLength": 3 }), json!("éé"), json!("é")),
        (json!({ "pattern": "^a+$" }), json!("aa"), json!("ab")),
        (json!({ "minItems": 1, "maxItems": 2 }), json!([1]), json!([])),
        (
            json!({ "prefixItems": [{ "type": "string" }], "items": false }),
            json!(["a"]),
            json!(["a", 1]),
        ),
        (
            json!({ "items": [{ "type": "string" }], "additionalItems": false }),
            json!(["a"]),
            json!(["a", 1]),
        ),
        (json!({ "uniqueItems": true }), json!([1, 2]), json!([1, 2, 1.0])),
        (json!({ "contains": { "const": 1 } }), json!([0, 1]), json!([0])),
        (
            json!({ "contains": { "const": 1 }, "minContains": 0, "maxContains": 1 }),
            json!([]),
            json!([1, 1]),
        ),
        (json!({ "minProperties": 1, "maxProperties": 1 }), json!({ "x": 1 }), json!({})),
        (json!({ "propertyNames": { "maxLength": 1 } }), json!({ "x": 1 }), json!({ "xy": 1 })),
        (
            json!({ "patternProperties": { "^x": { "type": "null" } }, "additionalProperties": false }),
            json!({ "x1": null }),
            json!({ "x1": 1 }),
        ),
        (
            json!({ "additionalProperties": { "type": "null" } }),
            json!({ "x": null }),
            json!({ "x": 1 }),
        ),
        (json!({ "dependentRequired": { "x": ["y"] } }), json!({ "y": 1 }), json!({ "x": 1 })),
        (json!({ "dependencies": { "x": ["y"] } }), json!({ "x": 1, "y": 1 }), json!({ "x": 1 })),
        (
            json!({ "dependentSchemas": { "x": { "required": ["y"] } } }),
            json!({}),
            json!({ "x": 1 }),
        ),
        (json!({ "allOf": [{ "minimum": 1 }, { "maximum": 2 }] }), json!(1), json!(3)),
        (json!({ "anyOf": [{ "type": "string" }, { "minimum": 2 }] }), json!(2), json!(1)),
        (json!({ "oneOf": [{ "minimum": 1 }, { "minimum": 2 }] }), json!(1), json!(2)),
        (json!({ "not": { "type": "string" } }), json!(1), json!("")),
        (
            json!({ "if": { "minimum": 5 }, "then": { "multipleOf": 5 }, "else": { "const": 1 } }),
            json!(10),
            json!(2),
        ),
        (json!(true), json!(1), Value::Null),
        (json!({ "format": "email", "unheard-of": [{}] }), json!("none"), Value::Null),
        (
            json!({ "allOf": [{ "properties": { "x": {} } }], "unevaluatedProperties": false }),
            json!({ "x": 1 }),
            json!({ "x": 1, "y": 1 }),
        ),
        (
            json!({ "anyOf": [{ "prefixItems": [{}] }, true], "unevaluatedItems": false }),
            json!([1]),
            json!([1, 2]),
        ),
        (json!({ "pattern": "^\\u00e9\\/\\cA$" }), json!("é/\u{1}"), json!("e")),
    ];
    for (schema, right, wrong) in cases {
        assert_eq!(said(schema.clone(), right.clone()), [""; 0], "{schema} {right}");
        if !wrong.is_null() {
            let said = said(schema.clone(), wrong.clone());
            assert!(
                !said.is_empty() && said.iter().all(|words| words.starts_with("settings.a")),
                "{schema} {said:?}"
            );
        }
    }
    assert_eq!(said(json!(false), json!(1)), ["settings.a: nothing may stand here"]);
    assert_eq!(
        said(json!({ "contains": { "const": 1 }, "minContains": 2, "maxContains": 3 }), json!([1])),
        ["settings.a: 1 items are of the kind of which at least 2 and at most 3 are needed"]
    );
    assert_eq!(
        said(json!({ "additionalProperties": false }), json!({ "an odd \"name\"": 1 })),
        ["settings.a[\"an odd \\\"name\\\"\"]: there is no such setting"]
    );
    assert_eq!(
        said(json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }), json!(1)),
        [
            "settings.a: fits none of its forms (settings.a: 1 is of type integer, not string",
            "settings.a: 1 is of type integer, not null)"
        ]
    );
}

#[test]
fn no_schema_takes_everything() {
    for schema in ["", " \n", "true", "{}"] {
        assert_eq!(checked_text(schema, json!({ "a": 1 })), Ok(()));
    }
}

fn checked_text(schema: &str, settings: Value) -> Result<(), SettingsFault> {
    check(schema, settings.as_object().unwrap())
}

#[test]
fn what_is_no_schema_is_said_to_be_none() {
    for (schema, words) in [
        ("{", "it is no JSON"),
        ("[1]", "# is neither an object nor true or false"),
        (r#"{"type":"objec"}"#, "#/type is \"objec\", not a type"),
        (
            r#"{"properties":{"a":{"minimum":"1"}}}"#,
            "#/properties/a/minimum is \"1\", not a number",
        ),
        (
            r#"{"properties":{"a":{"pattern":"(a"}}}"#,
            "#/properties/a: the pattern (a is not usable",
        ),
        (r#"{"patternProperties":{"(a":{}}}"#, "the pattern (a is not usable"),
        (r#"{"required":"a"}"#, "#/required is \"a\", not a list of names"),
        (r#"{"multipleOf":0}"#, "not a number above 0"),
        (r#"{"minItems":-1}"#, "not a count"),
        (r#"{"anyOf":[{"allOf":{}}]}"#, "#/anyOf/0/allOf is {}, not a list of schemas"),
        (r##"{"$ref":"#/$defs/none"}"##, "not a place in this schema"),
        (r#"{"$ref":"file:///etc/passwd"}"#, "not a place in this schema"),
        (r#"{"$ref":"https://example.org/schema"}"#, "not a place in this schema"),
        (r##"{"$recursiveRef":"#"}"##, "is not supported here"),
        (r#"{"properties":{"a":{"$id":"https://example.org/a"}}}"#, "not supported here"),
        (r#"{"$schema":"https://example.org/schema"}"#, "not draft 2020-12, 2019-09, 7 or 6"),
        (r#"{"anyOf":[{"$anchor":"a"},{"$anchor":"a"}]}"#, "is there twice"),
        (r#"{"pattern":"(?=a)"}"#, "#: the pattern (?=a) is not usable"),
        (r#"{"pattern":"\\p{L}"}"#, "is not usable"),
    ] {
        let said = broken(schema);
        assert!(said.contains(words), "{schema}: {said}");
    }
    assert!(
        broken(&format!("{{\"title\":\"{}\"}}", "x".repeat(MAX_SCHEMA))).contains("at most 262144")
    );
    assert!(broken(&"[".repeat(1000)).contains("no JSON"));
}

/// Its levels each lead twice to the one below; the last asks for a field.
fn doubling(levels: usize) -> Value {
    let level = |level: usize| {
        let below = json!({ "$ref": format!("#/$defs/l{}", level - 1) });
        (format!("l{level}"), json!({ "allOf": [below, below], "anyOf": [below, below] }))
    };
    let mut schemas: Map<String, Value> = (1..levels).map(level).collect();
    schemas.insert("l0".into(), json!({ "required": ["a"] }));
    json!({ "$defs": schemas, "$ref": format!("#/$defs/l{}", levels - 1) })
}

#[test]
fn references_that_double_are_followed_in_little_time() {
    let schema = doubling(60);
    assert_eq!(checked(&schema, json!({ "a": 1 })), Ok(()));
    let words = checked(&schema, json!({})).unwrap_err().to_string();
    assert!(words.contains("settings.a: is missing"), "{words}");
    assert!(words.len() < 20_000, "{}", words.len());
    // Twice for each level of the settings.
    let schema = json!({ "properties": { "a": { "allOf": [{ "$ref": "#" }, { "$ref": "#" }] } } });
    let deep = (0..100).fold(json!({}), |below, _| json!({ "a": below }));
    assert_eq!(checked(&schema, deep), Ok(()));
}

#[test]
fn a_schema_without_an_end_is_refused_in_little_stack() {
    assert!(broken(r##"{"$ref":"#"}"##).contains("leads to itself at settings"));
    assert!(broken(r##"{"anyOf":[{"$ref":"#/anyOf/0"}]}"##).contains("leads to itself"));
    // A chain as long as the schema may be.
    let link =
        |link: usize| (format!("l{link}"), json!({ "$ref": format!("#/$defs/l{}", link + 1) }));
    let mut links: Map<String, Value> = (0..4000).map(link).collect();
    links.insert("l4000".into(), json!(true));
    let chain = json!({ "$defs": links, "$ref": "#/$defs/l0" });
    assert!(broken(&chain.to_string()).contains("deeper than 300"));
    let many: Vec<Value> = vec![json!({}); 8192];
    assert!(broken(&json!({ "anyOf": many }).to_string()).contains("more than 8192 schemas"));
}

#[test]
fn patterns_take_bounded_memory_and_time() {
    assert!(
        broken(r#"{"properties":{"a":{"pattern":"((a{1000}){1000}){1000}"}}}"#).contains("pattern")
    );
    let many: Map<String, Value> =
        (0..257).map(|n| (format!("a{{500}}b{n}"), json!(true))).collect();
    let words = broken(&json!({ "patternProperties": many }).to_string());
    assert!(words.contains("more than 256 patterns"), "{words}");
    // It takes long to see that a text does not fit, so it counts before.
    let slow = json!({ "properties": { "a": { "pattern": "^(a|b)*(a|b){200}c$" } } });
    let words = checked(&slow, json!({ "a": "a".repeat(1000) })).unwrap_err().to_string();
    assert!(words.contains("does not match"), "{words}");
    let fault = checked(&slow, json!({ "a": "a".repeat(1_000_000) }));
    let words = fault.unwrap_err().to_string();
    assert!(words.contains("more than 100 million steps"), "{words}");
}

#[test]
fn violations_without_end_are_a_short_text() {
    let forms: Vec<Value> = (0..2000).map(|n| json!({ "const": format!("form {n}") })).collect();
    let schema = json!({ "properties": { "a": { "items": { "anyOf": forms } } } });
    let many: Vec<usize> = (0..3000).collect();
    let words = checked(&schema, json!({ "a": many })).unwrap_err().to_string();
    assert!(words.len() < 20_000 && words.contains("settings.a[0]: fits none"), "{words}");
    let long = "n".repeat(100_000);
    let deep = (0..100).fold(json!(1), |below, _| json!({ long.clone(): below }));
    let schema = json!({ "additionalProperties": { "$ref": "#" }, "type": "object" });
    let words = checked(&schema, deep).unwrap_err().to_string();
    assert!(words.len() < 3000 && words.contains("not object"), "{}", words.len());
}

#[test]
fn steps_grow_with_schema_times_settings_and_no_faster() {
    // Every node looks at every value by way of a reference, the worst that a schema can do.
    let steps = |nodes: usize, values: usize| {
        let node = |n: usize| {
            (format!("n{n}"), json!({ "allOf": [{ "$ref": format!("#/$defs/n{}", n / 2) }] }))
        };
        let mut nodes: Map<String, Value> = (1..nodes).map(node).collect();
        nodes.insert("n0".into(), json!({ "items": { "anyOf": [true, { "$ref": "#" }] } }));
        let all: Vec<Value> =
            nodes.keys().map(|name| json!({ "$ref": format!("#/$defs/{name}") })).collect();
        let schema =
            json!({ "$defs": nodes, "allOf": all, "additionalProperties": { "$ref": "#" } });
        let schema = Schema::read(&schema.to_string()).unwrap();
        Check::new(schema.0.as_ref().unwrap()).steps_for(&json!({ "a": vec![1; values] }))
    };
    let few = steps(100, 100);
    assert!(few < 10 * 100 * 100, "{few}");
    for (nodes, values) in [(200, 100), (100, 200), (200, 200)] {
        let more = steps(nodes, values);
        let times = nodes * values / (100 * 100);
        assert!(more <= few * times + few, "{more} for {times} times the {few}");
    }
}
