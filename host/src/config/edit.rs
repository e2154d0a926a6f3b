//! Changes to the text of a config: one table at a time, everything else as it is written.
//!
//! Comments, blank lines and the order of keys stay. A value that is the same as before keeps its
//! form. Nothing is read or written here: texts in, texts out.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value as Json};
use toml_edit::{
    Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, Key, RawString, Table, TableLike,
    Value,
};

use super::error::{ShownProblem, listing};
use super::server::Token;
use super::source::Source;

/// The key of the cameras.
const CAMERAS: &str = "cameras";

/// What names a camera in its table.
const ID: &str = "id";

/// The keys that stand first in a new camera's table, and in a new token's.
const CAMERA_KEYS: &[&str] = &["source", "substream", "transport", "reader", "pipeline"];
const TOKEN_KEYS: &[&str] = &["name", "hash", "role"];

/// What stands in the place of a secret.
const HIDDEN: &str = "***";

/// What a file of cameras says where it has none, so that it is not taken for a damaged one.
const CAMERAS_HEAD: &str = "# Cameras that came over the API: [[cameras]] as in the config.\n";

/// A change of a config.
#[derive(Debug, Clone)]
pub enum ConfigChange {
    /// A camera's table, without its `id`: a new camera, or other values for one that is there.
    PutCamera {
        /// The camera's name.
        id: String,
        /// All its keys: those that are left out are removed.
        table: Map<String, Json>,
    },
    /// A camera goes.
    RemoveCamera {
        /// Its name.
        id: String,
    },
    /// A table of `[[server.tokens]]`: a new token.
    AddToken {
        /// All its keys.
        table: Map<String, Json>,
    },
    /// A token goes.
    RemoveToken {
        /// Its name.
        name: String,
    },
}

impl ConfigChange {
    /// A new token.
    pub fn add_token(token: &Token) -> Self {
        let table = serde_json::to_value(token).unwrap_or_default();
        let mut table = if let Json::Object(table) = table { table } else { Map::new() };
        // What it does not have is left out.
        table.retain(|_, value| !value.is_null());
        Self::AddToken { table }
    }

    /// The camera that it concerns; `None`: the host.
    pub fn camera(&self) -> Option<&str> {
        match self {
            Self::PutCamera { id, .. } | Self::RemoveCamera { id } => Some(id),
            Self::AddToken { .. } | Self::RemoveToken { .. } => None,
        }
    }

    /// What a person would paste into the config instead; `None`: something is to be removed.
    pub fn toml(&self) -> Option<String> {
        let mut document = DocumentMut::new();
        match self {
            Self::PutCamera { id, table } => {
                let table = new_camera(id, table).ok()?;
                tables(document.as_table_mut(), CAMERAS).ok()?.push(table);
            }
            Self::AddToken { table } => add_token(&mut document, table).ok()?,
            Self::RemoveCamera { .. } | Self::RemoveToken { .. } => return None,
        }
        Some(document.to_string().trim_start().to_owned())
    }
}

/// A change that is asked for.
#[derive(Debug, Clone)]
pub struct ConfigEdit {
    pub change: ConfigChange,
    /// The digest of the file that it is a change of. `None`: of the file as it is.
    pub of: Option<String>,
    /// Who asks for it, for the log.
    pub by: String,
}

/// A camera's table in the config file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "CameraEntry")]
pub struct ConfigEntry {
    /// The camera's name.
    pub id: String,
    /// Its keys as the file has them, with `***` for the secrets of a source.
    pub camera: Map<String, Json>,
    /// The same as TOML.
    pub toml: String,
    /// The file in which it stands: the config, or its file of cameras. In a site its name.
    pub file: String,
    /// SHA-256 of the file, in a site of the entry: the `ETag` of the answer.
    pub digest: String,
    /// Why the host does not change the file; null: it does.
    pub not_editable: Option<String>,
}

/// Why the config file was not changed.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// The text does not allow it.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// The host may not, or cannot, change the file.
    #[error("{reason}")]
    NotEditable {
        reason: String,
        /// What a person would paste into it instead.
        toml: Option<String>,
    },
    /// The camera stands in the config, and the API changes the file of cameras alone.
    #[error(
        "camera {id:?} stands in {place}: the API changes cameras of {cameras} alone, so change it \
         there by hand"
    )]
    ReadOnly {
        id: String,
        /// The config and the line in it.
        place: String,
        /// The file of cameras.
        cameras: String,
        /// What a person would paste into the config instead.
        toml: Option<String>,
    },
    /// It is not the file that the change is of.
    #[error("the config file has changed since it was read: read it again")]
    Changed,
    /// The config would be wrong, or name something that is.
    #[error("the config would be wrong, and is left as it is: {}", listing(.0))]
    Wrong(Vec<ShownProblem>),
    /// The file has the change, and the host does not follow it.
    #[error(
        "the change is in the config file, and the config is not applied: {}", listing(.0)
    )]
    NotApplied(Vec<ShownProblem>),
    /// The files are as they were, and the host does not follow them.
    #[error("the config is not applied, everything runs on as before: {}", listing(.0))]
    Refused(Vec<ShownProblem>),
    /// The file cannot be read or written.
    #[error("the config file: {0}")]
    File(#[from] std::io::Error),
    /// The site that the host belongs to has no such camera.
    #[error("the site has no camera {0:?}")]
    NotInSite(String),
    /// The site cannot be asked, or the entry in it cannot be read.
    #[error("the site: {0}")]
    Site(Box<dyn std::error::Error + Send + Sync>),
    /// The host stops.
    #[error("the host is stopping")]
    Stopping,
}

/// Why a text is not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// The text is no TOML.
    #[error("the config is not TOML that can be changed: {0}")]
    Syntax(String),
    /// The list is written in another form.
    #[error("{0} is not written as [[{0}]] tables: change it by hand")]
    Form(&'static str),
    /// There is no camera, or no token, of this name.
    #[error("the config file has no {0} {1:?}")]
    Unknown(&'static str, String),
    /// There is a token of this name already.
    #[error("the config file has a token {0:?} already")]
    Exists(String),
    /// A secret is hidden in a source that is another one than before.
    #[error("the source has *** where its user name, password or token stands: write it anew")]
    Hidden,
    /// TOML has no null.
    #[error("{0}: a config has no null, leave the key out")]
    Null(String),
}

/// The text with a change made.
pub fn changed(text: &str, change: &ConfigChange) -> Result<String, ChangeError> {
    let mut document = parse(text)?;
    begin(&mut document);
    match change {
        ConfigChange::PutCamera { id, table } => put_camera(&mut document, id, table)?,
        ConfigChange::RemoveCamera { id } => {
            let tables = tables(document.as_table_mut(), CAMERAS)?;
            remove(tables, ID, id).ok_or_else(|| ChangeError::Unknown("camera", id.clone()))?;
            tidy(&mut document, &[CAMERAS]);
        }
        ConfigChange::AddToken { table } => add_token(&mut document, table)?,
        ConfigChange::RemoveToken { name } => {
            let unknown = || ChangeError::Unknown("token", name.clone());
            let tables = tokens(&mut document)?;
            remove(tables, "name", name).ok_or_else(unknown)?;
        }
    }
    Ok(document.to_string())
}

/// The text of a file of cameras with a change made. It is never blank, even if it was.
pub fn changed_cameras(text: &str, change: &ConfigChange) -> Result<String, ChangeError> {
    let is_blank = |text: &str| text.trim().is_empty();
    let new = changed(if is_blank(text) { CAMERAS_HEAD } else { text }, change)?;
    Ok(if is_blank(&new) { CAMERAS_HEAD.to_owned() } else { new })
}

/// A camera's table as it is written, with the secrets of its source hidden; `None`: the text has
/// no such camera.
pub fn camera(text: &str, id: &str) -> Result<Option<Map<String, Json>>, ChangeError> {
    Ok(camera_with_secrets(text, id)?.map(without_secrets))
}

/// As [`camera`], with the secrets.
pub(crate) fn camera_with_secrets(
    text: &str,
    id: &str,
) -> Result<Option<Map<String, Json>>, ChangeError> {
    let mut document = parse(text)?;
    let found = tables(document.as_table_mut(), CAMERAS)?.iter().find(|table| has(table, ID, id));
    Ok(found.map(|table| to_json(table)))
}

/// A camera's table with the secrets of its source hidden.
pub(crate) fn without_secrets(mut table: Map<String, Json>) -> Map<String, Json> {
    table.values_mut().for_each(hide);
    table
}

fn parse(text: &str) -> Result<DocumentMut, ChangeError> {
    // The error's own text shows the line, which may hold a password.
    text.parse::<DocumentMut>().map_err(|error| ChangeError::Syntax(error.message().to_owned()))
}

fn put_camera(
    document: &mut DocumentMut,
    id: &str,
    wanted: &Map<String, Json>,
) -> Result<(), ChangeError> {
    let tables = tables(document.as_table_mut(), CAMERAS)?;
    let mut wanted = wanted.clone();
    if let Some(table) = tables.iter_mut().find(|table| has(table, ID, id)) {
        let before = to_json(table);
        for (key, value) in &mut wanted {
            reveal(value, before.get(key))?;
        }
        wanted.insert(ID.to_owned(), id.into());
        return merge(table, &wanted, "");
    }
    wanted.values_mut().try_for_each(|value| reveal(value, None))?;
    let table = new_camera(id, &wanted)?;
    append(tables, table);
    Ok(())
}

/// Puts the comments of a text that has nothing else before what comes to it.
fn begin(document: &mut DocumentMut) {
    if document.iter().all(|(_, item)| item.as_array().is_some_and(Array::is_empty)) {
        let comments = document.trailing().as_str().unwrap_or_default().to_owned();
        document.set_trailing("");
        document.decor_mut().set_prefix(comments);
    }
}

/// The table of a camera, its name first.
fn new_camera(id: &str, keys: &Map<String, Json>) -> Result<Table, ChangeError> {
    let mut table = Table::new();
    table.insert(ID, Item::Value(id.into()));
    for (key, value) in ordered(keys, CAMERA_KEYS).filter(|(key, _)| *key != ID) {
        table.insert(key, item(value, key)?);
    }
    Ok(table)
}

fn add_token(document: &mut DocumentMut, wanted: &Map<String, Json>) -> Result<(), ChangeError> {
    let tables = tokens(document)?;
    if let Some(name) = wanted.get("name").and_then(Json::as_str)
        && tables.iter().any(|table| has(table, "name", name))
    {
        return Err(ChangeError::Exists(name.to_owned()));
    }
    let mut table = Table::new();
    for (key, value) in ordered(wanted, TOKEN_KEYS) {
        table.insert(key, item(value, key)?);
    }
    append(tables, table);
    Ok(())
}

/// The members of an object, some of them first.
fn ordered<'a>(
    keys: &'a Map<String, Json>,
    first: &'a [&str],
) -> impl Iterator<Item = (&'a String, &'a Json)> {
    let known = first.iter().filter_map(|key| keys.get_key_value(*key));
    known.chain(keys.iter().filter(|(key, _)| !first.contains(&key.as_str())))
}

fn tokens(document: &mut DocumentMut) -> Result<&mut ArrayOfTables, ChangeError> {
    let server = document.as_table_mut().entry("server").or_insert_with(|| {
        let mut server = Table::new();
        server.set_implicit(true);
        Item::Table(server)
    });
    let server = server.as_table_mut().ok_or(ChangeError::Form("server"))?;
    tables(server, "tokens").map_err(|_| ChangeError::Form("server.tokens"))
}

/// The tables of a key. They are made where the key is missing.
fn tables<'a>(of: &'a mut Table, key: &'static str) -> Result<&'a mut ArrayOfTables, ChangeError> {
    let item = of.entry(key).or_insert_with(|| Item::ArrayOfTables(ArrayOfTables::new()));
    if item.as_array().is_some_and(Array::is_empty) {
        *item = Item::ArrayOfTables(ArrayOfTables::new());
    }
    item.as_array_of_tables_mut().ok_or(ChangeError::Form(key))
}

/// Appends a table behind a blank line.
fn append(tables: &mut ArrayOfTables, mut table: Table) {
    table.decor_mut().set_prefix("\n");
    tables.push(table);
}

/// Removes the table of a name. What is written above it stays, up to the last blank line: that is
/// about more than this table.
fn remove(tables: &mut ArrayOfTables, key: &str, name: &str) -> Option<()> {
    let index = tables.iter().position(|table| has(table, key, name))?;
    let above = prefix(tables.get(index)?.decor());
    let kept = above.rfind("\n\n").and_then(|end| above.get(..end + 1)).unwrap_or_default();
    let kept = if kept.trim().is_empty() { String::new() } else { kept.to_owned() };
    tables.remove(index);
    if let (false, Some(next)) = (kept.is_empty(), tables.get_mut(index)) {
        let below = prefix(next.decor());
        next.decor_mut().set_prefix(kept + &below);
    }
    Some(())
}

/// Leaves out a list that has become empty.
fn tidy(document: &mut DocumentMut, keys: &[&str]) {
    for key in keys {
        let empty = document.get(key).and_then(Item::as_array_of_tables);
        if empty.is_some_and(ArrayOfTables::is_empty) {
            document.remove(key);
        }
    }
}

fn prefix(decor: &Decor) -> String {
    decor.prefix().and_then(RawString::as_str).unwrap_or_default().to_owned()
}

fn has(table: &Table, key: &str, name: &str) -> bool {
    table.get(key).and_then(Item::as_str) == Some(name)
}

/// Gives a table these keys and no others. `path` is the table's own, with a dot behind it.
fn merge(
    table: &mut dyn TableLike,
    wanted: &Map<String, Json>,
    path: &str,
) -> Result<(), ChangeError> {
    let gone: Vec<String> = table
        .iter()
        .map(|(key, _)| key.to_owned())
        .filter(|key| !wanted.contains_key(key))
        .collect();
    for key in gone {
        table.remove(&key);
    }
    for (key, value) in wanted {
        let path = format!("{path}{key}");
        match (table.get_mut(key), value) {
            (Some(item), value) if item_json(item) == *value => {}
            (Some(item), Json::Object(members)) if item.is_table_like() => {
                if let Some(table) = item.as_table_like_mut() {
                    merge(table, members, &format!("{path}."))?;
                }
            }
            (Some(Item::Value(before)), value) => {
                let mut now = self::value(value, &path)?;
                // The comment behind it is about the key.
                *now.decor_mut() = before.decor().clone();
                *before = now;
            }
            (Some(item), value) => *item = self::item(value, &path)?,
            (None, value) => {
                // A table of its own has no place in an inline one.
                let item = Item::Value(self::value(value, &path)?);
                table.insert(key, item);
            }
        }
    }
    Ok(())
}

/// A value as a key's: an object becomes a table of its own.
fn item(value: &Json, path: &str) -> Result<Item, ChangeError> {
    let Json::Object(members) = value else { return Ok(Item::Value(self::value(value, path)?)) };
    let mut table = Table::new();
    for (key, member) in members {
        let path = format!("{path}.{key}");
        table.insert(key, Item::Value(self::value(member, &path)?));
    }
    Ok(Item::Table(table))
}

fn value(value: &Json, path: &str) -> Result<Value, ChangeError> {
    Ok(match value {
        Json::Null => return Err(ChangeError::Null(path.to_owned())),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, number) => number.unwrap_or_default().into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => {
            let mut array = Array::new();
            for (index, item) in items.iter().enumerate() {
                array.push(self::value(item, &format!("{path}[{index}]"))?);
            }
            array.into()
        }
        Json::Object(members) => {
            let mut table = InlineTable::new();
            for (key, member) in members {
                table.insert(Key::new(key), self::value(member, &format!("{path}.{key}"))?);
            }
            table.into()
        }
    })
}

fn to_json(table: &dyn TableLike) -> Map<String, Json> {
    table.iter().map(|(key, item)| (key.to_owned(), item_json(item))).collect()
}

fn item_json(item: &Item) -> Json {
    match item {
        Item::None => Json::Null,
        Item::Value(value) => value_json(value),
        Item::Table(table) => Json::Object(to_json(table)),
        Item::ArrayOfTables(tables) => {
            tables.iter().map(|table| Json::Object(to_json(table))).collect()
        }
    }
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => (*number.value()).into(),
        Value::Boolean(value) => (*value.value()).into(),
        Value::Datetime(time) => time.value().to_string().into(),
        Value::Array(items) => items.iter().map(value_json).collect(),
        Value::InlineTable(table) => Json::Object(to_json(table)),
    }
}

/// The source that a text is, if it is a camera's URL. Whatever else its table says of it.
fn camera_source(text: &str) -> Option<Source> {
    Source::parse(text, None, None, false).ok().filter(Source::is_live)
}

/// Hides the secrets of a camera's URL.
fn hide(value: &mut Json) {
    let Some(text) = value.as_str().filter(|text| text.contains("://")) else { return };
    match Source::parse(text, None, None, false) {
        Ok(source) if !source.is_live() => {}
        Ok(source) => *value = source.to_string().into(),
        // Where one that does not parse has its secrets is unknown.
        Err(_) => *value = HIDDEN.into(),
    }
}

/// Puts the secrets of the URL before in the place of those that [`hide`] has hidden: where nothing
/// else has changed, or a part that is not secret, on the same machine.
fn reveal(value: &mut Json, before: Option<&Json>) -> Result<(), ChangeError> {
    let Some(text) = value.as_str().filter(|text| text.contains(HIDDEN)) else { return Ok(()) };
    if text == HIDDEN {
        *value = before.cloned().ok_or(ChangeError::Hidden)?;
        return Ok(());
    }
    let Some(wanted) = camera_source(text) else { return Ok(()) };
    let before = before.and_then(Json::as_str);
    let known = before.and_then(|before| Some((before, camera_source(before)?)));
    let Some((before, known)) = known else { return Err(ChangeError::Hidden) };
    if known.to_string() == wanted.to_string() {
        *value = before.into();
        return Ok(());
    }
    let (Source::Rtsp(known), Source::Rtsp(wanted)) = (known, wanted) else {
        return Err(ChangeError::Hidden);
    };
    let credentials = before.split_once("://").and_then(|(_, rest)| rest.rsplit_once('@'));
    let hidden = format!("{HIDDEN}:{HIDDEN}@");
    let revealed = match credentials {
        // The secrets go to no other machine than before.
        Some((credentials, _)) if known.address() == wanted.address() => {
            text.replacen(&hidden, &format!("{credentials}@"), 1)
        }
        _ => return Err(ChangeError::Hidden),
    };
    let Some((_, rest)) = text.split_once(&hidden) else { return Err(ChangeError::Hidden) };
    if rest.contains(HIDDEN) {
        return Err(ChangeError::Hidden);
    }
    *value = revealed.into();
    Ok(())
}

#[cfg(test)]
mod tests;
