//! Texts as clients of the API see them.

/// Characters behind which a path may begin.
const BEFORE: &[char] = &['"', '\'', '`', '(', '[', '=', '<'];

/// Characters that end a path.
const AFTER: &[char] = &['"', '\'', '`', ')', ']', '>', ',', ';', ':'];

/// Paths of the API, which are no files.
const API: &[&str] =
    &["/v1/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"];

/// A text with the folders of absolute paths left out: where the host keeps its files is no
/// client's business, and the file's name says enough.
pub(crate) fn without_folders(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('/') {
        let (before, from) = rest.split_at(at);
        let end = from.find(|c: char| c.is_whitespace() || AFTER.contains(&c));
        let (path, after) = from.split_at(end.unwrap_or(from.len()));
        shown.push_str(before);
        let begins = before.chars().next_back().or(shown.chars().next_back());
        let begins = begins.is_none_or(|c| c.is_whitespace() || BEFORE.contains(&c));
        let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if begins && !name.is_empty() && !API.iter().any(|api| path.starts_with(api)) {
            shown.push_str(name);
        } else {
            shown.push_str(path);
        }
        rest = after;
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folders_of_files_are_left_out_and_nothing_else() {
        for (text, shown) in [
            ("/srv/ocelli/data/cache: Permission denied", "cache: Permission denied"),
            ("starting /usr/bin/ocelli-worker: gone", "starting ocelli-worker: gone"),
            (
                "looked for /a/b/eye.wasm and \"/c/eye.wasm\"",
                "looked for eye.wasm and \"eye.wasm\"",
            ),
            ("(/tmp/x/) path=/tmp/y", "(x) path=y"),
            (
                "rtsp://cam.example/live/1: 4/5 at 1/s, and/or",
                "rtsp://cam.example/live/1: 4/5 at 1/s, and/or",
            ),
            ("ask GET /v1/sessions or /healthz", "ask GET /v1/sessions or /healthz"),
            ("/ and // are none", "/ and // are none"),
            ("é /ü/ö", "é ö"),
            ("", ""),
        ] {
            assert_eq!(without_folders(text), shown, "{text}");
        }
    }
}
