//! CVAT for images 1.1: an XML file with an `<image>` for each image, and in it boxes, polygons and
//! ellipses. Objects become the boxes round them.

use std::path::Path;

use roxmltree::Node;

use super::super::labels::{Object, Unit};
use super::super::{DataError, Skipped};
use super::near;
use super::text::{line, number, parse_xml, read_xml};
use super::{Classes, Entry, Labels, Listing, Request};

/// The file in a folder.
pub const FILE: &str = "annotations.xml";

/// Whether the beginning of an XML file is that of this layout.
pub fn is(beginning: &str) -> bool {
    beginning.contains("<annotations")
}

/// Reads the file at `path`.
///
/// # Errors
/// When it is invalid, or its images are not near it.
pub fn read(request: &Request, path: &Path) -> Result<Listing, DataError> {
    let text = read_xml(path, true)?;
    let document = parse_xml(&text, path)?;
    let root = document.root_element();
    let at = |node: Node, why: &str| DataError::Label { path: path.to_owned(), line: line(node), why: why.into() };
    if let Some(track) = root.children().find(|node| node.has_tag_name("track")) {
        return Err(at(track, "these are tracks of a video; export it from CVAT as \"CVAT for images\""));
    }
    let nodes: Vec<Node> = root.children().filter(|node| node.has_tag_name("image")).collect();
    let names: Vec<&str> = nodes.iter().filter_map(|node| node.attribute("name")).collect();
    if names.len() != nodes.len() || nodes.is_empty() {
        return Err(at(root, "every <image> needs a name, and there must be one"));
    }
    let folder = near::folder_of(path, &names)?;
    let (config, config_path) = request.config_or(&[], path);
    let mut classes = Classes::new(&config.classes);
    let (mut entries, mut skipped) = (Vec::new(), Vec::new());
    for (node, name) in nodes.iter().zip(names) {
        let image = folder.join(name);
        if !image.is_file() {
            skipped.push(Skipped { path: image, reason: format!("named in {}, but not there", path.display()) });
            continue;
        }
        let side = |key: &str| node.attribute(key)?.parse::<u32>().ok().filter(|side| *side > 0);
        entries.push(Entry {
            name: name.to_owned(),
            image,
            size: side("width").zip(side("height")),
            labels: objects(*node, path, &mut classes, request.outlines).map(Labels::Objects),
            label_file: Some(path.to_owned()),
        });
    }
    let config = super::DatasetConfig { classes: classes.into_names(), ..config };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { layout: "CVAT XML", config, config_path, entries, skipped })
}

fn objects(image: Node, path: &Path, classes: &mut Classes, outlines: bool) -> Result<Vec<Object>, DataError> {
    let mut objects = Vec::new();
    for node in image.children().filter(Node::is_element) {
        let at = |why: String| DataError::Label { path: path.to_owned(), line: line(node), why };
        let Some(points) = shape(node).map_err(at)? else { continue };
        let label = node.attribute("label").ok_or_else(|| at("it has no label".into()))?;
        let class = classes.number(label);
        let object = Object::around(Some(class), &points, Unit::Pixel);
        let mut object = object.ok_or_else(|| at("it has no points".into()))?;
        if outlines {
            object.outlines.push(points);
        }
        objects.push(object);
    }
    Ok(objects)
}

/// The corners of a shape; `None` for what encloses nothing, such as a tag of the whole image.
fn shape(node: Node) -> Result<Option<Vec<[f64; 2]>>, String> {
    let of = |key: &str| {
        let text = node.attribute(key).ok_or_else(|| format!("a <{}> without {key}", node.tag_name().name()))?;
        number(text).ok_or_else(|| format!("{key} is {text:?}, not a number"))
    };
    match node.tag_name().name() {
        "box" => {
            let [x0, y0, x1, y1] = [of("xtl")?, of("ytl")?, of("xbr")?, of("ybr")?];
            let corners = vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]];
            let turned = node.attribute("rotation").and_then(number).unwrap_or(0.0);
            Ok(Some(turn(&corners, [(x0 + x1) / 2.0, (y0 + y1) / 2.0], turned)))
        }
        "ellipse" => {
            let [x, y, rx, ry] = [of("cx")?, of("cy")?, of("rx")?, of("ry")?];
            let corner = |i: u32| {
                let angle = f64::from(i) / 64.0 * std::f64::consts::TAU;
                [x + rx * angle.cos(), y + ry * angle.sin()]
            };
            let turned = node.attribute("rotation").and_then(number).unwrap_or(0.0);
            Ok(Some(turn(&(0..64).map(corner).collect::<Vec<_>>(), [x, y], turned)))
        }
        "polygon" => {
            let text = node.attribute("points").ok_or("a <polygon> without points")?;
            let point = |pair: &str| {
                let (x, y) = pair.split_once(',')?;
                Some([number(x)?, number(y)?])
            };
            let points: Option<Vec<_>> = text.split(';').filter(|pair| !pair.trim().is_empty()).map(point).collect();
            points.map(Some).ok_or_else(|| "points is no list of x,y;x,y;…".to_owned())
        }
        "mask" => {
            let [x, y, w, h] = [of("left")?, of("top")?, of("width")?, of("height")?];
            Ok(Some(vec![[x, y], [x + w, y], [x + w, y + h], [x, y + h]]))
        }
        _ => Ok(None),
    }
}

/// Turns points clockwise round a centre, by degrees.
fn turn(points: &[[f64; 2]], [cx, cy]: [f64; 2], degrees: f64) -> Vec<[f64; 2]> {
    let (sin, cos) = degrees.to_radians().sin_cos();
    let one = |p: &[f64; 2]| {
        let [x, y] = [p[0] - cx, p[1] - cy];
        [cx + x * cos - y * sin, cy + x * sin + y * cos]
    };
    if degrees == 0.0 {
        points.to_vec()
    } else {
        points.iter().map(one).collect()
    }
}
