//! Keys as the browser wants to hear of them.

use serde_json::{Value, json};

/// What a key does beside its name: its code on the keyboard, its number on Windows, its text.
type Key = (&'static str, u32, &'static str);

/// Keys that are no characters, by the names that pages know them by.
const NAMED: [(&str, Key); 15] = [
    ("Tab", ("Tab", 9, "")),
    ("Enter", ("Enter", 13, "\r")),
    ("Escape", ("Escape", 27, "")),
    ("Backspace", ("Backspace", 8, "")),
    ("Delete", ("Delete", 46, "")),
    ("ArrowLeft", ("ArrowLeft", 37, "")),
    ("ArrowUp", ("ArrowUp", 38, "")),
    ("ArrowRight", ("ArrowRight", 39, "")),
    ("ArrowDown", ("ArrowDown", 40, "")),
    ("Home", ("Home", 36, "")),
    ("End", ("End", 35, "")),
    ("PageUp", ("PageUp", 33, "")),
    ("PageDown", ("PageDown", 34, "")),
    (" ", ("Space", 32, " ")),
    ("?", ("Slash", 191, "?")),
];

/// The bit of a modifier in the protocol.
fn modifier(name: &str) -> u32 {
    match name {
        "Alt" => 1,
        "Control" => 2,
        "Meta" => 4,
        "Shift" => 8,
        other => panic!("no modifier {other:?}"),
    }
}

/// The two messages of a key's stroke. `stroke` is a key's name, a letter or a digit, after
/// modifiers: `Shift+Tab`.
pub(super) fn stroke(stroke: &str) -> [Value; 2] {
    let (modifiers, key) = stroke.rsplit_once('+').unwrap_or(("", stroke));
    let held = modifiers.split('+').filter(|name| !name.is_empty()).map(modifier).sum::<u32>();
    let named = NAMED.iter().find(|(name, _)| *name == key).map(|(_, key)| *key);
    let (code, number, text) = match named {
        Some((code, number, text)) => (code.to_owned(), number, text.to_owned()),
        None => character(key),
    };
    // A shortcut types nothing.
    let text = if held & !modifier("Shift") == 0 { text } else { String::new() };
    let base =
        json!({"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": held});
    let (mut down, mut up) = (base.clone(), base);
    down["type"] = json!(if text.is_empty() { "rawKeyDown" } else { "keyDown" });
    down["text"] = json!(text);
    up["type"] = json!("keyUp");
    [down, up]
}

fn character(key: &str) -> (String, u32, String) {
    let mut characters = key.chars();
    let (Some(character), None) = (characters.next(), characters.next()) else {
        panic!("no key {key:?}");
    };
    let upper = character.to_ascii_uppercase();
    let place = if character.is_ascii_digit() { "Digit" } else { "Key" };
    (format!("{place}{upper}"), u32::from(upper), key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_type_and_shortcuts_do_not() {
        let [down, up] = stroke("j");
        assert_eq!(
            (&down["code"], &down["text"], &down["type"]),
            (&json!("KeyJ"), &json!("j"), &json!("keyDown"))
        );
        assert_eq!(up["type"], "keyUp");
        let [down, _] = stroke("Control+a");
        assert_eq!((&down["modifiers"], &down["text"]), (&json!(2), &json!("")));
        let [down, _] = stroke("Shift+Tab");
        assert_eq!((&down["key"], &down["modifiers"]), (&json!("Tab"), &json!(8)));
    }
}
