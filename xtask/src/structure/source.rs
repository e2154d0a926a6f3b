//! The source of a crate as the rules see it: parsed with `syn`, by following `mod` declarations
//! from the crate's root, without what is compiled for tests only.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use proc_macro2::{Ident, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ReturnType, TraitItem, Type, UseTree, Visibility};

/// What the rules need to know of a crate.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// The top-level modules.
    pub(super) modules: Vec<Mention>,
    /// The structs, enums, unions, traits and type aliases of all modules.
    pub(super) types: Vec<Mention>,
    /// Paths that lead from one top-level module of the crate to another.
    pub(super) imports: Vec<Import>,
    /// Functions and associated types by which other modules get a `String` as an error.
    pub(super) text_errors: Vec<Mention>,
    /// Where files are opened, made, renamed or removed by path. The name is the module's.
    pub(super) by_path: Vec<Mention>,
}

/// A name and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mention {
    pub(super) name: String,
    pub(super) file: PathBuf,
    /// Counts from 1.
    pub(super) line: usize,
}

/// A path from the top-level module `from` to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) to: Mention,
}

/// A file that is still to be read.
struct File {
    path: PathBuf,
    /// The names of the modules from the crate's root to this one.
    modules: Vec<String>,
    /// The folder of its child modules.
    children: PathBuf,
}

impl Source {
    /// Reads the crate with this root file, `lib.rs` or `main.rs`.
    pub(super) fn of_crate(root: &Path) -> Result<Self> {
        let mut source = Self::default();
        let children = root.parent().map(Path::to_owned).unwrap_or_default();
        let mut files = vec![File { path: root.to_owned(), modules: Vec::new(), children }];
        while let Some(File { path, modules, children }) = files.pop() {
            let context = || format!("reading {}", path.display());
            let text = fs::read_to_string(&path).with_context(context)?;
            for child in source.read(&text, &path, &modules).with_context(context)? {
                let folder = child
                    .iter()
                    .skip(modules.len())
                    .fold(children.clone(), |folder, name| folder.join(name));
                let (plain, nested) = (folder.with_extension("rs"), folder.join("mod.rs"));
                let path = if plain.exists() { plain } else { nested };
                files.push(File { path, modules: child, children: folder });
            }
        }
        Ok(source)
    }

    /// Takes in the text of one module. Returns the modules that it declares in files of their own.
    pub(super) fn read(
        &mut self,
        text: &str,
        file: &Path,
        modules: &[String],
    ) -> Result<Vec<Vec<String>>> {
        let modules = modules.to_vec();
        let mut reader =
            Reader { source: self, file, modules, body: 0, children: Vec::new(), elsewhere: None };
        reader.visit_file(&syn::parse_file(text)?);
        ensure!(
            reader.elsewhere.is_none(),
            "line {}: `#[path]` is not followed",
            reader.elsewhere.unwrap_or(0)
        );
        Ok(reader.children)
    }
}

/// Collects from one file.
struct Reader<'a> {
    source: &'a mut Source,
    file: &'a Path,
    /// From the crate's root to the module in which the reader is.
    modules: Vec<String>,
    /// How many function bodies the reader is in: types there are nobody else's.
    body: usize,
    children: Vec<Vec<String>>,
    /// The line of a `#[path]`.
    elsewhere: Option<usize>,
}

impl Reader<'_> {
    fn mention(&self, name: &Ident) -> Mention {
        Mention {
            name: name.to_string(),
            file: self.file.to_owned(),
            line: name.span().start().line,
        }
    }

    fn declares(&mut self, name: &Ident) {
        if self.body == 0 {
            let mention = self.mention(name);
            self.source.types.push(mention);
        }
    }

    /// Takes in a path that begins with `crate`, `self` or `super`: others name no other top-level
    /// module.
    fn path<'i>(&mut self, segments: impl IntoIterator<Item = &'i Ident>) {
        let segments: Vec<&Ident> = segments.into_iter().collect();
        self.file_by_path(&segments);
        let mut segments = segments.into_iter().peekable();
        let mut at = match segments.peek() {
            Some(first) if *first == "crate" => 0,
            Some(first) if *first == "self" || *first == "super" => self.modules.len(),
            _ => return,
        };
        for segment in segments {
            match segment.to_string().as_str() {
                "crate" | "self" => {}
                "super" => at = at.saturating_sub(1),
                name => {
                    if at == 0
                        && let Some(from) = self.modules.first()
                        && from != name
                    {
                        let import = Import { from: from.clone(), to: self.mention(segment) };
                        self.source.imports.push(import);
                    }
                    return;
                }
            }
        }
    }

    /// Takes in a path to a function of `std::fs` or `tokio::fs`, or to one of a file's that opens.
    fn file_by_path(&mut self, segments: &[&Ident]) {
        let Some(last) = segments.last() else { return };
        let at = |place: usize, names: &[&str]| {
            segments.get(place).is_some_and(|segment| names.iter().any(|name| *segment == name))
        };
        let of_module = at(0, &["std", "tokio"]) && at(1, &["fs"]);
        let is_function = last.to_string().starts_with(char::is_lowercase);
        let opens = segments.len() >= 2
            && at(segments.len() - 2, &["File", "OpenOptions", "DirBuilder"])
            && ["open", "create", "create_new", "options", "new"].iter().any(|name| *last == name);
        let whole = of_module && (segments.len() == 2 || is_function);
        if whole || opens || (at(0, &["fs"]) && segments.len() == 2 && is_function) {
            let name = self.modules.join("::");
            self.source.by_path.push(Mention { name, ..self.mention(last) });
        }
    }

    /// Paths in the arguments of a macro, which are tokens to the parser.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<Ident> = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.path(&std::mem::take(&mut path));
                        path.clear();
                    }
                    path.push(ident);
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                    self.path(&std::mem::take(&mut path));
                    colons = 0;
                }
            }
        }
        self.path(&path);
    }

    fn use_tree<'i>(&mut self, tree: &'i UseTree, prefix: &mut Vec<&'i Ident>) {
        match tree {
            UseTree::Path(path) => {
                prefix.push(&path.ident);
                self.use_tree(&path.tree, prefix);
                prefix.pop();
            }
            UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.use_tree(tree, prefix))
            }
            UseTree::Name(name) => self.path(prefix.iter().copied().chain([&name.ident])),
            UseTree::Rename(rename) => self.path(prefix.iter().copied().chain([&rename.ident])),
            UseTree::Glob(_) => self.path(prefix.iter().copied()),
        }
    }

    /// A function that other modules can call.
    fn signature(&mut self, signature: &syn::Signature) {
        if let ReturnType::Type(_, returned) = &signature.output
            && has_text_error(returned)
        {
            let mention = self.mention(&signature.ident);
            self.source.text_errors.push(mention);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if is_for_tests(attributes(item)) {
            return;
        }
        match item {
            Item::Struct(item) => self.declares(&item.ident),
            Item::Enum(item) => self.declares(&item.ident),
            Item::Union(item) => self.declares(&item.ident),
            Item::Trait(item) => self.declares(&item.ident),
            Item::Type(item) => self.declares(&item.ident),
            Item::Fn(item) if !is_private(&item.vis) => self.signature(&item.sig),
            _ => {}
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if self.modules.is_empty() {
            let mention = self.mention(&module.ident);
            self.source.modules.push(mention);
        }
        self.modules.push(module.ident.to_string());
        if module.content.is_some() {
            visit::visit_item_mod(self, module);
        } else {
            if module.attrs.iter().any(|attribute| attribute.path().is_ident("path")) {
                self.elsewhere = Some(module.ident.span().start().line);
            }
            self.children.push(self.modules.clone());
        }
        self.modules.pop();
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        match item {
            ImplItem::Fn(function) if is_for_tests(&function.attrs) => return,
            ImplItem::Fn(function) if !is_private(&function.vis) => self.signature(&function.sig),
            ImplItem::Type(associated)
                if is_error(&associated.ident) && is_string(&associated.ty) =>
            {
                let mention = self.mention(&associated.ident);
                self.source.text_errors.push(mention);
            }
            _ => {}
        }
        visit::visit_impl_item(self, item);
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        if let TraitItem::Fn(function) = item {
            self.signature(&function.sig);
        }
        visit::visit_trait_item(self, item);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        self.body += 1;
        visit::visit_block(self, block);
        self.body -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.use_tree(&item.tree, &mut Vec::new());
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path.segments.iter().map(|segment| &segment.ident));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Whether the item has a `#[cfg(test)]`, or another condition that names `test` and has no `not`.
fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let Ok(list) = attribute.meta.require_list() else { return false };
        let words = list.tokens.to_string();
        let names =
            |name| words.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name);
        list.path.is_ident("cfg") && names("test") && !names("not")
    })
}

fn is_private(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Inherited)
}

fn is_error(name: &Ident) -> bool {
    name == "Err" || name == "Error"
}

fn is_string(returned: &Type) -> bool {
    matches!(returned, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "String"))
}

/// Whether a `Result` with a `String` for its error is somewhere in the type.
fn has_text_error(returned: &Type) -> bool {
    struct Search(bool);
    impl<'ast> Visit<'ast> for Search {
        fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
            if segment.ident == "Result"
                && let syn::PathArguments::AngleBracketed(arguments) = &segment.arguments
                && let Some(syn::GenericArgument::Type(error)) = arguments.args.iter().nth(1)
            {
                self.0 |= is_string(error);
            }
            visit::visit_path_segment(self, segment);
        }
    }
    let mut search = Search(false);
    search.visit_type(returned);
    search.0
}
