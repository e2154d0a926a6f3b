//! What is in the packages by size, as a table for people: `docs/install.md` has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Product, stage};

/// The packages: their heading, the folders of their trees, and how the file's name begins and
/// ends.
const PACKAGES: [(&str, &[&str], &str); 4] = [
    ("deb", &["deb"], "_amd64.deb"),
    ("tar.zst", &["tar"], ".tar.zst"),
    ("wheel", &["wheel"], ".whl"),
    ("image", &["image", "image-base", "image-state"], "-image"),
];

/// The parts, in the order of the table: what a file is by a folder in its path, the first that
/// fits.
const PARTS: [(&str, &[&str]); 8] = [
    ("programs", &["/bin/"]),
    ("models", &["/models/"]),
    ("ONNX Runtime", &["/lib/onnxruntime-"]),
    ("FFmpeg of its own", &["/lib/libav"]),
    ("pipelines", &["/pipelines/"]),
    ("clip of the demo", &["/demo/"]),
    ("Debian's libraries, certificates", &["image-base/"]),
    (REST, &[""]),
];

const REST: &str = "licences, parts, pages, config";

/// Bytes by part.
type Sizes = BTreeMap<&'static str, u64>;

/// Prints the table of those packages whose trees are staged.
pub(crate) fn tell(product: &Product<'_>) -> Result<()> {
    let mut columns = Vec::new();
    for (name, folders, ending) in PACKAGES {
        let mut sizes = Sizes::new();
        for folder in folders {
            let tree = product.out.join("stage").join(folder);
            if tree.is_dir() {
                measure(&tree, &format!("{folder}/"), &mut sizes)?;
            }
        }
        if !sizes.is_empty() {
            columns.push((name, sizes, packed(&product.out, ending)?));
        }
    }
    if !columns.is_empty() {
        println!("{}", table(&columns));
    }
    Ok(())
}

/// Adds the files of a folder, whose path in the package begins with `place`.
fn measure(folder: &Path, place: &str, sizes: &mut Sizes) -> Result<()> {
    for (name, path) in stage::files(folder)? {
        let about = fs::symlink_metadata(&path)?;
        if about.is_dir() {
            measure(&path, &format!("{place}{name}/"), sizes)?;
        } else if about.is_file() {
            *sizes.entry(part(&format!("{place}{name}"))).or_default() += about.len();
        }
    }
    Ok(())
}

fn part(path: &str) -> &'static str {
    // The base has folders of the same names.
    let path = if path.starts_with("image-base/") { "image-base/" } else { path };
    let fits = |folders: &[&str]| folders.iter().any(|folder| path.contains(folder));
    PARTS.iter().find(|(_, folders)| fits(folders)).map_or(REST, |(part, _)| part)
}

/// The bytes of the package's file, or of the files of its folder.
fn packed(out: &Path, ending: &str) -> Result<u64> {
    let product = |name: &str| name.starts_with("ocelli_") || name.starts_with("ocelli-");
    let found = stage::files(out)?.into_iter().find(|(name, path)| {
        // A client's wheel is for every machine.
        product(name) && name.ends_with(ending) && !name.contains("-any.") && path.exists()
    });
    let (_, path) = found.with_context(|| format!("no package ends with {ending}"))?;
    if !path.is_dir() {
        return Ok(fs::metadata(path)?.len());
    }
    let mut sizes = Sizes::new();
    measure(&path, "", &mut sizes)?;
    Ok(sizes.values().sum())
}

/// The table in Markdown: MB of each part in each package, what they are together, and packed.
fn table(columns: &[(&str, Sizes, u64)]) -> String {
    let megabytes = |bytes: u64| match bytes {
        0 => String::new(),
        bytes => format!("{:.1}", bytes as f64 / 1e6),
    };
    let mut text = String::from("| MB |");
    let row = |text: &mut String, title: &str, of: &dyn Fn(&Sizes, u64) -> u64| {
        let _ = write!(text, "\n| {title} |");
        for (_, sizes, packed) in columns {
            let _ = write!(text, " {} |", megabytes(of(sizes, *packed)));
        }
    };
    for (name, ..) in columns {
        let _ = write!(text, " {name} |");
    }
    let _ = write!(text, "\n| --- |{}", " --- |".repeat(columns.len()));
    for (part, _) in PARTS {
        row(&mut text, part, &|sizes, _| sizes.get(part).copied().unwrap_or(0));
    }
    row(&mut text, "**unpacked**", &|sizes, _| sizes.values().sum());
    row(&mut text, "**packed**", &|_, packed| packed);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_apart_by_their_folders() {
        for (path, expected) in [
            ("deb/usr/lib/ocelli/bin/ocelli", "programs"),
            ("tar/ocelli-0.1.0-x86_64/bin/stand-ins/librsvg-2.so.2", "programs"),
            ("image/opt/ocelli/lib/onnxruntime-1.28.0/libonnxruntime.so.1.28.0", "ONNX Runtime"),
            ("wheel/ocelli/installed/lib/libavutil.so.57", "FFmpeg of its own"),
            ("wheel/ocelli/installed/models/centerface/model.onnx", "models"),
            ("image-base/usr/bin/x", "Debian's libraries, certificates"),
            ("deb/usr/share/doc/ocelli/models.md", REST),
        ] {
            assert_eq!(part(path), expected, "{path}");
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_package_and_the_sums() {
        let sizes = |bytes| Sizes::from([("programs", bytes), (REST, 500_000)]);
        let text = table(&[("deb", sizes(1_000_000), 700_000), ("wheel", sizes(2_000_000), 1)]);
        assert!(text.starts_with("| MB | deb | wheel |\n| --- | --- | --- |\n"), "{text}");
        assert!(text.contains("| programs | 1.0 | 2.0 |\n"), "{text}");
        assert!(text.contains("| models |  |  |\n"), "{text}");
        assert!(
            text.ends_with("| **unpacked** | 1.5 | 2.5 |\n| **packed** | 0.7 | 0.0 |"),
            "{text}"
        );
    }
}
