//! `distill ablate` as a program, on three sample frames: runs are trained once, compared, and
//! kept.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

fn ablate(config: &Path, out: &Path, extra: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.arg("ablate").arg(config).arg("--out").arg(out).args(["--threads", "1", "--jobs", "2"]).args(extra);
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A table of two rows and two seeds: labels alone, and two methods with the embedded student as
/// teacher.
fn project(folder: &Path) -> std::path::PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (images, labels) = (folder.join("data/images"), folder.join("data/labels"));
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&labels).unwrap();
    for name in ["highway-00", "street-20", "yard-82"] {
        fs::copy(root.join(format!("models/frames/{name}.jpg")), images.join(format!("{name}.jpg"))).unwrap();
        fs::write(labels.join(format!("{name}.txt")), "0 0.5 0.5 0.4 0.4").unwrap();
    }
    fs::write(folder.join("data/dataset.toml"), "name = 'tiny'\nclasses = ['car']").unwrap();
    let data = folder.join("data").display().to_string();
    let teacher = peregrine_support::lite().display().to_string();
    let text = format!(
        "title = 'Tiny'\nseeds = [1, 2]\nreference = 'alone'\nevaluate = ['{data}']\n\
         [base]\ninput = [64, 64]\nsteps = 3\nbatch = 2\nwarmup = 1\n\
         [[base.data]]\nfolder = '{data}'\nshare = 1.0\n\
         [[row]]\nname = 'alone'\n\
         [[row]]\nname = 'taught'\nset.teacher.package = '{teacher}'\n\
         [[row.set.method]]\nkind = 'kd'\non = 'segmentation'\nweight = {{ from = 1.0, to = 0.5 }}\n\
         [[row.set.method]]\nkind = 'cross'\n"
    );
    let config = folder.join("ablation.toml");
    fs::write(&config, text).unwrap();
    config
}

#[test]
fn a_finished_run_is_not_trained_again() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path());
    let out = folder.path().join("out");
    let output = ablate(&config, &out, &["--row", "alone"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("| taught | – | – | – | 0 of 2 |"), "{}", said(&output));

    let output = ablate(&config, &out, &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("2 of 4 runs are already finished"), "{}", said(&output));
    let table: serde_json::Value = serde_json::from_slice(&fs::read(out.join("ablation.json")).unwrap()).unwrap();
    let metric = table["metrics"].as_array().unwrap().iter().position(|m| m == "tiny/data AP50").unwrap();
    for row in table["rows"].as_array().unwrap() {
        assert_eq!(row["figures"][metric]["value"]["n"], 2, "{row}");
        assert!(row["latency_ms"].as_f64().unwrap() > 0.0);
    }
    for file in ["ABLATION.md", "ablation.html", "runs/taught/2/origin.json", "runs/taught/2/curves.svg"] {
        assert!(out.join(file).exists(), "{file}");
    }
    let log = fs::read_to_string(out.join("runs/taught/1/log.jsonl")).unwrap();
    assert!(log.contains("\"methods\":["), "{log}");

    let before = fs::metadata(out.join("runs/taught/2/student/weights.safetensors")).unwrap().modified().unwrap();
    let output = ablate(&config, &out, &[]);
    assert!(said(&output).contains("4 of 4 runs are already finished"), "{}", said(&output));
    let after = fs::metadata(out.join("runs/taught/2/student/weights.safetensors")).unwrap().modified().unwrap();
    assert_eq!(before, after, "a finished run is not trained again");
}

#[test]
fn a_row_is_made_again_once_its_command_or_origin_has_changed() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path());
    let text = fs::read_to_string(&config).unwrap().replace("seeds = [1, 2]", "seeds = [1]");
    let row = "[[row]]\nname = 'small'\nderive = { from = 'alone', command = ['cluster', '--model', '{student}', \
               '--bits', '6', '--out', '{out}'] }\n\
               [[row]]\nname = 'tuned'\nset = { init = '{alone}', seed = 1, steps = 2 }\n";
    let out = folder.path().join("out");
    let made = |text: String| {
        fs::write(&config, text).unwrap();
        let output = ablate(&config, &out, &["--row", "alone", "--row", "tuned"]);
        assert!(output.status.success(), "{}", said(&output));
        let tuned = fs::read_to_string(out.join("runs/tuned/1/student/manifest.json")).unwrap();
        let manifest = fs::read(out.join("runs/small/1/student/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let written = fs::metadata(out.join("runs/small/1/student/weights.safetensors")).unwrap().modified().unwrap();
        (manifest["weights"]["shared_bits"].clone(), manifest["weights"]["sha256"].clone(), written, tuned)
    };
    let first = made(format!("{text}{row}"));
    assert_eq!(made(format!("{text}{row}")), first, "nothing has changed");
    let coarse = made(format!("{text}{row}").replace("'6'", "'4'"));
    assert_eq!((first.0, &coarse.0), (6.into(), &serde_json::json!(4)));
    assert_eq!(first.3, coarse.3, "the training's origin is the same");
    // Another training, so another origin.
    fs::remove_dir_all(out.join("runs/alone/1")).unwrap();
    let another = made(format!("{text}{row}").replace("'6'", "'4'").replace("steps = 3", "steps = 4"));
    assert!(another.0 == coarse.0 && another.1 != coarse.1 && another.3 != coarse.3, "{another:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn trainings_die_with_the_table_and_a_second_table_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("steps = 3", "steps = 100000").replace("seeds = [1, 2]", "seeds = [1]")).unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    command.arg("ablate").arg(&config).arg("--out").arg(&out).args(["--threads", "1", "--row", "alone"]);
    let mut first = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lock = out.join("runs/alone/1/.lock");
    // Another training could take the run's folder.
    let is_free = || fs::File::open(&lock).unwrap().try_lock().is_ok();
    let wait = |what: &str, until: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !until() {
            assert!(begun.elapsed().as_secs() < 60, "{what}");
            sleep(Duration::from_millis(20));
        }
    };
    wait("the training begins", &|| lock.exists() && !is_free());
    let second = ablate(&config, &out, &[]);
    assert!(!second.status.success() && said(&second).contains("another `distill ablate`"), "{}", said(&second));
    first.kill().unwrap();
    first.wait().unwrap();
    wait("the training ends with it", &is_free);
}

#[test]
fn a_failed_run_is_named_and_the_others_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let config = project(folder.path());
    let text = fs::read_to_string(&config).unwrap();
    fs::write(
        &config,
        text.replace("seeds = [1, 2]", "seeds = [1]") + "[[row]]\nname = 'lost'\nset.init = '/nowhere'\n",
    )
    .unwrap();
    let out = folder.path().join("out");
    let output = ablate(&config, &out, &["--row", "alone", "--row", "lost"]);
    assert!(!output.status.success());
    assert!(said(&output).contains("lost/1") && said(&output).contains("/nowhere"), "{}", said(&output));
    let markdown = fs::read_to_string(out.join("ABLATION.md")).unwrap();
    assert!(markdown.contains("0 of 1, 1 failed") && markdown.contains("| alone |"), "{markdown}");
}
