//! `ocelli pipelines`: the pipelines that have a name on a running host.

use ocelli_client::Request;
use serde_json::Value;

use super::host::{Asked, HostArgs};
use super::pipeline::in_units;
use super::table::{Look, entries};

/// Columns of the table: heading, member.
const COLUMNS: [(&str, &str); 5] = [
    ("PIPELINE", "name"),
    ("SIZE", "size"),
    ("DEPLOYMENT", "digest"),
    ("SESSIONS", "sessions"),
    ("FILE", "file"),
];

/// Digits of a digest that name a deployment everywhere else.
const DIGITS: usize = 12;

/// Prints a table, or the answer as it came.
pub(super) fn print(host: &HostArgs) -> anyhow::Result<()> {
    let list = host.list(&Request::get(&["pipelines"]), "pipelines", Asked::nothing())?;
    if let Some(mut list) = list {
        list.iter_mut().for_each(shorten);
        anstream::print!("{}", entries(&list, &COLUMNS, "", Look::stdout()));
    }
    Ok(())
}

fn shorten(pipeline: &mut Value) {
    if let Some(size) = pipeline.get_mut("size") {
        *size = size.as_u64().map(in_units).into();
    }
    if let Some(digest) = pipeline.get_mut("digest") {
        let digits = digest.as_str().and_then(|digits| digits.get(..DIGITS)).map(str::to_owned);
        *digest = digits.into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pipeline_is_a_row_with_the_name_of_its_deployment() {
        let digest = "c2247ebd57c70123456789";
        let mut list =
            [json!({"name": "eye", "file": "eye.wasm", "size": 2_097_152, "digest": digest,
            "sessions": ["gate", "yard"]})];
        list.iter_mut().for_each(shorten);
        let expected = "\
PIPELINE  SIZE    DEPLOYMENT    SESSIONS    FILE
eye       2.1 MB  c2247ebd57c7  gate, yard  eye.wasm
";
        assert_eq!(entries(&list, &COLUMNS, "", Look::PLAIN), expected);
    }
}
