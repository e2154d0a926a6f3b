//! What a file is that is neither a JPEG nor a PNG image, by its first bytes: for the answer to
//! whoever sent it.

/// Bytes that are looked at in search of text: a page's or a drawing's first lines.
const TEXT: usize = 512;

/// Formats by the bytes with which their files begin.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"II*\0", "a TIFF image"),
    (b"MM\0*", "a TIFF image"),
    (b"\0\0\x01\0", "an ICO image"),
    (b"\xff\x0a", "a JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
    (b"%PDF-", "a PDF document"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM recording"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip file"),
];

/// Brands of files in ISO's base media format (ISO/IEC 14496-12, 4.3; HEIF, 23008-12, 10), the
/// telling ones first: a file may have several.
const BRANDS: &[(&[u8], &str)] = &[
    (b"avif", "an AVIF image"),
    (b"avis", "an AVIF image"),
    (b"heic", "a HEIC image"),
    (b"heix", "a HEIC image"),
    (b"heim", "a HEIC image"),
    (b"heis", "a HEIC image"),
    (b"hevc", "a HEIC image"),
    (b"hevx", "a HEIC image"),
    (b"mif1", "a HEIF image"),
    (b"msf1", "a HEIF image"),
];

/// Texts by what stands at their beginning, in lower case. SVG files often begin as XML.
const TEXTS: &[(&str, &str)] = &[
    ("<svg", "an SVG drawing"),
    ("<!doctype html", "an HTML page"),
    ("<html", "an HTML page"),
    ("<?xml", "an XML text"),
    ("data:image/", "a data: URL, not the image's own bytes"),
    ("/9j/", "a JPEG image in Base64, not the image's own bytes"),
    ("ivborw0kggo", "a PNG image in Base64, not the image's own bytes"),
    ("version https://git-lfs", "a Git LFS pointer, not the file that it stands for"),
];

/// What the file is, with its article.
pub(super) fn describe(file: &[u8]) -> &'static str {
    if let Some((_, named)) = BEGINNINGS.iter().find(|(bytes, _)| file.starts_with(bytes)) {
        return named;
    }
    // "BM" begins words, too: two numbers behind the size are 0.
    if file.starts_with(b"BM") && file.get(6..10) == Some(&[0; 4]) {
        return "a BMP image";
    }
    match (file.get(..4), file.get(4..8), file.get(8..12)) {
        (Some(b"RIFF"), _, Some(b"WEBP")) => "a WebP image",
        (Some(b"RIFF"), _, Some(b"AVI ")) => "an AVI recording",
        (Some(length), Some(b"ftyp"), _) => of_brands(file, length),
        _ => of_text(file),
    }
}

/// What a file in ISO's base media format is, by the brands in its first box.
fn of_brands(file: &[u8], length: &[u8]) -> &'static str {
    let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    // The box has two numbers, the brand, its version, and the brands that go with it.
    let brands = file.get(8..length.min(file.len()).min(TEXT)).unwrap_or_default();
    let has = |brand: &[u8]| brands.chunks_exact(4).any(|one| one == brand);
    let known = BRANDS.iter().find(|(brand, _)| has(brand));
    known.map_or("an MP4 or QuickTime recording", |(_, named)| named)
}

fn of_text(file: &[u8]) -> &'static str {
    let beginning = file.get(..file.len().min(TEXT)).unwrap_or_default();
    let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    let text = match std::str::from_utf8(beginning) {
        Ok(text) => text,
        // The last character may be cut.
        Err(cut) if cut.error_len().is_none() => {
            let whole = beginning.get(..cut.valid_up_to()).unwrap_or_default();
            std::str::from_utf8(whole).unwrap_or_default()
        }
        Err(_) => return "of no format that is known here",
    };
    if text.contains('\0') {
        return "of no format that is known here";
    }
    let text = text.trim_start().to_ascii_lowercase();
    if text.starts_with("<?xml") && text.contains("<svg") {
        return "an SVG drawing";
    }
    let known = TEXTS.iter().find(|(beginning, _)| text.starts_with(beginning));
    known.map_or("a text", |(_, named)| named)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file in ISO's base media format with these brands, and what follows the first box.
    fn media(brands: &[&[u8; 4]]) -> Vec<u8> {
        let (first, others) = brands.split_first().unwrap();
        let length = u32::try_from(16 + 4 * others.len()).unwrap();
        let mut file = [&length.to_be_bytes()[..], b"ftyp", *first, &[0; 4]].concat();
        others.iter().for_each(|brand| file.extend(*brand));
        file.extend(b"\0\0\0\x08avif");
        file
    }

    #[test]
    fn a_file_is_known_by_its_first_bytes() {
        let cases: [(&[u8], &str); 26] = [
            (&media(&[b"heic", b"mif1", b"heic"]), "HEIC"),
            (&media(&[b"mif1", b"miaf", b"heix"]), "HEIC"),
            (&media(&[b"avif", b"mif1", b"miaf"]), "AVIF"),
            (&media(&[b"mif1", b"avif"]), "AVIF"),
            (&media(&[b"mif1"]), "HEIF"),
            (&media(&[b"isom", b"avc1"]), "MP4"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP"),
            (b"RIFF\x10\0\0\0AVI LIST", "AVI"),
            (b"GIF89a\x01\0", "GIF"),
            (b"GIF87a\x01\0", "GIF"),
            (b"II*\0\x08\0", "TIFF"),
            (b"MM\0*\0\0", "TIFF"),
            (b"BM\x36\0\0\0\0\0\0\0\x36", "BMP"),
            (b"\0\0\x01\0\x01\0", "ICO"),
            (b"\xff\x0a\xfa", "JPEG XL"),
            (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
            (b"%PDF-1.7\n", "PDF"),
            (b"<svg xmlns=\"x\"/>", "SVG"),
            (b"\xef\xbb\xbf<?xml version=\"1.0\"?>\n<!-- a -->\n<svg/>", "SVG"),
            (b"\n<!DOCTYPE html><html>", "HTML"),
            (b"data:image/jpeg;base64,/9j/4AAQ", "data:"),
            (b"/9j/4AAQSkZJRg==", "Base64"),
            (b"iVBORw0KGgoAAAANSUhEUg==", "Base64"),
            (b"version https://git-lfs.github.com/spec/v1\n", "LFS"),
            ("Grüße".as_bytes(), "a text"),
            (b"\x01\x02\x03\0\xff", "no format"),
        ];
        for (file, named) in cases {
            let said = describe(file);
            assert!(said.contains(named), "{named}: {said}");
            // However little of it there is.
            (0..file.len()).for_each(|end| assert!(describe(&file[..end]).len() > 4));
        }
        let cut = format!("{}ü", "x".repeat(TEXT - 1));
        assert_eq!(describe(cut.as_bytes()), "a text");
    }
}
