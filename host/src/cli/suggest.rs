//! What a person may have meant by a name that is none.

/// Names that agree by less are other names, not misspelt ones: one letter of three may differ, and
/// two of six.
const LIKE: f64 = 0.6;

/// Names that a message lists: more fill the line.
const LISTED: usize = 5;

/// `; did you mean "gate"?`, or the names that there are, where there are few; else nothing.
pub(super) fn suggestion(asked: &str, names: &[String]) -> String {
    let asked = asked.to_lowercase();
    let like = names
        .iter()
        .map(|name| (strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &asked), name))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|one, other| one.0.total_cmp(&other.0));
    match like {
        Some((_, name)) => format!("; did you mean {name:?}?"),
        None if names.is_empty() => "; there is none at all".to_owned(),
        None if names.len() <= LISTED => {
            let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
            format!("; there is {}", names.join(", "))
        }
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_like_it_is_suggested_and_otherwise_those_that_there_are() {
        let names =
            |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let few = names(&["gate", "yard", "Front door"]);
        assert_eq!(suggestion("gat", &few), "; did you mean \"gate\"?");
        assert_eq!(suggestion("gaet", &few), "; did you mean \"gate\"?");
        assert_eq!(suggestion("front-door", &few), "; did you mean \"Front door\"?");
        let there_is = "; there is \"gate\", \"yard\", \"Front door\"";
        assert_eq!(suggestion("lobby", &few), there_is);
        assert_eq!(suggestion("lobby", &names(&["a", "b", "c", "d", "e", "f"])), "");
        assert_eq!(suggestion("gate", &[]), "; there is none at all");
        // Of others, who may have put anything into a name.
        assert_eq!(
            suggestion("ga\u{1b}", &names(&["ga\u{1b}x"])),
            "; did you mean \"ga\\u{1b}x\"?"
        );
    }
}
