//! Every target takes its seeds, seeds that are damaged at random, and all that fuzzing has found.

use std::fs;
use std::path::Path;

use peregrine_fuzz::{Target, TARGETS};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Damaged inputs of each target.
const DAMAGED: usize = 100;

/// What numbers and texts are replaced by.
const ODD: [&[u8]; 6] =
    [b"99999999999999999999", b"-1", b"1e999", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff"];

fn damaged(seed: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..4) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..8)).min(bytes.len());
        match random.random_range(0..4) {
            0 => drop(bytes.splice(at..end, ODD[random.random_range(0..ODD.len())].iter().copied())),
            1 => bytes[at..end].iter_mut().for_each(|byte| *byte = random.random()),
            2 => bytes.truncate(at),
            _ => bytes.extend_from_within(at..end),
        }
    }
    bytes
}

fn each(run: impl Fn(&Target)) {
    TARGETS.iter().for_each(run);
}

#[test]
fn every_target_takes_its_seeds() {
    each(|target| (target.seeds)().iter().for_each(|seed| (target.run)(seed)));
}

#[test]
fn every_target_takes_damaged_seeds_and_nothing() {
    each(|target| {
        let (mut random, seeds) = (StdRng::seed_from_u64(1), (target.seeds)());
        (0..DAMAGED).for_each(|i| (target.run)(&damaged(&seeds[i % seeds.len()], &mut random)));
        (target.run)(&[]);
    });
}

#[test]
fn every_target_takes_what_fuzzing_found() {
    each(|target| {
        let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("found").join(target.name);
        for file in fs::read_dir(found).into_iter().flatten() {
            let path = file.unwrap().path();
            println!("{}", path.display());
            (target.run)(&fs::read(path).unwrap());
        }
    });
}
