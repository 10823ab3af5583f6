//! Soft targets in an object store.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::ObjectStoreExt;
use peregrine_core::files::sha256;
use peregrine_core::BoundingBox;
use tempfile::{tempdir, TempDir};

use super::index::{Index, Shard, Share};
use super::merge::join;
use super::output::Output;
use super::part::Part;
use super::place::Place;
use super::shard::ImageSoftTargets;
use super::targets::SoftTargets;
use crate::data::scene::SceneLabels;
use crate::data::Sample;
use crate::store::Store;
use crate::teacher::SoftTarget;

/// A bucket, and the images of a data set of two shards.
struct Scene {
    objects: Arc<InMemory>,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let data = tempdir().unwrap();
        ["a", "b"].iter().for_each(|name| fs::write(data.path().join(name), name).unwrap());
        Self { objects: Arc::default(), data }
    }

    fn place(&self, folder: &str, machine: &TempDir) -> Place {
        Place::Store(Store::in_memory(&self.objects, folder, machine.path()))
    }

    fn sample(&self, name: &str) -> Sample {
        Sample {
            name: name.into(),
            image: self.data.path().join(name),
            size: (1, 1),
            boxes: None,
            ignore: Vec::new(),
            mask: None,
            scene: SceneLabels::default(),
        }
    }

    /// The shard of one image, without soft targets.
    fn shard(&self, name: &str) -> Shard {
        let hashes = vec![sha256(&fs::read(self.data.path().join(name)).unwrap())];
        let images = vec![name.to_owned()];
        Shard { file: file(name), dataset: "d".into(), folder: "/d".into(), images, hashes, ..Shard::default() }
    }

    /// Makes the shards of `names` as a worker does, unless they are there already; returns which it
    /// made.
    fn work(&self, output: &mut Output, names: &[&str]) -> anyhow::Result<Vec<String>> {
        let mut made = Vec::new();
        for name in names {
            output.learn_of(&file(name))?;
            if output.find("d", &[self.sample(name)]).is_some() {
                continue;
            }
            output.refuse_to_overwrite(&file(name), "/d", "d")?;
            output.write(self.shard(name), &[soft_targets(1.0)])?;
            made.push((*name).to_owned());
        }
        Ok(made)
    }

    fn objects(&self, folder: &str) -> Vec<String> {
        let mut names = Store::in_memory(&self.objects, folder, Path::new("/none")).names().unwrap();
        names.sort();
        names
    }
}

fn file(name: &str) -> String {
    format!("d-{name}.safetensors")
}

fn soft_targets(logit: f32) -> ImageSoftTargets {
    let boxes = vec![SoftTarget { bbox: BoundingBox::new(0.0, 0.0, 1.0, 1.0), logits: vec![logit] }];
    ImageSoftTargets { boxes, ..ImageSoftTargets::default() }
}

fn index(teacher: &str, part: Option<(usize, usize)>) -> Index {
    let share =
        |(index, of)| Share { part: Part { index, of }, datasets: vec!["d".into()], shards: 2, complete: false };
    Index {
        teachers: vec![(teacher.into(), "hash".into())],
        classes: vec!["car".into()],
        known: None,
        segmentation: None,
        scene: None,
        features: vec![],
        flip: false,
        share: part.map(share),
        shards: vec![],
    }
}

fn refused<T>(result: anyhow::Result<T>, words: &[&str]) {
    let error = format!("{:#}", result.err().expect("it is refused"));
    assert!(words.iter().all(|word| error.contains(word)), "{error}");
}

#[test]
fn a_worker_on_another_machine_goes_on_from_what_the_store_has() {
    let scene = Scene::new();
    let [first, second] = [tempdir().unwrap(), tempdir().unwrap()];
    let mut killed = Output::open(scene.place("soft", &first), index("t", None)).unwrap();
    assert_eq!(scene.work(&mut killed, &["a"]).unwrap(), ["a"]);
    drop(killed);
    assert_eq!(scene.objects("soft"), ["d-a.safetensors", "d-a.safetensors.json"]);
    refused(scene.place("soft", &second).index(), &["s3://bucket/soft", "not finished"]);

    let mut output = Output::open(scene.place("soft", &second), index("t", None)).unwrap();
    assert_eq!(scene.work(&mut output, &["a", "b"]).unwrap(), ["b"]);
    output.complete().unwrap();
    let found = scene.place("soft", &first).index().unwrap();
    assert_eq!(found.shards.iter().map(|shard| shard.file.as_str()).collect::<Vec<_>>(), [file("a"), file("b")]);

    // Finished: nothing is made again, and nothing can be added.
    let mut again = Output::open(scene.place("soft", &first), index("t", None)).unwrap();
    assert!(scene.work(&mut again, &["a", "b"]).unwrap().is_empty());
    again.complete().unwrap();
    fs::write(scene.data.path().join("c"), "c").unwrap();
    refused(scene.work(&mut again, &["c"]), &["s3://bucket/soft", "give another --out"]);
}

#[test]
fn two_workers_on_the_same_shard_do_no_harm() {
    let scene = Scene::new();
    let machines = [tempdir().unwrap(), tempdir().unwrap()];
    let open = |machine| Output::open(scene.place("soft", machine), index("t", None)).unwrap();
    let [mut one, mut other] = [open(&machines[0]), open(&machines[1])];
    one.write(scene.shard("a"), &[soft_targets(1.0)]).unwrap();
    // As the first made it; then by a processor that rounds differently.
    other.write(Shard { folder: "/elsewhere".into(), ..scene.shard("a") }, &[soft_targets(1.0)]).unwrap();
    one.write(scene.shard("b"), &[soft_targets(1.0)]).unwrap();
    other.write(scene.shard("b"), &[soft_targets(1.001)]).unwrap();
    one.complete().unwrap();
    other.complete().unwrap();
    assert_eq!(one.index, other.index);
    let place = scene.place("soft", &machines[0]);
    let folder = place.shards(&place.index().unwrap().shards).unwrap();
    for shard in &one.index.shards {
        assert_eq!(sha256(&fs::read(folder.join(&shard.file)).unwrap()), shard.sha256);
    }
}

#[test]
fn what_is_of_other_images_or_teachers_is_refused_and_stays() {
    let scene = Scene::new();
    let machine = tempdir().unwrap();
    let open = |teacher| Output::open(scene.place("soft", &machine), index(teacher, None)).unwrap();
    open("t").write(scene.shard("a"), &[soft_targets(1.0)]).unwrap();
    refused(scene.work(&mut open("u"), &["a"]), &["s3://bucket/soft", "other teachers"]);
    let whole = Store::in_memory(&scene.objects, "soft", machine.path()).get(&file("a")).unwrap();
    fs::write(scene.data.path().join("a"), "another").unwrap();
    refused(scene.work(&mut open("t"), &["a"]), &["s3://bucket/soft", "images have changed"]);
    let other = scene.shard("a");
    refused(
        open("t").write(other, &[soft_targets(2.0)]),
        &["s3://bucket/soft/d-a.safetensors", "differs", "of /d:", "--out"],
    );
    assert_eq!(Store::in_memory(&scene.objects, "soft", machine.path()).get(&file("a")).unwrap(), whole);
}

#[test]
fn parts_in_a_store_are_joined_in_it_as_in_folders() {
    let scene = Scene::new();
    let machine = tempdir().unwrap();
    let part = |number: usize| scene.place(&format!("parts/{number}"), &machine);
    let open = |number| Output::open(part(number), index("t", Some((number, 2)))).unwrap();
    let parts = || vec![part(1), part(0)];
    let out = || scene.place("soft", &machine);
    let mut first = open(0);
    scene.work(&mut first, &["a"]).unwrap();
    first.complete().unwrap();
    refused(join(parts(), &out()), &["s3://bucket/parts/1", "no soft targets"]);
    let mut second = open(1);
    scene.work(&mut second, &["b"]).unwrap();
    refused(join(parts(), &out()), &["not finished: s3://bucket/parts/1 (part 1/2)"]);
    second.complete().unwrap();
    refused(join(vec![part(0)], &out()), &["--shard 1/2"]);
    refused(out().index(), &["s3://bucket/soft", "no soft targets"]);
    join(parts(), &out()).unwrap();
    join(parts(), &out()).unwrap();
    assert_eq!(scene.objects("soft"), ["d-a.safetensors", "d-b.safetensors", "index.json"]);

    // By one machine, in a folder.
    let alone = tempdir().unwrap();
    let mut output = Output::open(Place::Folder(alone.path().into()), index("t", None)).unwrap();
    scene.work(&mut output, &["a", "b"]).unwrap();
    output.complete().unwrap();
    let store = Store::in_memory(&scene.objects, "soft", machine.path());
    for name in scene.objects("soft") {
        assert_eq!(store.get(&name).unwrap().unwrap(), fs::read(alone.path().join(&name)).unwrap(), "{name}");
    }
    assert!(SoftTargets::open(alone.path()).unwrap().of("d", "b").is_some());

    // Soft targets of something else are not written over.
    let twisted = store.get("index.json").unwrap().unwrap();
    let key = "taken/d-a.safetensors".into();
    futures::executor::block_on(scene.objects.put(&key, twisted.into())).unwrap();
    refused(
        join(parts(), &scene.place("taken", &machine)),
        &["s3://bucket/taken/d-a.safetensors", "parts/0/d-a.safetensors"],
    );
}
