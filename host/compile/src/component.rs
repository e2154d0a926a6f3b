//! The imports and exports of a component, read from the types that its validation has found.

use std::collections::HashMap;

use wasmparser::component_types::{
    ComponentAnyTypeId, ComponentDefinedType, ComponentDefinedTypeId, ComponentEntityType,
    ComponentFuncTypeId, ComponentInstanceTypeId, ComponentValType, ResourceId,
};
use wasmparser::types::TypesRef;
use wasmparser::{Parser, Payload, PrimitiveValType};

use crate::types::{Interface, Item, Shape, Signature, Structure, TypePool, World, link_name};

/// The names of a component's imports and exports.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub(crate) imports: Vec<String>,
    pub(crate) exports: Vec<String>,
}

/// Reads the names of a component's imports and exports, and nothing else. Of a broken file, those
/// before the damage.
pub(crate) fn names(bytes: &[u8]) -> Names {
    let mut names = Names::default();
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload {
            Ok(Payload::Version { .. }) => depth += 1,
            Ok(Payload::End(_)) => depth = depth.saturating_sub(1),
            Ok(Payload::ComponentImportSection(section)) if depth == 1 => {
                names.imports.extend(
                    section.into_iter().flatten().map(|import| import.name.name.to_owned()),
                );
            }
            Ok(Payload::ComponentExportSection(section)) if depth == 1 => {
                names.exports.extend(
                    section.into_iter().flatten().map(|export| export.name.name.to_owned()),
                );
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    names
}

/// The imports and exports of a component with these types.
pub(crate) fn world(types: TypesRef<'_>, names: &Names, pool: &mut TypePool) -> World {
    let mut reader = ComponentReader {
        types,
        pool,
        shapes: HashMap::new(),
        resources: HashMap::new(),
        world: World::default(),
    };
    for name in &names.imports {
        if let Some(import) = types.component_item_for_import(name) {
            let item = reader.item(&link_name(name), import.ty);
            reader.world.imports.insert(name.clone(), item);
        }
    }
    for name in &names.exports {
        if let Some(export) = types.component_item_for_export(name) {
            // What is defined here is the component's own, and nothing that the contract names.
            let item = reader.item(&format!("exported {name}"), export.ty);
            reader.world.exports.insert(name.clone(), item);
        }
    }
    reader.world
}

struct ComponentReader<'a> {
    types: TypesRef<'a>,
    pool: &'a mut TypePool,
    shapes: HashMap<ComponentDefinedTypeId, Shape>,
    /// The place where each resource appeared first.
    resources: HashMap<ResourceId, String>,
    world: World,
}

impl ComponentReader<'_> {
    /// `place` is where it is found: an interface's name, or that and the item's.
    fn item(&mut self, place: &str, entity: ComponentEntityType) -> Item {
        match entity {
            ComponentEntityType::Func(id) => {
                self.function(id).map_or(Item::Other("function"), Item::Function)
            }
            ComponentEntityType::Instance(id) => Item::Interface(self.interface(place, id)),
            ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(id), .. } => {
                let defined =
                    self.resources.entry(id.resource()).or_insert_with(|| place.to_owned());
                Item::Resource(defined.clone())
            }
            ComponentEntityType::Type { created: ComponentAnyTypeId::Defined(id), .. } => {
                let shape = self.defined(id);
                let name = place.rsplit_once('#').map_or(place, |(_, name)| name);
                self.world.names.entry(shape).or_insert_with(|| name.to_owned());
                Item::Type
            }
            ComponentEntityType::Type { .. } => Item::Other("type"),
            ComponentEntityType::Module(_) => Item::Other("core module"),
            ComponentEntityType::Value(_) => Item::Other("value"),
            ComponentEntityType::Component(_) => Item::Other("component"),
        }
    }

    fn interface(&mut self, place: &str, id: ComponentInstanceTypeId) -> Interface {
        let Some(instance) = self.types.get(id) else { return Interface::new() };
        let items = instance.exports.iter();
        items
            .map(|(name, item)| (name.clone(), self.item(&format!("{place}#{name}"), item.ty)))
            .collect()
    }

    fn function(&mut self, id: ComponentFuncTypeId) -> Option<Signature> {
        let function = self.types.get(id)?;
        Some(Signature {
            is_async: function.async_,
            params: function
                .params
                .iter()
                .map(|(name, ty)| (name.to_string(), self.value(*ty)))
                .collect(),
            result: function.result.map(|ty| self.value(ty)),
        })
    }

    fn value(&mut self, ty: ComponentValType) -> Shape {
        match ty {
            ComponentValType::Primitive(ty) => self.pool.shape(Structure::Primitive(primitive(ty))),
            ComponentValType::Type(id) => self.defined(id),
        }
    }

    fn optional(&mut self, ty: Option<ComponentValType>) -> Option<Shape> {
        ty.map(|ty| self.value(ty))
    }

    /// Validation bounds the depth of types, so this ends.
    fn defined(&mut self, id: ComponentDefinedTypeId) -> Shape {
        if let Some(shape) = self.shapes.get(&id) {
            return *shape;
        }
        let structure = self.structure(id);
        let shape = self.pool.shape(structure);
        self.shapes.insert(id, shape);
        shape
    }

    fn structure(&mut self, id: ComponentDefinedTypeId) -> Structure {
        use ComponentDefinedType as Type;
        let Some(ty) = self.types.get(id) else { return Structure::Primitive("unknown") };
        match ty {
            Type::Primitive(ty) => Structure::Primitive(primitive(*ty)),
            Type::Record(ty) => {
                let fields = ty.fields.iter();
                Structure::Record(
                    fields.map(|(name, ty)| (name.to_string(), self.value(*ty))).collect(),
                )
            }
            Type::Variant(ty) => {
                let cases = ty.cases.iter();
                Structure::Variant(
                    cases.map(|(name, case)| (name.to_string(), self.optional(case.ty))).collect(),
                )
            }
            Type::Enum(cases) => Structure::Enum(cases.iter().map(ToString::to_string).collect()),
            Type::Flags(flags) => Structure::Flags(flags.iter().map(ToString::to_string).collect()),
            Type::Tuple(ty) => {
                Structure::Tuple(ty.types.iter().map(|ty| self.value(*ty)).collect())
            }
            Type::List { element, .. } => Structure::Of("list", vec![Some(self.value(*element))]),
            Type::Map { key, value, .. } => {
                Structure::Of("map", vec![Some(self.value(*key)), Some(self.value(*value))])
            }
            Type::FixedLengthList { element, length, .. } => {
                Structure::FixedList(self.value(*element), *length)
            }
            Type::Option { ty, .. } => Structure::Of("option", vec![Some(self.value(*ty))]),
            Type::Result { ok, err, .. } => {
                Structure::Of("result", vec![self.optional(*ok), self.optional(*err)])
            }
            Type::Own(id) => Structure::Own(self.resource(id.resource())),
            Type::Borrow(id) => Structure::Borrow(self.resource(id.resource())),
            Type::Future { ty, .. } => Structure::Of("future", vec![self.optional(*ty)]),
            Type::Stream { ty, .. } => Structure::Of("stream", vec![self.optional(*ty)]),
        }
    }

    fn resource(&self, id: ResourceId) -> String {
        self.resources.get(&id).cloned().unwrap_or_else(|| "a resource without a name".to_owned())
    }
}

fn primitive(ty: PrimitiveValType) -> &'static str {
    match ty {
        PrimitiveValType::Bool => "bool",
        PrimitiveValType::S8 => "s8",
        PrimitiveValType::U8 => "u8",
        PrimitiveValType::S16 => "s16",
        PrimitiveValType::U16 => "u16",
        PrimitiveValType::S32 => "s32",
        PrimitiveValType::U32 => "u32",
        PrimitiveValType::S64 => "s64",
        PrimitiveValType::U64 => "u64",
        PrimitiveValType::F32 => "f32",
        PrimitiveValType::F64 => "f64",
        PrimitiveValType::Char => "char",
        PrimitiveValType::String => "string",
        PrimitiveValType::ErrorContext => "error-context",
    }
}
