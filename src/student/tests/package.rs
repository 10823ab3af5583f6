//! What a damaged or mistaken student package costs: one clear error that names the file.

use std::fs;
use std::path::Path;

use peregrine_core::files::write_atomically;
use peregrine_student::Student;

fn copy_of_the_embedded_student() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    Student::load(&peregrine_support::lite()).unwrap().save(folder.path()).unwrap();
    folder
}

fn edit_manifest(folder: &Path, from: &str, to: &str) {
    let path = folder.join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{from} is not in the manifest");
    fs::write(path, text.replacen(from, to, 1)).unwrap();
}

fn error(folder: &Path) -> String {
    Student::load(folder).unwrap_err().to_string()
}

#[test]
fn a_package_survives_the_disk() {
    let folder = copy_of_the_embedded_student();
    let (embedded, loaded) =
        (Student::load(&peregrine_support::lite()).unwrap(), Student::load(folder.path()).unwrap());
    assert_eq!(embedded.weights, loaded.weights);
    assert_eq!(embedded.manifest.architecture, loaded.manifest.architecture);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "no temporary file is left: {names:?}");
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_told_with_what_to_do() {
    let error = write_atomically(Path::new("/dev/full"), b"report").unwrap_err().to_string();
    assert!(error.contains("/dev/full") && error.contains("make room there"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let folder = copy_of_the_embedded_student();
    fs::remove_file(folder.path().join("weights.safetensors")).unwrap();
    assert!(error(folder.path()).contains("weights.safetensors"));
    assert!(error(Path::new("/nowhere")).contains("/nowhere/manifest.json"));
}

#[test]
fn changed_weights_are_refused_by_their_hash() {
    let folder = copy_of_the_embedded_student();
    let path = folder.path().join("weights.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let error = error(folder.path());
    assert!(error.contains("SHA-256") && error.contains("weights.safetensors"), "{error}");
}

#[test]
fn weights_of_another_architecture_are_refused_by_layer() {
    let folder = copy_of_the_embedded_student();
    edit_manifest(folder.path(), "\"stem\": 32", "\"stem\": 24");
    assert!(error(folder.path()).contains("backbone.stem"), "{}", error(folder.path()));
}

#[test]
fn a_manifest_is_refused_by_field() {
    for (from, to, named) in [
        ("\"width\": 320", "\"width\": 321", "input.width"),
        ("\"format_version\": 1", "\"format_version\": 99", "format_version"),
        ("\"file\": \"weights.safetensors\"", "\"file\": \"../weights.safetensors\"", "weights.file"),
        ("\"neck\"", "\"nack\"", "nack"),
    ] {
        let folder = copy_of_the_embedded_student();
        edit_manifest(folder.path(), from, to);
        let error = error(folder.path());
        assert!(error.contains(named) && error.contains("manifest.json"), "{to}: {error}");
    }
}

/// A rename over `/dev/null`, done as root, once left a plain file in its place, and every later
/// build of the machine read in it what other programs had thrown away.
#[test]
#[cfg(unix)]
fn what_is_no_plain_file_is_written_to_and_not_replaced() {
    use std::os::unix::fs::FileTypeExt;

    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = {
        let pipe = pipe.clone();
        std::thread::spawn(move || fs::read(pipe).unwrap())
    };
    write_atomically(&pipe, b"report").unwrap();
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(reader.join().unwrap(), b"report");
}

#[test]
#[cfg(unix)]
fn a_link_goes_on_pointing_at_the_file_that_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    fs::write(&file, b"before").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    write_atomically(&link, b"after").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&file).unwrap(), b"after");
}

/// A package at `packages/good` beside another at `secret`, in a folder of its own.
#[cfg(unix)]
fn root_and_secret() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["packages/good", "secret"] {
        Student::load(&peregrine_support::lite()).unwrap().save(&folder.path().join(name)).unwrap();
    }
    folder
}

#[test]
#[cfg(unix)]
fn a_package_is_loaded_from_below_the_root_alone() {
    use std::os::unix::fs::symlink;
    let folder = root_and_secret();
    let at = |name: &str| folder.path().join(name);
    let root = at("packages");
    symlink("../secret", at("packages/folder_out")).unwrap();
    symlink("good", at("packages/folder_in")).unwrap();
    fs::create_dir(at("packages/file_out")).unwrap();
    fs::copy(at("secret/manifest.json"), at("packages/file_out/manifest.json")).unwrap();
    symlink(at("secret/weights.safetensors"), at("packages/file_out/weights.safetensors")).unwrap();
    symlink(&root, at("link_to_root")).unwrap();

    for inside in ["packages/good", "packages/folder_in", "packages/folder_in/../good", "link_to_root/good"] {
        for root in [root.clone(), at("link_to_root")] {
            Student::load_within(&at(inside), Some(&root)).unwrap_or_else(|e| panic!("{inside}: {e}"));
        }
    }
    for outside in
        ["secret", "packages/../secret", "packages/folder_out", "packages/file_out", "packages/good/../../secret"]
    {
        let refused = Student::load_within(&at(outside), Some(&root)).unwrap_err().to_string();
        assert!(refused.contains("which is outside") && refused.contains(outside), "{outside}: {refused}");
        Student::load(&at(outside)).unwrap();
    }
    let nowhere = Student::load_within(&at("packages/good"), Some(&at("nowhere"))).unwrap_err().to_string();
    assert!(nowhere.contains("nowhere"), "{nowhere}");
}

#[test]
#[cfg(unix)]
fn what_has_no_end_is_refused_before_it_is_read() {
    use std::os::unix::fs::symlink;
    for file in ["manifest.json", "weights.safetensors"] {
        let folder = copy_of_the_embedded_student();
        let path = folder.path().join(file);
        fs::remove_file(&path).unwrap();
        symlink("/dev/zero", &path).unwrap();
        assert!(error(folder.path()).ends_with("it is not a plain file"), "{}", error(folder.path()));
        fs::remove_file(&path).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        assert!(error(folder.path()).ends_with("it is not a plain file"), "{}", error(folder.path()));
        fs::remove_file(&path).unwrap();
        // Of a length that no memory holds.
        fs::File::create(&path).unwrap().set_len(1 << 42).unwrap();
        assert!(error(folder.path()).contains("bytes that are read of such a file"), "{}", error(folder.path()));
    }
}

#[test]
fn a_manifest_that_asks_for_gigabytes_of_weights_is_refused() {
    let folder = copy_of_the_embedded_student();
    edit_manifest(folder.path(), "\"channels\": 64", "\"channels\": 2048");
    edit_manifest(folder.path(), "\"channels\": 192", "\"channels\": 2048");
    edit_manifest(folder.path(), "\"channels\": 112", "\"channels\": 2048");
    edit_manifest(folder.path(), "\"channels\": 80", "\"channels\": 2048");
    edit_manifest(folder.path(), "\"blocks\": 3", "\"blocks\": 64");
    assert!(error(folder.path()).contains("weights; at most 268435456 are possible"), "{}", error(folder.path()));
}
