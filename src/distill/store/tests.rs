use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{Error, ObjectStoreExt};
use tempfile::{tempdir, TempDir};

use super::explain::explain;
use super::{Put, Store};

/// Objects in memory, and a cache.
struct Scene {
    objects: Arc<InMemory>,
    cache: TempDir,
}

impl Scene {
    fn new(objects: &[(&str, &str)]) -> Self {
        let scene = Self { objects: Arc::default(), cache: tempdir().unwrap() };
        objects.iter().for_each(|(key, text)| scene.set(key, text));
        scene
    }

    fn store(&self, folder: &str) -> Store {
        Store::in_memory(&self.objects, folder, self.cache.path())
    }

    /// Writes over what is there, as other programs do.
    fn set(&self, key: &str, text: &str) {
        let key = key.into();
        futures::executor::block_on(self.objects.put(&key, text.to_owned().into())).unwrap();
    }

    fn delete(&self, key: &str) {
        futures::executor::block_on(self.objects.delete(&key.into())).unwrap();
    }
}

fn text(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

fn inode(folder: &Path, name: &str) -> u64 {
    fs::metadata(folder.join(name)).unwrap().ino()
}

/// The names of the files in a folder, but for those in its folders.
fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
    let mut names: Vec<String> = files.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_is_copied_and_only_what_has_changed_again() {
    let scene = Scene::new(&[("a/images/x", "old"), ("a/images/y", "y"), ("a/labels/x", "1"), ("ab/z", "z")]);
    let store = scene.store("a");
    let folder = store.copy("dataset.toml").unwrap();
    assert!(folder.ends_with("bucket/a"), "{}", folder.display());
    assert_eq!(files(&folder.join("images")), ["x", "y"]);
    assert_eq!((text(&folder, "images/x"), text(&folder, "labels/x")), ("old".into(), "1".into()));
    assert!(!folder.with_file_name("ab").exists());
    let before = inode(&folder, "labels/x");
    // As long as before.
    scene.set("a/images/x", "new");
    scene.delete("a/images/y");
    scene.set("a/images/z", "z");
    assert_eq!(scene.store("a").copy("dataset.toml").unwrap(), folder);
    assert_eq!(text(&folder, "images/x"), "new");
    assert_eq!(files(&folder.join("images")), ["x", "z"]);
    assert_eq!(inode(&folder, "labels/x"), before);
}

#[test]
fn the_description_in_the_folder_above_is_copied_too() {
    let scene = Scene::new(&[("set/val/images/x", "x"), ("set/dataset.toml", "name"), ("set/other", "o")]);
    let folder = scene.store("set/val").copy("dataset.toml").unwrap();
    assert_eq!(files(folder.parent().unwrap()), ["dataset.toml"]);
    scene.delete("set/dataset.toml");
    scene.store("set/val").copy("dataset.toml").unwrap();
    assert!(files(folder.parent().unwrap()).is_empty());
}

#[test]
fn a_file_is_copied_with_its_folder() {
    let scene = Scene::new(&[("set/data.yaml", "names"), ("set/images/x", "x"), ("other", "o")]);
    let file = scene.store("set/data.yaml").copy("dataset.toml").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "names");
    assert_eq!(text(file.parent().unwrap(), "images/x"), "x");
}

#[test]
fn a_copy_that_was_interrupted_goes_on() {
    let scene = Scene::new(&[("a/x", "xxxx"), ("a/y", "yyyy"), ("a/z", "zzzz")]);
    let folder = scene.store("a").copy("dataset.toml").unwrap();
    let kept = inode(&folder, "y");
    fs::write(folder.join("x"), "xx").unwrap();
    fs::write(folder.join("y.1a2b.tmp"), "yy").unwrap();
    // The note of z was cut off.
    let notes = folder.ancestors().nth(2).unwrap().join("copies.jsonl");
    let lines: Vec<String> = fs::read_to_string(&notes).unwrap().lines().map(str::to_owned).collect();
    let (of_z, others): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| line.contains("a/z"));
    fs::write(&notes, format!("{}\n{}", others.join("\n"), &of_z[0][..9])).unwrap();
    fs::write(folder.join("z"), "ZZZZ").unwrap();
    scene.store("a").copy("dataset.toml").unwrap();
    assert_eq!(files(&folder), ["x", "y", "z"]);
    assert_eq!((text(&folder, "x"), text(&folder, "z")), ("xxxx".into(), "zzzz".into()));
    assert_eq!(inode(&folder, "y"), kept);
}

#[test]
fn an_empty_object_that_stands_for_a_folder_is_no_file() {
    let scene = Scene::new(&[("a/images", ""), ("a/images/x", "x"), ("a/empty", "")]);
    let folder = scene.store("a").copy("dataset.toml").unwrap();
    assert_eq!(files(&folder), ["empty"]);
    assert_eq!(text(&folder, "images/x"), "x");
}

#[test]
fn two_that_copy_at_once_do_no_harm() {
    let names: Vec<String> = (0..50).map(|i| format!("a/{i:02}")).collect();
    let scene = Scene::new(&names.iter().map(|name| (name.as_str(), name.as_str())).collect::<Vec<_>>());
    let copy = || scene.store("a").copy("dataset.toml").unwrap();
    let folder = std::thread::scope(|threads| {
        let both = [threads.spawn(copy), threads.spawn(copy)];
        both.map(|thread| thread.join().unwrap())[0].clone()
    });
    assert_eq!(files(&folder).len(), 50);
    assert!(names.iter().all(|name| text(folder.parent().unwrap(), name) == *name));
}

#[test]
fn some_files_are_copied_and_a_missing_one_is_named() {
    let scene = Scene::new(&[("soft/a", "a"), ("soft/b", "b"), ("soft/c", "c")]);
    let folder = scene.store("soft").copy_files(&["a", "c"]).unwrap();
    assert_eq!(files(&folder), ["a", "c"]);
    let error = scene.store("soft").copy_files(&["a", "d"]).unwrap_err().to_string();
    assert!(error.starts_with("s3://bucket/soft/d: is missing"), "{error}");
    let error = scene.store("sof").copy("dataset.toml").unwrap_err().to_string();
    assert!(error.starts_with("s3://bucket/sof: there is nothing"), "{error}");
}

#[test]
fn what_is_there_is_not_written_over() {
    let scene = Scene::new(&[]);
    let store = scene.store("soft");
    assert_eq!(store.get("x").unwrap(), None);
    assert_eq!(store.put("x", b"first".to_vec()).unwrap(), Put::New);
    assert_eq!(store.put("x", b"first".to_vec()).unwrap(), Put::Same);
    assert_eq!(store.put("x", b"other".to_vec()).unwrap(), Put::Other);
    assert_eq!(store.get("x").unwrap().unwrap(), b"first");
    assert_eq!(store.names().unwrap(), ["x"]);
}

#[test]
fn of_workers_that_put_at_once_one_is_first() {
    let scene = Scene::new(&[]);
    let put = |text: &'static str| scene.store("soft").put("x", text.into()).unwrap();
    let puts = std::thread::scope(|threads| {
        let workers: Vec<_> = ["a", "b", "a", "b"].map(|text| threads.spawn(move || put(text))).into();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let count = |which: Put| puts.iter().filter(|put| **put == which).count();
    assert_eq!((count(Put::New), count(Put::Same), count(Put::Other)), (1, 1, 2));
}

#[test]
fn a_folder_of_the_file_system_is_a_store_too() {
    let (shared, cache) = (tempdir().unwrap(), tempdir().unwrap());
    let folder = shared.path().join("soft");
    fs::create_dir(&folder).unwrap();
    let open = || {
        let key = object_store::path::Path::from_absolute_path(&folder).unwrap();
        let address = format!("file://{}/", folder.display());
        Store::of(&address, Box::new(LocalFileSystem::new()), key, "", cache.path()).unwrap()
    };
    assert_eq!(open().put("x", b"1".to_vec()).unwrap(), Put::New);
    assert_eq!(open().put("x", b"2".to_vec()).unwrap(), Put::Other);
    assert_eq!(text(&folder, "x"), "1");
    fs::write(folder.join("y"), "y").unwrap();
    assert_eq!(files(&open().copy("dataset.toml").unwrap()), ["x", "y"]);
}

#[test]
fn copies_of_two_stores_and_work_on_two_folders_are_apart() {
    let scene = Scene::new(&[]);
    let of = |address: &str, endpoint: &str| {
        let key = address.strip_prefix("s3://bucket/").unwrap();
        Store::of(address, Box::new(InMemory::new()), key.into(), endpoint, scene.cache.path()).unwrap()
    };
    let (a, b) = (of("s3://bucket/a", "http://one"), of("s3://bucket/b", "http://one"));
    let other = of("s3://bucket/a", "http://two");
    assert_ne!(a.work_folder(), b.work_folder());
    assert_ne!(a.work_folder(), other.work_folder());
    assert_eq!(of("s3://bucket/a/", "http://one").work_folder(), a.work_folder());
}

#[test]
fn errors_say_what_can_be_done() {
    let said = |error: Error| explain("s3://bucket/a", &error).to_string();
    let generic = |text: &str| Error::Generic { store: "S3", source: text.to_owned().into() };
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    for (error, words) in [
        (generic("PUT http://169.254.169.254/latest/api/token: connect error"), "no credentials"),
        (
            generic("404 Not Found: <Error><Code>NoSuchBucket</Code><Message>It is not there.</Message></Error>"),
            "no such bucket",
        ),
        (generic("507 Insufficient Storage: "), "full"),
        (Error::Generic { store: "LocalFileSystem", source: Box::new(full) }, "full"),
        (generic("403 Forbidden: "), "AWS_SECRET_ACCESS_KEY"),
        (generic("tcp connect error: Connection refused"), "cannot be reached"),
        (generic("500 Internal Server Error, after 10 retries, retry_timeout: 180s"), "if it is full"),
        (generic("something else"), "something else"),
    ] {
        let said = said(error);
        assert!(said.starts_with("s3://bucket/a: ") && said.contains(words) && !said.contains('\n'), "{said}");
    }
    assert!(said(generic("<Code>Odd</Code><Message>Odd thing.</Message>")).ends_with("Odd: Odd thing"));
}
