//! Label files as text, XML and JSON, of bounded size.

use std::path::Path;

use roxmltree::{Document, Node, ParsingOptions};
use serde::de::DeserializeOwned;

use super::super::read::read_file;
use super::super::DataError;

/// Larger label files of a single image are refused: in bytes.
const LARGEST: u64 = 64 << 20;
/// Larger files of a whole data set are refused: in bytes. COCO's training set has 450 MB.
const LARGEST_OF_SET: u64 = 4 << 30;
/// Most elements in an XML document.
const NODES: u32 = 20_000_000;

/// The text of the file at `path`, without a byte order mark.
///
/// # Errors
/// When it cannot be read, or is not UTF-8.
pub fn read_text(path: &Path) -> Result<String, DataError> {
    text_up_to(path, LARGEST)
}

fn text_up_to(path: &Path, limit: u64) -> Result<String, DataError> {
    let bytes = read_file(path, limit).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let wide = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
    let mut text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..at].iter().filter(|b| **b == b'\n').count();
        let why = if wide { "the text is UTF-16; save it as UTF-8" } else { "this is not UTF-8 text" };
        DataError::Label { path: path.to_owned(), line, why: why.into() }
    })?;
    if text.starts_with('\u{feff}') {
        text.drain(..'\u{feff}'.len_utf8());
    }
    Ok(text)
}

/// Parses a JSON file; of a whole data set if `set`, of one image otherwise.
///
/// # Errors
/// [`DataError::Label`] names the line.
pub fn read_json<T: DeserializeOwned>(path: &Path, set: bool) -> Result<T, DataError> {
    let text = text_up_to(path, if set { LARGEST_OF_SET } else { LARGEST })?;
    serde_json::from_str(&text).map_err(|e| DataError::Label {
        path: path.to_owned(),
        line: e.line(),
        why: e.to_string().split(" at line").next().unwrap_or_default().to_owned(),
    })
}

/// The text of an XML file; of a whole data set if `set`, of one image otherwise.
///
/// # Errors
/// As [`read_text`].
pub fn read_xml(path: &Path, set: bool) -> Result<String, DataError> {
    text_up_to(path, if set { LARGEST_OF_SET } else { LARGEST })
}

/// The elements of an XML text.
///
/// # Errors
/// [`DataError::Label`] names the line.
pub fn parse_xml<'a>(text: &'a str, path: &Path) -> Result<Document<'a>, DataError> {
    let options = ParsingOptions { allow_dtd: false, nodes_limit: NODES, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).map_err(|e| DataError::Label {
        path: path.to_owned(),
        line: e.pos().row as usize,
        why: e.to_string(),
    })
}

/// The first child element of that name.
pub fn child<'a, 'i>(node: Node<'a, 'i>, name: &str) -> Option<Node<'a, 'i>> {
    node.children().find(|child| child.has_tag_name(name))
}

/// The trimmed text of the first child element of that name.
pub fn child_text<'a>(node: Node<'a, '_>, name: &str) -> Option<&'a str> {
    child(node, name)?.text().map(str::trim)
}

/// The line of an element.
pub fn line(node: Node) -> usize {
    node.document().text_pos_at(node.range().start).row as usize
}

/// A number, not infinite and not NaN.
pub fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|v: &f64| v.is_finite())
}
