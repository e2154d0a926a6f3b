//! Types in WIT's notation. Of two types that differ, what they have in common goes by its name,
//! and what differs is written out.

use std::collections::{HashMap, HashSet};

use ocelli_protocol::component::MAX_TEXT;

use crate::types::{Item, Shape, Signature, Structure, TypePool};

/// Writes types of one side.
pub(crate) struct Notation<'a> {
    pub(crate) pool: &'a TypePool,
    /// Names of the types.
    pub(crate) names: &'a HashMap<Shape, String>,
    /// The types that the other side also has; `None` without another side.
    pub(crate) common: Option<&'a HashSet<Shape>>,
}

impl Notation<'_> {
    /// "func(width: u32) -> string"; an interface with all that it has.
    pub(crate) fn item(&self, item: &Item) -> String {
        let mut text = String::new();
        self.write_item(&mut text, item);
        truncate(text)
    }

    fn write_item(&self, text: &mut String, item: &Item) {
        match item {
            Item::Function(signature) => self.write_function(text, signature),
            // The definition's place says more than the word alone, where the resource is
            // another's.
            Item::Resource(_) => text.push_str("resource"),
            Item::Type => text.push_str("type"),
            Item::Other(what) => text.push_str(what),
            Item::Interface(items) => {
                text.push_str("interface { ");
                for (name, item) in items.iter().filter(|(_, item)| !matches!(item, Item::Type)) {
                    if text.len() > MAX_TEXT {
                        break;
                    }
                    text.push_str(name);
                    text.push_str(": ");
                    self.write_item(text, item);
                    text.push_str("; ");
                }
                text.push('}');
            }
        }
    }

    fn write_function(&self, text: &mut String, signature: &Signature) {
        text.push_str(if signature.is_async { "async func(" } else { "func(" });
        self.write_fields(text, &signature.params);
        text.push(')');
        if let Some(result) = signature.result {
            text.push_str(" -> ");
            self.write(text, result);
        }
    }

    fn write_fields(&self, text: &mut String, fields: &[(String, Shape)]) {
        for (index, (name, shape)) in fields.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { ", " });
            text.push_str(name);
            text.push_str(": ");
            self.write(text, *shape);
        }
    }

    fn write(&self, text: &mut String, shape: Shape) {
        if text.len() > MAX_TEXT {
            return;
        }
        let is_common = self.common.is_none_or(|common| common.contains(&shape));
        let Some(structure) = self.pool.structure(shape) else { return };
        // Only these have names of their own; another name for a list or a number says less than
        // what it stands for.
        let nominal = matches!(
            structure,
            Structure::Record(_) | Structure::Variant(_) | Structure::Enum(_) | Structure::Flags(_)
        );
        let name = self.names.get(&shape).filter(|_| nominal);
        if let (true, Some(name)) = (is_common, name) {
            return text.push_str(name);
        }
        let mut begin = |keyword: &str| {
            text.push_str(keyword);
            if let Some(name) = name {
                text.push(' ');
                text.push_str(name);
            }
            text.push_str(" { ");
        };
        match structure {
            Structure::Primitive(name) => text.push_str(name),
            Structure::Record(fields) => {
                begin("record");
                self.write_fields(text, fields);
                text.push_str(" }");
            }
            Structure::Variant(cases) => {
                begin("variant");
                for (index, (name, shape)) in cases.iter().enumerate() {
                    text.push_str(if index == 0 { "" } else { ", " });
                    text.push_str(name);
                    if let Some(shape) = shape {
                        text.push('(');
                        self.write(text, *shape);
                        text.push(')');
                    }
                }
                text.push_str(" }");
            }
            Structure::Enum(cases) => {
                begin("enum");
                text.push_str(&cases.join(", "));
                text.push_str(" }");
            }
            Structure::Flags(flags) => {
                begin("flags");
                text.push_str(&flags.join(", "));
                text.push_str(" }");
            }
            Structure::Tuple(members) => {
                let members: Vec<_> = members.iter().copied().map(Some).collect();
                self.write_of(text, "tuple", &members);
            }
            Structure::Of("result", members) => self.write_result(text, members),
            Structure::Of(name, members) => self.write_of(text, name, members),
            Structure::FixedList(element, length) => {
                text.push_str("list<");
                self.write(text, *element);
                text.push_str(&format!(", {length}>"));
            }
            Structure::Own(defined) => text.push_str(resource(defined, is_common)),
            Structure::Borrow(defined) => {
                text.push_str("borrow<");
                text.push_str(resource(defined, is_common));
                text.push('>');
            }
        }
    }

    fn write_of(&self, text: &mut String, name: &str, members: &[Option<Shape>]) {
        text.push_str(name);
        let members: Vec<_> = members.iter().flatten().collect();
        for (index, shape) in members.iter().enumerate() {
            text.push_str(if index == 0 { "<" } else { ", " });
            self.write(text, **shape);
        }
        text.push_str(if members.is_empty() { "" } else { ">" });
    }

    /// `result`, `result<u8>`, `result<_, string>`.
    fn write_result(&self, text: &mut String, members: &[Option<Shape>]) {
        text.push_str("result");
        let (ok, error) = (members.first().copied().flatten(), members.get(1).copied().flatten());
        if ok.is_none() && error.is_none() {
            return;
        }
        text.push('<');
        match ok {
            Some(ok) => self.write(text, ok),
            None => text.push('_'),
        }
        if let Some(error) = error {
            text.push_str(", ");
            self.write(text, error);
        }
        text.push('>');
    }
}

/// A resource's own name, or the place of its definition where that is what differs.
fn resource(defined: &str, is_common: bool) -> &str {
    match defined.rsplit_once('#') {
        Some((_, name)) if is_common => name,
        _ => defined,
    }
}

/// A text of unknown origin, cut to a bounded length.
pub(crate) fn truncate(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}
