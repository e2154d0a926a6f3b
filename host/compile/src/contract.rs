//! The contract, of each version that this host serves, and what else a component finds here.

use anyhow::Context;
use ocelli_protocol::contract::SERVED;
use wit_parser::{
    Function, Handle, InterfaceId, Package, PackageId, Resolve, SourceMap, Type, TypeDefKind,
    TypeId, TypeOwner, WorldId, WorldItem,
};

use crate::types::{Interface, Item, Shape, Signature, Structure, TypePool, World, link_name};

/// The world that a component targets.
const WORLD: &str = "camera-pipeline";

/// A version of the contract.
pub(crate) struct Contract {
    /// One of [`SERVED`]: "0.1.0".
    pub(crate) version: &'static str,
    /// Packages, those first that others use; each as its files.
    packages: &'static [&'static [(&'static str, &'static str)]],
}

/// One file of `wit/`, with its path there.
macro_rules! wit {
    ($path:literal) => {
        ($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/", $path)))
    };
}

/// A contract for each version that is [`SERVED`].
pub(crate) static CONTRACTS: [Contract; SERVED.len()] = [
    Contract {
        version: SERVED[0],
        packages: &[
            &[wit!("0.1/deps/wasi-nn/wasi-nn.wit")],
            &[wit!("0.1/deps/wasi-logging/logging.wit")],
            &[wit!("0.1/deps/wasi-config/store.wit")],
            &[wit!("0.2/deps/wasi-keyvalue/keyvalue.wit")],
            &[wit!("0.1/frames.wit"), wit!("0.1/pipeline.wit")],
        ],
    },
    Contract {
        version: SERVED[1],
        packages: &[
            &[wit!("0.2/deps/wasi-nn/wasi-nn.wit")],
            &[wit!("0.2/deps/wasi-logging/logging.wit")],
            &[wit!("0.2/deps/wasi-config/store.wit")],
            &[wit!("0.2/deps/wasi-keyvalue/keyvalue.wit")],
            &[wit!("0.2/boxes.wit"), wit!("0.2/frames.wit"), wit!("0.2/pipeline.wit")],
        ],
    },
    Contract {
        version: SERVED[2],
        packages: &[
            &[wit!("0.3/deps/wasi-nn/wasi-nn.wit")],
            &[wit!("0.3/deps/wasi-logging/logging.wit")],
            &[wit!("0.3/deps/wasi-config/store.wit")],
            &[wit!("0.3/deps/wasi-keyvalue/keyvalue.wit")],
            &[
                wit!("0.3/boxes.wit"),
                wit!("0.3/budget.wit"),
                wit!("0.3/frames.wit"),
                wit!("0.3/models.wit"),
                wit!("0.3/pipeline.wit"),
            ],
        ],
    },
];

/// The interfaces that `wasmtime-wasi` links.
const WASI: (&str, &str) = ("wasi.wit", include_str!("wasi.wit"));

/// Packages of the namespace `wasi` of which components of every version may import every
/// interface, whether their world names it or not.
pub(crate) const WASI_PACKAGES: [&str; 7] =
    ["keyvalue", "io", "random", "clocks", "filesystem", "sockets", "cli"];

impl Contract {
    /// What this version's components may import and have to export. An error is a fault in the
    /// embedded text.
    pub(crate) fn world(&self, pool: &mut TypePool) -> anyhow::Result<World> {
        let (resolve, world) = self.resolve()?;
        let target =
            resolve.worlds.get(world).with_context(|| format!("there is no world {WORLD}"))?;
        let mut reader = ContractReader { resolve: &resolve, pool, world: World::default() };
        for (key, item) in &target.imports {
            let name = link_name(&resolve.name_world_key(key));
            let item = reader.item(item);
            reader.world.imports.insert(name, item);
        }
        for (id, interface) in resolve.interfaces.iter() {
            let package = interface.package.and_then(|package| resolve.packages.get(package));
            let besides = package.is_some_and(|Package { name, .. }| {
                name.namespace == "wasi" && WASI_PACKAGES.contains(&&*name.name)
            });
            if let Some(name) = resolve.id_of(id).filter(|_| besides) {
                let item = Item::Interface(reader.interface(id));
                reader.world.imports.insert(link_name(&name), item);
            }
        }
        for (key, item) in &target.exports {
            let item = reader.item(item);
            reader.world.exports.insert(resolve.name_world_key(key), item);
        }
        Ok(reader.world)
    }

    /// The files that are embedded, by their paths in `wit/`.
    #[cfg(test)]
    pub(crate) fn paths(&self) -> impl Iterator<Item = &'static str> {
        self.packages.iter().flat_map(|files| files.iter().map(|(path, _)| *path))
    }

    /// The text, parsed, and the world that components target.
    pub(crate) fn resolve(&self) -> anyhow::Result<(Resolve, WorldId)> {
        self.resolve_edited(&str::to_owned)
    }

    /// The same with every text as `edit` makes it: tests build components for what is not the
    /// contract.
    pub(crate) fn resolve_edited(
        &self,
        edit: &dyn Fn(&str) -> String,
    ) -> anyhow::Result<(Resolve, WorldId)> {
        let mut resolve = Resolve::default();
        push(&mut resolve, &[(WASI.0, &edit(WASI.1))])?;
        let mut newest = None;
        for files in self.packages {
            let edited: Vec<_> = files.iter().map(|(path, text)| (*path, edit(text))).collect();
            let files: Vec<_> = edited.iter().map(|(path, text)| (*path, text.as_str())).collect();
            newest = Some(push(&mut resolve, &files)?);
        }
        let package = newest.context("the contract has no packages")?;
        let world = resolve.select_world(&[package], Some(WORLD))?;
        Ok((resolve, world))
    }
}

pub(crate) fn push(resolve: &mut Resolve, files: &[(&str, &str)]) -> anyhow::Result<PackageId> {
    let mut sources = SourceMap::new();
    for (path, text) in files {
        sources.push_str(path, *text);
    }
    let group = sources.parse().map_err(|(_, error)| anyhow::anyhow!("{error}"))?;
    Ok(resolve.push_group(group)?)
}

struct ContractReader<'a> {
    resolve: &'a Resolve,
    pool: &'a mut TypePool,
    world: World,
}

impl ContractReader<'_> {
    fn item(&mut self, item: &WorldItem) -> Item {
        match item {
            WorldItem::Interface { id, .. } => Item::Interface(self.interface(*id)),
            WorldItem::Function(function) => Item::Function(self.function(function)),
            WorldItem::Type { id, .. } => self.named(*id),
        }
    }

    fn interface(&mut self, id: InterfaceId) -> Interface {
        let Some(interface) = self.resolve.interfaces.get(id) else { return Interface::new() };
        let mut items = Interface::new();
        for (name, id) in &interface.types {
            items.insert(name.clone(), self.named(*id));
        }
        for (name, function) in &interface.functions {
            items.insert(name.clone(), Item::Function(self.function(function)));
        }
        items
    }

    fn function(&mut self, function: &Function) -> Signature {
        Signature {
            is_async: function.kind.is_async(),
            params: function
                .params
                .iter()
                .map(|param| (param.name.clone(), self.value(param.ty)))
                .collect(),
            result: function.result.map(|ty| self.value(ty)),
        }
    }

    /// A type with a name.
    fn named(&mut self, id: TypeId) -> Item {
        let Some(ty) = self.resolve.types.get(id) else { return Item::Type };
        match self.definition(id) {
            Some(defined) => Item::Resource(defined),
            None => {
                let shape = self.value(Type::Id(id));
                if let Some(name) = &ty.name {
                    self.world.names.entry(shape).or_insert_with(|| name.clone());
                }
                Item::Type
            }
        }
    }

    /// Where the resource is defined that this type is, or stands for.
    fn definition(&self, id: TypeId) -> Option<String> {
        let ty = self.resolve.types.get(id)?;
        match (&ty.kind, ty.owner) {
            (TypeDefKind::Type(Type::Id(aliased)), _) => self.definition(*aliased),
            (TypeDefKind::Resource, TypeOwner::Interface(interface)) => {
                let interface = self.resolve.id_of(interface)?;
                Some(format!("{}#{}", link_name(&interface), ty.name.as_deref()?))
            }
            _ => None,
        }
    }

    fn optional(&mut self, ty: Option<Type>) -> Option<Shape> {
        ty.map(|ty| self.value(ty))
    }

    fn value(&mut self, ty: Type) -> Shape {
        let structure = match ty {
            Type::Bool => Structure::Primitive("bool"),
            Type::U8 => Structure::Primitive("u8"),
            Type::U16 => Structure::Primitive("u16"),
            Type::U32 => Structure::Primitive("u32"),
            Type::U64 => Structure::Primitive("u64"),
            Type::S8 => Structure::Primitive("s8"),
            Type::S16 => Structure::Primitive("s16"),
            Type::S32 => Structure::Primitive("s32"),
            Type::S64 => Structure::Primitive("s64"),
            Type::F32 => Structure::Primitive("f32"),
            Type::F64 => Structure::Primitive("f64"),
            Type::Char => Structure::Primitive("char"),
            Type::String => Structure::Primitive("string"),
            Type::ErrorContext => Structure::Primitive("error-context"),
            Type::Id(id) => return self.defined(id),
        };
        self.pool.shape(structure)
    }

    fn defined(&mut self, id: TypeId) -> Shape {
        let resolve = self.resolve;
        let structure = match resolve.types.get(id).map(|ty| &ty.kind) {
            Some(TypeDefKind::Type(aliased)) => return self.value(*aliased),
            Some(TypeDefKind::Record(ty)) => {
                let fields = ty.fields.iter();
                Structure::Record(
                    fields.map(|field| (field.name.clone(), self.value(field.ty))).collect(),
                )
            }
            Some(TypeDefKind::Variant(ty)) => {
                let cases = ty.cases.iter();
                Structure::Variant(
                    cases.map(|case| (case.name.clone(), self.optional(case.ty))).collect(),
                )
            }
            Some(TypeDefKind::Enum(ty)) => {
                Structure::Enum(ty.cases.iter().map(|case| case.name.clone()).collect())
            }
            Some(TypeDefKind::Flags(ty)) => {
                Structure::Flags(ty.flags.iter().map(|flag| flag.name.clone()).collect())
            }
            Some(TypeDefKind::Tuple(ty)) => {
                Structure::Tuple(ty.types.iter().map(|ty| self.value(*ty)).collect())
            }
            Some(TypeDefKind::List(ty)) => Structure::Of("list", vec![Some(self.value(*ty))]),
            Some(TypeDefKind::Map(key, value)) => {
                Structure::Of("map", vec![Some(self.value(*key)), Some(self.value(*value))])
            }
            Some(TypeDefKind::FixedLengthList(ty, length)) => {
                Structure::FixedList(self.value(*ty), *length)
            }
            Some(TypeDefKind::Option(ty)) => Structure::Of("option", vec![Some(self.value(*ty))]),
            Some(TypeDefKind::Result(ty)) => {
                Structure::Of("result", vec![self.optional(ty.ok), self.optional(ty.err)])
            }
            Some(TypeDefKind::Future(ty)) => Structure::Of("future", vec![self.optional(*ty)]),
            Some(TypeDefKind::Stream(ty)) => Structure::Of("stream", vec![self.optional(*ty)]),
            Some(TypeDefKind::Handle(Handle::Own(id))) => {
                Structure::Own(self.definition(*id).unwrap_or_default())
            }
            Some(TypeDefKind::Handle(Handle::Borrow(id))) => {
                Structure::Borrow(self.definition(*id).unwrap_or_default())
            }
            Some(TypeDefKind::Resource | TypeDefKind::Unknown) | None => {
                Structure::Primitive("unknown")
            }
        };
        self.pool.shape(structure)
    }
}
