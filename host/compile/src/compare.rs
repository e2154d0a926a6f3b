//! Compares a component with the contract: reports everything that is missing or differs.
//!
//! The rules are those by which the worker's linker links. An import has to be there with the very
//! type; an interface that only gives types their names needs nothing to be there. What the
//! contract exports has to be there; more may be. Parameters' names count, as in the component
//! model's own rules.

use std::collections::HashSet;

use ocelli_protocol::component::{Problem, ProblemKind};

use crate::notation::{Notation, truncate};
use crate::types::{Item, Shape, TypePool, World, link_name};

/// Compares a component with the contract.
pub(crate) fn compare(pool: &TypePool, found: &World, contract: &World) -> Vec<Problem> {
    let mut comparison = Comparison { pool, found, contract, problems: Vec::new() };
    comparison.imports();
    comparison.exports();
    comparison.problems
}

struct Comparison<'a> {
    pool: &'a TypePool,
    found: &'a World,
    contract: &'a World,
    problems: Vec<Problem>,
}

impl Comparison<'_> {
    fn imports(&mut self) {
        let (found, contract) = (self.found, self.contract);
        for (name, import) in &found.imports {
            match (import, contract.imports.get(&link_name(name))) {
                (Item::Interface(items), Some(Item::Interface(offered))) => {
                    for (item, import) in items {
                        self.import(&format!("{name}#{item}"), import, offered.get(item));
                    }
                }
                (Item::Interface(items), None)
                    if items.values().all(|item| matches!(item, Item::Type)) => {}
                (_, offered) => self.import(name, import, offered),
            }
        }
    }

    fn import(&mut self, name: &str, import: &Item, offered: Option<&Item>) {
        match offered {
            Some(offered) if import == offered => {}
            // Nothing stands behind a type: it may be called differently, or not be there.
            _ if *import == Item::Type => {}
            // A resource that is defined elsewhere is looked for there.
            None if matches!(import, Item::Resource(defined) if !is_defined_at(defined, name)) => {}
            None => {
                let message = format!("it imports {name}, which this host does not offer");
                self.add(ProblemKind::UnknownImport, name, Some(import), None, message);
            }
            Some(offered) => {
                let message =
                    format!("it imports {name} with another type than this host offers it");
                self.add(ProblemKind::MismatchedImport, name, Some(import), Some(offered), message);
            }
        }
    }

    fn exports(&mut self) {
        let (found, contract) = (self.found, self.contract);
        for (name, asked) in &contract.exports {
            match (found.exports.get(name), asked) {
                (Some(Item::Interface(items)), Item::Interface(asked)) => {
                    for (item, asked) in asked {
                        self.export(&format!("{name}#{item}"), items.get(item), asked);
                    }
                }
                (None, Item::Interface(asked)) => {
                    for (item, asked) in asked {
                        self.export(&format!("{name}#{item}"), None, asked);
                    }
                }
                (export, asked) => self.export(name, export, asked),
            }
        }
    }

    fn export(&mut self, name: &str, export: Option<&Item>, asked: &Item) {
        match (export, asked) {
            (_, Item::Type | Item::Resource(_)) => {}
            (Some(export), asked) if export == asked => {}
            (None, asked) => {
                let message = format!("it does not export {name}");
                self.add(ProblemKind::MissingExport, name, None, Some(asked), message);
            }
            (Some(export), asked) => {
                let message = format!("it exports {name} with another type than the contract's");
                self.add(ProblemKind::MismatchedExport, name, Some(export), Some(asked), message);
            }
        }
    }

    fn add(
        &mut self,
        kind: ProblemKind,
        name: &str,
        found: Option<&Item>,
        expected: Option<&Item>,
        message: String,
    ) {
        let common =
            match (found.map(|item| self.parts(item)), expected.map(|item| self.parts(item))) {
                (Some(found), Some(expected)) => {
                    Some(found.intersection(&expected).copied().collect::<HashSet<_>>())
                }
                _ => None,
            };
        let notation = |names| Notation { pool: self.pool, names, common: common.as_ref() };
        let mut found_text = found.map(|item| notation(&self.found.names).item(item));
        let mut expected_text = expected.map(|item| notation(&self.contract.names).item(item));
        if let (Some(Item::Resource(found)), Some(Item::Resource(expected))) = (found, expected) {
            found_text = Some(truncate(format!("resource of {found}")));
            expected_text = Some(format!("resource of {expected}"));
        }
        self.problems.push(Problem {
            kind,
            item: Some(truncate(name.to_owned())),
            found: found_text,
            expected: expected_text,
            message: truncate(message),
        });
    }

    fn parts(&self, item: &Item) -> HashSet<Shape> {
        match item {
            Item::Function(signature) => self.pool.parts(signature),
            _ => HashSet::new(),
        }
    }
}

/// Whether a resource's place of definition is this import.
fn is_defined_at(defined: &str, import: &str) -> bool {
    match import.split_once('#') {
        Some((interface, name)) => defined == format!("{}#{name}", link_name(interface)),
        None => defined == link_name(import),
    }
}
