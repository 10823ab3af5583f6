//! The class outputs of a package whose student gets other classes: rows of classes of the same
//! name are kept, the others are made anew.

use std::collections::BTreeMap;

use peregrine_engine::{ConvWeights, Weights};
use peregrine_student::{scene, Architecture};

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
    let ours = class_layers(student);
    for (head, (from, known)) in class_layers(package) {
        let Some((to, wanted)) = ours.get(&head).filter(|(_, wanted)| *wanted != known) else { continue };
        let rows: Vec<_> = wanted.iter().map(|class| known.iter().position(|k| k == class)).collect();
        let layers = from.into_iter().zip(to);
        found.extend(layers.map(|(layer, name)| (name.clone(), ClassRows { layer, rows: rows.clone() })));
    }
    found
}

/// By head (a group of scenes is one), the layers with its class logits, and its classes.
fn class_layers(architecture: &Architecture) -> BTreeMap<String, (Vec<String>, Vec<String>)> {
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let name = |output: usize| graph.layers[graph.outputs[output]].name.clone();
    let detection = architecture.detection_levels().iter().map(|level| name(level.class)).collect();
    let segmentation = architecture.segmentation_output().into_iter().map(name).collect();
    let mut heads = BTreeMap::from([
        ("detection".to_owned(), (detection, architecture.detection_classes().to_vec())),
        ("segmentation".to_owned(), (segmentation, architecture.segmentation_classes().to_vec())),
    ]);
    for (group, classes) in architecture.scene.iter().flat_map(|head| head.groups()) {
        heads.insert(format!("scene {group}"), (vec![scene::layer_of(group)], classes.to_vec()));
    }
    heads
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
