//! Commands that write packages and soft targets, killed at several moments: the files that they
//! leave are whole, and started again they end with the result of an uninterrupted run. (The same
//! for a training is in `student.rs`.)

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;

use peregrine_distill::text::network::TextNetwork;
use peregrine_student::Student;

/// When a run is killed, as fractions of the time that an uninterrupted one takes.
const MOMENTS: [f64; 3] = [0.2, 0.5, 0.8];

/// Two data sets of two frames with a box each, and the embedded student at a small size as
/// `model`.
fn project(folder: &Path) {
    let mut student = Student::load(&peregrine_support::lite()).unwrap();
    (student.manifest.architecture.input.width, student.manifest.architecture.input.height) = (96, 64);
    student.save(&folder.join("model")).unwrap();
    let frames = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    for (split, stems) in [("train", ["highway-00", "street-20"]), ("val", ["highway-12", "street-26"])] {
        let data = folder.join(split);
        fs::create_dir_all(data.join("images")).unwrap();
        fs::create_dir_all(data.join("labels")).unwrap();
        fs::write(data.join("dataset.toml"), "name = 'tiny'\nclasses = ['car']\n").unwrap();
        for stem in stems {
            fs::copy(frames.join(format!("{stem}.jpg")), data.join(format!("images/{stem}.jpg"))).unwrap();
            fs::write(data.join(format!("labels/{stem}.txt")), "0 0.5 0.5 0.4 0.4").unwrap();
        }
    }
}

/// Runs `distill` with `arguments` uninterrupted, with `OUT` as `whole`; then with `OUT` as `killed`,
/// killed at each of the moments, and at last to its end. `check` is called on the folder after each
/// kill.
fn run_whole_and_killed(folder: &Path, arguments: &str, check: impl Fn(&Path)) {
    let command = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(folder).args(arguments.replace("OUT", out).split(' '));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let begun = Instant::now();
    assert!(command("whole").status().unwrap().success(), "{arguments}");
    let time = begun.elapsed();
    for moment in MOMENTS {
        let mut child = command("killed").spawn().unwrap();
        sleep(time.mul_f64(moment));
        child.kill().unwrap();
        child.wait().unwrap();
        check(&folder.join("killed"));
    }
    assert!(command("killed").status().unwrap().success(), "{arguments}");
}

fn assert_equal(folder: &Path, files: &[&str]) {
    let read = |out: &str, file: &str| fs::read(folder.join(out).join(file)).unwrap();
    for file in files {
        assert!(read("whole", file) == read("killed", file), "{file} differs");
    }
}

/// A package with a manifest can be loaded.
fn is_whole_or_not_there(package: &Path) {
    if package.join("manifest.json").exists() {
        Student::load(package).unwrap();
    }
}

#[test]
fn soft_targets_are_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    run_whole_and_killed(folder.path(), "soften train val --teacher model --feature neck.32 --out OUT", |out| {
        if out.join("index.json").exists() {
            peregrine_distill::soften::SoftTargets::open(out).unwrap();
        }
    });
    let files = ["index.json", "tiny-train-0000.safetensors", "tiny-val-0000.safetensors"];
    assert_equal(folder.path(), &files);
}

#[test]
fn soft_targets_grow_however_often_their_making_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    let many = folder.path().join("many/images");
    fs::create_dir_all(&many).unwrap();
    fs::copy(folder.path().join("train/dataset.toml"), folder.path().join("many/dataset.toml")).unwrap();
    for i in 0..100 {
        fs::copy(folder.path().join("train/images/street-20.jpg"), many.join(format!("{i:03}.jpg"))).unwrap();
    }
    let command = |out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
        command.current_dir(folder.path()).args(["soften", "many", "--teacher", "model", "--out", out]);
        command.args(["--feature", "neck.32"]).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let begun = Instant::now();
    assert!(command("whole").status().unwrap().success());
    let whole = begun.elapsed();
    let kept = || {
        let text = fs::read(folder.path().join("killed/partial/index.json")).ok()?;
        let index: serde_json::Value = serde_json::from_slice(&text).unwrap();
        Some(index["shards"][0]["images"].as_array().unwrap().len())
    };
    // Each run has much less than the time for all images, and the kills come at any moment.
    let (mut done, mut kills) = (0, 0);
    while done < 60 && !folder.path().join("killed/index.json").exists() {
        let mut child = command("killed").spawn().unwrap();
        sleep(whole.mul_f64(0.2 + 0.05 * f64::from(kills % 7)));
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let all_done = folder.path().join("killed/index.json").exists();
        let now = if all_done { 100 } else { kept().unwrap_or(0) };
        assert!(now >= done, "{now} images after {done}");
        done = now;
        assert!(kills < 100, "{done} of 100 images after {kills} runs");
    }
    assert!(command("killed").status().unwrap().success());
    assert_equal(folder.path(), &["index.json", "tiny-many-0000.safetensors"]);
    assert!(!folder.path().join("killed/partial").exists());
}

#[test]
fn an_imported_data_set_is_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    let many = folder.path().join("many");
    for part in ["images", "labels"] {
        fs::create_dir_all(many.join(part)).unwrap();
    }
    fs::copy(folder.path().join("train/dataset.toml"), many.join("dataset.toml")).unwrap();
    let frame = fs::read(folder.path().join("train/images/street-20.jpg")).unwrap();
    for i in 0..300 {
        fs::write(many.join(format!("images/{i:03}.jpg")), &frame).unwrap();
        fs::write(many.join(format!("labels/{i:03}.txt")), format!("0 0.5 0.5 0.4 0.{:03}\n", i + 1)).unwrap();
    }
    let names = |out: &Path, part: &str| -> Vec<String> {
        let Ok(entries) = fs::read_dir(out.join(part)) else { return Vec::new() };
        let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        names
    };
    run_whole_and_killed(folder.path(), "import many --out OUT", |out| {
        for name in names(out, "images") {
            assert!(fs::read(out.join("images").join(&name)).unwrap() == frame, "{name} is not whole");
        }
        for name in names(out, "labels") {
            let text = fs::read_to_string(out.join("labels").join(&name)).unwrap();
            assert!(text.ends_with('\n') && text.split(' ').count() == 5, "{name} is not whole: {text}");
        }
    });
    let [whole, killed] = ["whole", "killed"].map(|out| folder.path().join(out));
    for part in ["images", "labels"] {
        assert_eq!(names(&whole, part).len(), 300);
        assert_eq!(names(&whole, part), names(&killed, part));
        let files: Vec<String> = names(&whole, part).iter().map(|name| format!("{part}/{name}")).collect();
        assert_equal(folder.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert_equal(folder.path(), &["dataset.toml", "left-out.txt"]);
}

#[test]
fn a_pruned_student_is_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    let arguments = "prune --model model --data train --keep 0.7 --images 4 --out OUT";
    run_whole_and_killed(folder.path(), arguments, is_whole_or_not_there);
    assert_equal(folder.path(), &["weights.safetensors", "manifest.json"]);
}

/// A WordPiece tokenizer that knows the words of the sentences in `text`.
fn tokenizer(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words: std::collections::BTreeSet<String> = words.map(str::to_lowercase).collect();
    let marks = ["[UNK]", "[CLS]", "[SEP]"].map(str::to_owned);
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        marks.into_iter().chain(words).zip(0..).map(|(word, id)| (word, id.into())).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] },
        "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocabulary },
    });
    json.to_string()
}

#[test]
fn a_language_student_is_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/commands");
    for file in ["commands.toml", "train.txt", "val.txt"] {
        fs::copy(commands.join(file), folder.path().join(file)).unwrap();
    }
    let text = fs::read_to_string(commands.join("train.txt")).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer(&text)).unwrap();
    let arguments = "text student commands.toml --tokenizer tokenizer.json --steps 450 --width 16 --out OUT";
    run_whole_and_killed(folder.path(), arguments, |package| {
        if package.join("manifest.json").exists() {
            TextNetwork::load(package).unwrap();
        }
    });
    assert_equal(folder.path(), &["manifest.json", "tokenizer.json", "weights.safetensors"]);
    assert!(!folder.path().join("killed/checkpoint.safetensors").exists());
}

/// The first pairs of the shipped corpus of replies, and commands without one.
fn replies(folder: &Path) {
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/commands");
    fs::copy(commands.join("replies.toml"), folder.join("replies.toml")).unwrap();
    for file in ["replies-train.tsv", "replies-val.tsv"] {
        let text = fs::read_to_string(commands.join(file)).unwrap();
        let first: Vec<&str> = text.lines().take(32).collect();
        fs::write(folder.join(file), first.join("\n")).unwrap();
    }
    let more: String = (0..150).map(|i| format!("stop at gate {i}\n")).collect();
    fs::write(folder.join("more.txt"), more).unwrap();
}

const REPLY_TEACHER: &str = "text teacher replies.toml --steps 60 --width 16 --layers 1 --heads 2 --out";

#[test]
fn a_teacher_of_replies_is_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    replies(folder.path());
    run_whole_and_killed(folder.path(), &format!("{REPLY_TEACHER} OUT"), |package| {
        if package.join("language-model.json").exists() {
            peregrine_distill::text::causal::package::load(package).unwrap();
        }
    });
    assert_equal(folder.path(), &["language-model.json", "tokenizer.json", "weights.safetensors"]);
    assert!(!folder.path().join("killed/checkpoint.safetensors").exists());
}

#[test]
fn soft_targets_of_replies_are_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    replies(folder.path());
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.current_dir(folder.path()).args(REPLY_TEACHER.split(' ')).arg("teacher").stdout(Stdio::null());
    assert!(command.status().unwrap().success());
    let arguments = "text soften replies.toml --teacher teacher --unlabelled more.txt --out OUT";
    run_whole_and_killed(folder.path(), arguments, |out| {
        if out.join("index.json").exists() {
            peregrine_distill::text::causal::soft::VocabularySoftTargets::open(out).unwrap();
        }
    });
    let index = fs::read_to_string(folder.path().join("whole/index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let shards = index["shards"].as_array().unwrap().iter().map(|shard| shard["file"].as_str().unwrap());
    let files: Vec<&str> = shards.chain(["index.json", "tokenizer.json"]).collect();
    assert!(files.len() >= 5, "{files:?}");
    assert_equal(folder.path(), &files);
}

/// A network with a BERT's inputs and output: a vector for each of its `vocabulary` word pieces.
fn encoder(vocabulary: usize) -> Vec<u8> {
    use peregrine_distill::export::messages::{
        Dimension, GraphBody, Model, Node, OperatorSet, Tensor, TensorShape, TensorType, Type, Value, FLOAT, INT64,
    };
    const HIDDEN: usize = 16;
    let value = |name: &str, elem_type, last: Option<usize>| {
        let any = |name: &str| Dimension { dim_value: None, dim_param: Some(name.into()) };
        let last = last.map(|n| Dimension { dim_value: Some(n as i64), dim_param: None });
        let shape = Some(TensorShape { dim: [any("batch"), any("pieces")].into_iter().chain(last).collect() });
        let r#type = Some(Type { tensor_type: Some(TensorType { elem_type, shape }) });
        Value { name: name.into(), r#type, doc_string: String::new() }
    };
    let vectors: Vec<f32> = (0..vocabulary * HIDDEN).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
    let graph = GraphBody {
        node: vec![Node::new("Gather", &["vectors", "input_ids"], "hidden")],
        name: "encoder".into(),
        initializer: vec![Tensor::f32("vectors", &[vocabulary, HIDDEN], &vectors)],
        input: ["input_ids", "attention_mask", "token_type_ids"].map(|name| value(name, INT64, None)).to_vec(),
        output: vec![value("hidden", FLOAT, Some(HIDDEN))],
    };
    let opset_import = vec![OperatorSet { domain: Some(String::new()), version: 17 }];
    prost::Message::encode_to_vec(&Model { ir_version: 8, graph: Some(graph), opset_import, ..Model::default() })
}

#[test]
fn a_bert_like_teacher_and_its_soft_targets_are_the_same_after_kills() {
    if std::env::var_os("ORT_DYLIB_PATH").is_none_or(|path| !Path::new(&path).is_file()) {
        return peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
    }
    let folder = tempfile::tempdir().unwrap();
    let commands = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/commands");
    for file in ["commands.toml", "train.txt", "val.txt"] {
        fs::copy(commands.join(file), folder.path().join(file)).unwrap();
    }
    let text = fs::read_to_string(commands.join("train.txt")).unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer(&text)).unwrap();
    fs::write(folder.path().join("encoder.onnx"), encoder(600)).unwrap();
    let more: String = (0..500).map(|i| format!("please stop at the gate {i}\n")).collect();
    fs::write(folder.path().join("more.txt"), more).unwrap();
    let arguments = "text teacher commands.toml --encoder encoder.onnx --tokenizer tokenizer.json --out OUT";
    run_whole_and_killed(folder.path(), arguments, |_| {});
    assert_equal(folder.path(), &["teacher.json", "heads.safetensors"]);
    assert!(!folder.path().join("killed/parts").exists());
    fs::rename(folder.path().join("killed"), folder.path().join("teacher")).unwrap();
    let arguments = "text soften commands.toml --teacher teacher --unlabelled more.txt --out OUT/soft.safetensors";
    fs::create_dir(folder.path().join("killed")).unwrap();
    run_whole_and_killed(folder.path(), arguments, |out| {
        let file = out.join("soft.safetensors");
        if file.exists() {
            peregrine_distill::text::soft::TextSoftTargets::read(&file).unwrap();
        }
    });
    assert_equal(folder.path(), &["soft.safetensors"]);
    assert!(!folder.path().join("killed/soft.safetensors.parts").exists());
}

#[test]
fn a_quantized_student_is_the_same_after_kills() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path());
    let arguments = "quantize --model model --data train --evaluate val --max-drop 100 --out OUT";
    run_whole_and_killed(folder.path(), arguments, is_whole_or_not_there);
    assert_equal(folder.path(), &["weights.safetensors"]);
}
