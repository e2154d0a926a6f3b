//! From the text of a schema to nodes: each place where a schema stands, with its keywords read,
//! checked and grouped by what they look at.

mod assertion;

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value};

use crate::SchemaError;
use crate::pattern::Pattern;
use crate::value::shown;
pub(crate) use assertion::Assertion;

/// Most schemas in a schema. Each takes a few hundred bytes; 256 KiB of documented ones are 3,000.
const MAX_NODES: usize = 8192;

/// Most patterns in a schema. A large one takes 64 KiB and a millisecond.
const MAX_PATTERNS: usize = 256;

/// The drafts whose schemas of schemas a schema may name, without scheme and empty fragment.
const DRAFTS: [&str; 4] = [
    "json-schema.org/draft/2020-12/schema",
    "json-schema.org/draft/2019-09/schema",
    "json-schema.org/draft-07/schema",
    "json-schema.org/draft-06/schema",
];

/// The number of a node.
pub(crate) type NodeId = usize;

/// A compiled schema; its first node is the whole.
#[derive(Debug)]
pub(crate) struct Compiled {
    nodes: Vec<Node>,
    /// Whether some keyword asks what others have looked at.
    pub(crate) tracks: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Node {
    /// In the order in which they are applied.
    pub(crate) keywords: Vec<Keyword>,
    /// Whether a reference leads here: then several ways may, and the verdict is remembered.
    pub(crate) shared: bool,
}

/// Keywords that belong together.
#[derive(Debug)]
pub(crate) enum Keyword {
    /// Says something about the value alone.
    Assert(Assertion),
    /// `$ref`, and `$dynamicRef`, which is the same within one document. Below 2020-12 keywords
    /// beside it count too.
    Reference(NodeId),
    AllOf(Vec<NodeId>),
    AnyOf(Vec<NodeId>),
    OneOf(Vec<NodeId>),
    Not(NodeId),
    If {
        condition: NodeId,
        then: Option<NodeId>,
        otherwise: Option<NodeId>,
    },
    /// Applies where the field is there: `dependentSchemas`, `dependencies`.
    Dependent(String, NodeId),
    Properties {
        named: BTreeMap<String, NodeId>,
        matching: Vec<(Pattern, NodeId)>,
        /// `additionalProperties`.
        rest: Option<NodeId>,
    },
    PropertyNames(NodeId),
    Items {
        first: Vec<NodeId>,
        rest: Option<NodeId>,
    },
    Contains {
        node: NodeId,
        least: usize,
        most: usize,
    },
    /// What no other keyword of the place has looked at; it comes last.
    UnevaluatedProperties(NodeId),
    UnevaluatedItems(NodeId),
}

impl Compiled {
    pub(crate) fn new(schema: &Value) -> Result<Self, SchemaError> {
        let mut compiler = Compiler {
            root: schema,
            id: schema.get("$id").and_then(Value::as_str),
            anchors: HashMap::new(),
            nodes: Vec::new(),
            known: HashMap::new(),
            references: Vec::new(),
            patterns: 0,
            tracks: false,
        };
        compiler.node(schema, "#")?;
        // What a reference leads to may hold references again, so depth of the stack is not theirs.
        while let Some(reference) = compiler.references.pop() {
            compiler.resolve(reference)?;
        }
        Ok(Self { nodes: compiler.nodes, tracks: compiler.tracks })
    }

    pub(crate) fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// Whether the node is `false`, which takes nothing.
    pub(crate) fn is_never(&self, id: NodeId) -> bool {
        let keywords = self.node(id).map(|node| node.keywords.as_slice());
        matches!(keywords, Some([Keyword::Assert(Assertion::Never)]))
    }
}

/// A reference of a node, still to be followed.
struct Reference<'a> {
    from: NodeId,
    to: &'a str,
    at: String,
}

struct Compiler<'a> {
    root: &'a Value,
    /// `$id` of the whole, which references may begin with.
    id: Option<&'a str>,
    anchors: HashMap<&'a str, &'a Value>,
    nodes: Vec<Node>,
    /// The nodes by their places.
    known: HashMap<*const Value, NodeId>,
    references: Vec<Reference<'a>>,
    patterns: usize,
    tracks: bool,
}

type Keywords<'a> = &'a Map<String, Value>;

/// Makes a keyword of the nodes in its value.
type Make<T> = fn(T) -> Keyword;

impl<'a> Compiler<'a> {
    /// The node of the schema that stands at `at`. As deep as the text is nested, which the parser
    /// bounds.
    fn node(&mut self, schema: &'a Value, at: &str) -> Result<NodeId, SchemaError> {
        if let Some(known) = self.known.get(&std::ptr::from_ref(schema)) {
            return Ok(*known);
        }
        let id = self.nodes.len();
        if id == MAX_NODES {
            return Err(SchemaError(format!("it holds more than {MAX_NODES} schemas")));
        }
        self.nodes.push(Node::default());
        self.known.insert(std::ptr::from_ref(schema), id);
        let keywords = match schema {
            Value::Bool(true) => Vec::new(),
            Value::Bool(false) => vec![Keyword::Assert(Assertion::Never)],
            Value::Object(keywords) => self.keywords(id, schema, keywords, at)?,
            _ => return Err(SchemaError(format!("{at} is neither an object nor true or false"))),
        };
        if let Some(node) = self.nodes.get_mut(id) {
            // References may be there already.
            node.keywords.extend(keywords);
        }
        Ok(id)
    }

    fn keywords(
        &mut self,
        id: NodeId,
        schema: &'a Value,
        keywords: Keywords<'a>,
        at: &str,
    ) -> Result<Vec<Keyword>, SchemaError> {
        self.identify(schema, keywords, at)?;
        for keyword in ["$ref", "$dynamicRef"] {
            if let Some(reference) = keywords.get(keyword) {
                let at = format!("{at}/{keyword}");
                let to = reference.as_str().ok_or_else(|| wrong(&at, reference, "a text"))?;
                self.references.push(Reference { from: id, to, at });
            }
        }
        for keyword in ["$defs", "definitions"] {
            self.named(keywords, keyword, at)?;
        }
        let assertions = assertion::read(keywords, at, &mut self.patterns)?;
        let mut read: Vec<_> = assertions.into_iter().map(Keyword::Assert).collect();
        self.about_fields(keywords, at, &mut read)?;
        self.about_items(keywords, at, &mut read)?;
        self.combined(keywords, at, &mut read)?;
        let unevaluated: [(&str, Make<NodeId>); 2] = [
            ("unevaluatedProperties", Keyword::UnevaluatedProperties),
            ("unevaluatedItems", Keyword::UnevaluatedItems),
        ];
        for (keyword, make) in unevaluated {
            if let Some(node) = self.one(keywords, keyword, at)? {
                self.tracks = true;
                read.push(make(node));
            }
        }
        if self.patterns > MAX_PATTERNS {
            return Err(SchemaError(format!("it holds more than {MAX_PATTERNS} patterns")));
        }
        Ok(read)
    }

    /// The keywords by which a place says what it is.
    fn identify(
        &mut self,
        schema: &'a Value,
        keywords: Keywords<'a>,
        at: &str,
    ) -> Result<(), SchemaError> {
        let text = |keyword: &str| match keywords.get(keyword) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(wrong(&format!("{at}/{keyword}"), other, "a text")),
        };
        if keywords.contains_key("$recursiveRef") {
            return Err(SchemaError(format!("{at}/$recursiveRef is not supported here")));
        }
        let is_root = std::ptr::eq(schema, self.root);
        if let Some(draft) = text("$schema")?.filter(|_| is_root) {
            let name = draft.strip_suffix('#').unwrap_or(draft);
            let name = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"));
            if !name.is_some_and(|name| DRAFTS.contains(&name)) {
                let known = "draft 2020-12, 2019-09, 7 or 6";
                return Err(wrong(&format!("{at}/$schema"), &draft.into(), known));
            }
        }
        let mut anchors = vec![text("$anchor")?, text("$dynamicAnchor")?];
        if let Some(id) = text("$id")?.filter(|_| !is_root) {
            // Before draft 2019-09 this was how to write an anchor.
            let anchor = id.strip_prefix('#').ok_or_else(|| {
                SchemaError(format!("{at}/$id: a document of its own is not supported here"))
            })?;
            anchors.push(Some(anchor));
        }
        for anchor in anchors.into_iter().flatten() {
            let before = self.anchors.insert(anchor, schema);
            if before.is_some_and(|before| !std::ptr::eq(before, schema)) {
                return Err(SchemaError(format!("{at}: the anchor {anchor:?} is there twice")));
            }
        }
        Ok(())
    }

    fn resolve(&mut self, reference: Reference<'a>) -> Result<(), SchemaError> {
        let Reference { from, to, at } = reference;
        let local = self.id.and_then(|id| to.strip_prefix(id.strip_suffix('#').unwrap_or(id)));
        let fragment = match local.unwrap_or(to) {
            "" => Some(String::new()),
            local => local.strip_prefix('#').and_then(decode),
        };
        let target = fragment.and_then(|fragment| {
            if fragment.is_empty() || fragment.starts_with('/') {
                self.root.pointer(&fragment)
            } else {
                self.anchors.get(fragment.as_str()).copied()
            }
        });
        let target = target.filter(|target| target.is_object() || target.is_boolean());
        let target = target.ok_or_else(|| wrong(&at, &to.into(), "a place in this schema"))?;
        let target = self.node(target, to)?;
        if let Some(node) = self.nodes.get_mut(target) {
            node.shared = true;
        }
        if let Some(node) = self.nodes.get_mut(from) {
            node.keywords.insert(0, Keyword::Reference(target));
        }
        Ok(())
    }

    fn about_fields(
        &mut self,
        keywords: Keywords<'a>,
        at: &str,
        read: &mut Vec<Keyword>,
    ) -> Result<(), SchemaError> {
        for keyword in ["dependentSchemas", "dependencies"] {
            let dependent = object(keywords, keyword, at)?;
            // An older form of `dependentRequired`, which the assertions have.
            for (name, schema) in dependent.filter(|(_, schema)| !schema.is_array()) {
                let node = self.node(schema, &format!("{at}/{keyword}/{name}"))?;
                read.push(Keyword::Dependent(name.clone(), node));
            }
        }
        let named: BTreeMap<_, _> = self.named(keywords, "properties", at)?.into_iter().collect();
        let mut matching = Vec::new();
        let patterned = self.named(keywords, "patternProperties", at)?;
        self.patterns += patterned.len();
        for (pattern, node) in patterned.into_iter().take(MAX_PATTERNS) {
            matching.push((Pattern::new(&pattern)?, node));
        }
        let rest = self.one(keywords, "additionalProperties", at)?;
        if !named.is_empty() || !matching.is_empty() || rest.is_some() {
            read.push(Keyword::Properties { named, matching, rest });
        }
        read.extend(self.one(keywords, "propertyNames", at)?.map(Keyword::PropertyNames));
        Ok(())
    }

    fn about_items(
        &mut self,
        keywords: Keywords<'a>,
        at: &str,
        read: &mut Vec<Keyword>,
    ) -> Result<(), SchemaError> {
        // Before draft 2020-12 a list of `items` was what `prefixItems` is, and `additionalItems`
        // what `items` is.
        let is_older = keywords.get("items").is_some_and(Value::is_array);
        let (first, rest) =
            if is_older { ("items", "additionalItems") } else { ("prefixItems", "items") };
        let first = self.list(keywords, first, at)?.unwrap_or_default();
        let rest = self.one(keywords, rest, at)?;
        if !first.is_empty() || rest.is_some() {
            read.push(Keyword::Items { first, rest });
        }
        if let Some(node) = self.one(keywords, "contains", at)? {
            let least = assertion::count(keywords, "minContains", at)?.unwrap_or(1);
            let most = assertion::count(keywords, "maxContains", at)?.unwrap_or(usize::MAX);
            read.push(Keyword::Contains { node, least, most });
        }
        Ok(())
    }

    fn combined(
        &mut self,
        keywords: Keywords<'a>,
        at: &str,
        read: &mut Vec<Keyword>,
    ) -> Result<(), SchemaError> {
        let lists: [(&str, Make<Vec<NodeId>>); 3] =
            [("allOf", Keyword::AllOf), ("anyOf", Keyword::AnyOf), ("oneOf", Keyword::OneOf)];
        for (keyword, make) in lists {
            read.extend(self.list(keywords, keyword, at)?.map(make));
        }
        read.extend(self.one(keywords, "not", at)?.map(Keyword::Not));
        let condition = self.one(keywords, "if", at)?;
        let then = self.one(keywords, "then", at)?;
        let otherwise = self.one(keywords, "else", at)?;
        read.extend(condition.map(|condition| Keyword::If { condition, then, otherwise }));
        Ok(())
    }

    fn one(
        &mut self,
        keywords: Keywords<'a>,
        keyword: &str,
        at: &str,
    ) -> Result<Option<NodeId>, SchemaError> {
        let schema = keywords.get(keyword);
        schema.map(|schema| self.node(schema, &format!("{at}/{keyword}"))).transpose()
    }

    fn list(
        &mut self,
        keywords: Keywords<'a>,
        keyword: &str,
        at: &str,
    ) -> Result<Option<Vec<NodeId>>, SchemaError> {
        let Some(value) = keywords.get(keyword) else { return Ok(None) };
        let at = format!("{at}/{keyword}");
        let schemas = value.as_array().ok_or_else(|| wrong(&at, value, "a list of schemas"))?;
        let nodes = schemas.iter().enumerate();
        let nodes = nodes.map(|(index, schema)| self.node(schema, &format!("{at}/{index}")));
        nodes.collect::<Result<_, _>>().map(Some)
    }

    fn named(
        &mut self,
        keywords: Keywords<'a>,
        keyword: &str,
        at: &str,
    ) -> Result<Vec<(String, NodeId)>, SchemaError> {
        let schemas = object(keywords, keyword, at)?.map(|(name, schema)| {
            Ok((name.clone(), self.node(schema, &format!("{at}/{keyword}/{name}"))?))
        });
        schemas.collect()
    }
}

/// The fields of a keyword's value, an object of schemas. None where the keyword is not there.
fn object<'a>(
    keywords: Keywords<'a>,
    keyword: &str,
    at: &str,
) -> Result<impl Iterator<Item = (&'a String, &'a Value)> + use<'a>, SchemaError> {
    let fields = match keywords.get(keyword) {
        None => None,
        Some(Value::Object(fields)) => Some(fields),
        Some(other) => {
            return Err(wrong(&format!("{at}/{keyword}"), other, "an object of schemas"));
        }
    };
    Ok(fields.into_iter().flatten())
}

/// Says what stands where something else should.
fn wrong(at: &str, found: &Value, expected: &str) -> SchemaError {
    SchemaError(format!("{at} is {}, not {expected}", shown(found)))
}

/// A fragment without its percent-encoding; `None` if that is broken.
fn decode(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}
