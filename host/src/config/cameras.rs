//! The config's file of cameras: `[[cameras]]` of a file of their own, in one tree with the
//! config's.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{CamerasLine, ConfigError, ConfigProblem, ValueOrigin};
use super::tree::{Node, NodeValue};

/// The one key of the file.
const CAMERAS: &str = "cameras";

/// The key of the config that names the file.
const KEY: &str = "server.cameras_file";

/// The file that the tree of a config at `path` names.
pub(super) fn named(path: &Path, tree: &Node) -> Result<Option<PathBuf>, ConfigProblem> {
    let node = tree.nearest(KEY);
    let is_set = matches!(&tree.nearest("server").value,
        NodeValue::Table(server) if server.contains_key("cameras_file"));
    let NodeValue::Scalar(serde_json::Value::String(text)) = &node.value else { return Ok(None) };
    if !is_set || text.is_empty() {
        // The schema says what is wrong.
        return Ok(None);
    }
    let file = path.parent().unwrap_or(Path::new("")).join(text);
    let wrong = |message: &str| Err(ConfigProblem::at(&node.origin, KEY, message));
    if file == path {
        wrong("it is this file itself: leave the key out, or name another file")
    } else if file.extension().is_some_and(|ending| ending == "json") {
        wrong("the file of cameras is TOML: give it a name without .json")
    } else {
        Ok(Some(file))
    }
}

/// Whether the tree is of a host that belongs to a site, where its cameras stand.
pub(super) fn is_of_site(tree: &Node) -> bool {
    matches!(&tree.value, NodeValue::Table(members) if members.contains_key("cluster"))
}

/// Appends the cameras of the file to those of the config's tree.
pub(super) fn append(
    tree: &mut Node,
    file: &Path,
    text: &str,
    problems: &mut Vec<ConfigProblem>,
) -> Result<(), ConfigError> {
    let mut more = Node::from_toml(text).map_err(|error| ConfigError::Syntax {
        path: file.to_owned(),
        format: "TOML",
        position: error.position,
        message: error.message,
    })?;
    let NodeValue::Table(members) = &mut tree.value else { return Ok(()) };
    let before = match members.get(CAMERAS).map(|node| &node.value) {
        None => 0,
        Some(NodeValue::Array(cameras)) => cameras.len(),
        // The schema says what is wrong with it.
        Some(_) => return Ok(()),
    };
    let file: Arc<Path> = file.into();
    more.relocate(&|line| {
        ValueOrigin::Cameras(CamerasLine { file: Arc::clone(&file), line, before })
    });
    let NodeValue::Table(found) = more.value else { return Ok(()) };
    for (key, node) in found {
        match node.value {
            NodeValue::Array(mut cameras) if key == CAMERAS => {
                let place = members.entry(key).or_insert_with(|| Node {
                    value: NodeValue::Array(Vec::new()),
                    origin: node.origin.clone(),
                });
                if let NodeValue::Array(all) = &mut place.value {
                    all.append(&mut cameras);
                }
            }
            _ if key == CAMERAS => {
                let message = "expected tables of cameras, each below [[cameras]]";
                problems.push(ConfigProblem::at(&node.origin, key, message));
            }
            _ => {
                let message = "a file of cameras has [[cameras]] alone: this belongs into the \
                               config";
                problems.push(ConfigProblem::at(&node.origin, key, message));
            }
        }
    }
    Ok(())
}
