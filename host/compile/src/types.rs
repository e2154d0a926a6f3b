//! Types of imports and exports, by their structure: two types are the same where their shapes are.
//! Resources have no structure; they differ by the place of their definition.

use std::collections::{BTreeMap, HashMap, HashSet};

use semver::Version;

/// Index of a type's shape in the [`TypePool`]. Equal ids are equal types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Shape(usize);

/// The structure of a type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Structure {
    /// `u8`, `string`.
    Primitive(&'static str),
    Record(Vec<(String, Shape)>),
    Variant(Vec<(String, Option<Shape>)>),
    Enum(Vec<String>),
    Flags(Vec<String>),
    Tuple(Vec<Shape>),
    /// `list`, `option`, `future` and the like, of what is in the angle brackets.
    Of(&'static str, Vec<Option<Shape>>),
    FixedList(Shape, u32),
    /// The place of the resource's definition: "ocelli:pipeline/frames@0.1#frame".
    Own(String),
    /// As [`Structure::Own`].
    Borrow(String),
}

/// The shapes of all types that are compared with each other.
#[derive(Debug, Default)]
pub(crate) struct TypePool {
    structures: Vec<Structure>,
    known: HashMap<Structure, Shape>,
}

impl TypePool {
    /// The shape of a structure.
    pub(crate) fn shape(&mut self, structure: Structure) -> Shape {
        if let Some(shape) = self.known.get(&structure) {
            return *shape;
        }
        let shape = Shape(self.structures.len());
        self.structures.push(structure.clone());
        self.known.insert(structure, shape);
        shape
    }

    /// The structure of a shape.
    pub(crate) fn structure(&self, shape: Shape) -> Option<&Structure> {
        self.structures.get(shape.0)
    }

    /// A function's parameters and result, and all that they are made of.
    pub(crate) fn parts(&self, signature: &Signature) -> HashSet<Shape> {
        let mut found = HashSet::new();
        let mut open: Vec<Shape> = signature.params.iter().map(|(_, shape)| *shape).collect();
        open.extend(signature.result);
        while let Some(shape) = open.pop() {
            if !found.insert(shape) {
                continue;
            }
            match self.structure(shape) {
                Some(Structure::Record(fields)) => {
                    open.extend(fields.iter().map(|(_, shape)| *shape))
                }
                Some(Structure::Variant(cases)) => {
                    open.extend(cases.iter().filter_map(|(_, shape)| *shape))
                }
                Some(Structure::Tuple(members)) => open.extend(members),
                Some(Structure::Of(_, members)) => open.extend(members.iter().flatten()),
                Some(Structure::FixedList(element, _)) => open.push(*element),
                Some(
                    Structure::Primitive(_)
                    | Structure::Enum(_)
                    | Structure::Flags(_)
                    | Structure::Own(_)
                    | Structure::Borrow(_),
                )
                | None => {}
            }
        }
        found
    }
}

/// The type of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) is_async: bool,
    pub(crate) params: Vec<(String, Shape)>,
    pub(crate) result: Option<Shape>,
}

/// Something that an interface has, or that is imported or exported by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Item {
    Function(Signature),
    /// The place of its definition.
    Resource(String),
    /// A value type: it gives a structure a name and needs nothing to stand behind it.
    Type,
    Interface(Interface),
    /// An item that no version of the contract has: "module", "component".
    Other(&'static str),
}

/// An interface's items by their names.
pub(crate) type Interface = BTreeMap<String, Item>;

/// The imports and exports of a component, or those of the contract.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) imports: BTreeMap<String, Item>,
    pub(crate) exports: BTreeMap<String, Item>,
    /// Names of the types on this side.
    pub(crate) names: HashMap<Shape, String>,
}

/// The name under which the worker's linker looks for an import: versions that are compatible have
/// the same, as in "wasi:io/poll@0.2".
pub(crate) fn link_name(name: &str) -> String {
    let compatible = || {
        let (interface, version) = name.split_once('@')?;
        let version = Version::parse(version).ok()?;
        match (version.major, version.minor) {
            _ if !version.pre.is_empty() => None,
            (0, 0) => None,
            (0, minor) => Some(format!("{interface}@0.{minor}")),
            (major, _) => Some(format!("{interface}@{major}")),
        }
    };
    compatible().unwrap_or_else(|| name.to_owned())
}
