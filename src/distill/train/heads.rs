//! The class outputs of a package whose student gets other classes: rows of classes of the same
//! name are kept, the others are made anew.

use std::collections::BTreeMap;

use peregrine_engine::{ConvWeights, Weights};
use peregrine_student::Architecture;

use crate::net::NetParams;

/// The class outputs taken out of a package's weights.
pub struct TakenHeads(Vec<TakenLayer>);

struct TakenLayer {
    /// In the student.
    name: String,
    weights: ConvWeights,
    rows: ClassRows,
}

impl TakenHeads {
    /// Takes those class outputs of `package` out of its `weights` whose classes are not
    /// `student`'s.
    pub fn take_from(weights: &mut Weights, package: &Architecture, student: &Architecture) -> Self {
        let layers = class_rows(package, student).into_iter();
        let taken = layers.filter_map(|(name, rows)| {
            let weights = weights.0.remove(&rows.layer)?;
            Some(TakenLayer { name, weights, rows })
        });
        Self(taken.collect())
    }

    /// Copies the rows of classes that both have into the student's outputs.
    pub fn put_into(&self, params: &mut NetParams) {
        for layer in &self.0 {
            let Some(conv) = params.convs.iter_mut().find(|conv| conv.name == layer.name) else { continue };
            layer.rows.copy(&layer.weights, &mut conv.weight.value, &mut conv.bias.value);
        }
    }
}

/// Where a layer of class logits finds its rows in another network.
pub struct ClassRows {
    /// The other network's layer.
    pub layer: String,
    /// For each class, the row of the class of the same name.
    rows: Vec<Option<usize>>,
}

impl ClassRows {
    /// Copies the rows of classes that both have `from` the other network's layer. `false`, and
    /// nothing is copied, if that has rows of another length.
    pub fn copy(&self, from: &ConvWeights, weight: &mut [f32], bias: &mut [f32]) -> bool {
        let per_row = weight.len() / bias.len().max(1);
        if from.weight.len() != per_row * from.bias.len() {
            return false;
        }
        for (to, row) in self.rows.iter().enumerate().filter_map(|(to, row)| Some((to, (*row)?))) {
            weight[to * per_row..][..per_row].copy_from_slice(&from.weight[row * per_row..][..per_row]);
            bias[to] = from.bias[row];
        }
        true
    }
}

/// By their names, `student`'s layers of class logits whose classes are not `package`'s.
pub fn class_rows(package: &Architecture, student: &Architecture) -> BTreeMap<String, ClassRows> {
    let mut found = BTreeMap::new();
    let (theirs, ours) = (class_layers(package), class_layers(student));
    for (head, (from, to)) in theirs.into_iter().zip(ours).enumerate() {
        let classes = |a: &Architecture| [a.detection_classes(), a.segmentation_classes()][head].to_vec();
        let (known, wanted) = (classes(package), classes(student));
        if known == wanted {
            continue;
        }
        let rows: Vec<_> = wanted.iter().map(|class| known.iter().position(|k| k == class)).collect();
        found.extend(from.into_iter().zip(to).map(|(layer, name)| (name, ClassRows { layer, rows: rows.clone() })));
    }
    found
}

/// Names of the layers with the class logits of the detection head, and of the segmentation head.
fn class_layers(architecture: &Architecture) -> [Vec<String>; 2] {
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let name = |output: usize| graph.layers[graph.outputs[output]].name.clone();
    let detection = architecture.detection_levels().iter().map(|level| name(level.class)).collect();
    [detection, architecture.segmentation_output().into_iter().map(name).collect()]
}

#[cfg(test)]
mod tests {
    use peregrine_student::{Student, StudentShape};

    use super::*;

    #[test]
    fn rows_of_classes_with_the_same_name_are_kept() {
        let mut package = Student::load(&peregrine_support::lite()).unwrap();
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let shape = StudentShape {
            classes: names(&["cone", "truck", "person"]),
            segmentation: names(&["floor", "road"]),
            ..StudentShape::default()
        };
        let student = shape.of_package(package.manifest.architecture.clone()).unwrap();
        let before = package.weights.clone();
        let mut params = NetParams::random(&student.graph(64, 64), 1);
        let random = params.clone();
        let heads = TakenHeads::take_from(&mut package.weights, &package.manifest.architecture, &student);
        let all = params.convs.len();
        assert_eq!(params.adopt(&package.weights), all - 4, "all but the class outputs");
        heads.put_into(&mut params);
        let of = |params: &NetParams, name: &str, row: usize, per_row: usize| {
            let conv = params.convs.iter().find(|conv| conv.name == name).unwrap();
            (conv.weight.value[row * per_row..][..per_row].to_vec(), conv.bias.value[row])
        };
        for (layer, ours, theirs) in [
            ("detect.16.class", 1, Some(4)),
            ("detect.16.class", 2, Some(0)),
            ("detect.16.class", 0, None),
            ("segment.class", 1, Some(3)),
            ("segment.class", 0, None),
        ] {
            let weights = before.of(layer);
            let per_row = weights.weight.len() / weights.bias.len();
            let expected = match theirs {
                Some(row) => (weights.weight[row * per_row..][..per_row].to_vec(), weights.bias[row]),
                None => of(&random, layer, ours, per_row),
            };
            assert_eq!(of(&params, layer, ours, per_row), expected, "{layer} {ours}");
        }
    }
}
