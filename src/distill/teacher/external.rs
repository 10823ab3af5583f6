//! The files that an ONNX network loads beside itself: tensors that are too large for it
//! (`TensorProto.external_data` of onnx.proto3).

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context;
use peregrine_core::files::sha256;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, Message)]
struct Graph {
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<Tensor>,
}

#[derive(Clone, PartialEq, Message)]
struct Tensor {
    #[prost(message, repeated, tag = "13")]
    external_data: Vec<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(string, tag = "2")]
    value: String,
}

/// SHA-256 of the network `bytes` at `path`, and of the files that it loads.
///
/// # Errors
/// When one of these cannot be read.
pub fn hash(path: &Path, bytes: &[u8]) -> anyhow::Result<String> {
    let graph = Model::decode(bytes).ok().and_then(|model| model.graph).unwrap_or_default();
    let entries = graph.initializer.into_iter().flat_map(|tensor| tensor.external_data);
    let files: BTreeSet<String> = entries.filter(|e| e.key == "location").map(|e| e.value).collect();
    let mut hashes = sha256(bytes);
    if files.is_empty() {
        return Ok(hashes);
    }
    for file in files {
        let file = path.with_file_name(file);
        hashes += &sha256(&std::fs::read(&file).with_context(|| file.display().to_string())?);
    }
    Ok(sha256(hashes.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_of_tensors_changes_the_hash() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n.onnx");
        let entry = Entry { key: "location".into(), value: "n.onnx_data".into() };
        let tensor = Tensor { external_data: vec![entry] };
        let of = |initializer| Model { graph: Some(Graph { initializer }) }.encode_to_vec();
        let with = |text: &str| {
            std::fs::write(folder.path().join("n.onnx_data"), text).unwrap();
            hash(&path, &of(vec![tensor.clone()])).unwrap()
        };
        assert_ne!(with("a"), with("b"));
        assert_eq!(with("a"), with("a"));
        assert_eq!(hash(&path, &of(vec![])).unwrap(), sha256(&of(vec![])));
    }
}
