//! Rounds in which every contender runs one frame.

use std::time::Instant;

use anyhow::{ensure, Result};
use peregrine_bench::peers::quiet::wait_for_quiet;
use rand::seq::SliceRandom;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::contender::{Contender, Time};
use crate::networks::Network;
use crate::report::{Row, Table};

/// Largest difference of outputs, relative to the largest value.
const TOLERANCE: f32 = 1e-3;

/// A contender slower than ours by this factor runs in every tenth round only.
const SLOW: f64 = 6.0;

/// Runs the contenders for `seconds`, in a random order in each round. Each runs twice in its turn
/// and the second time counts, so that all find their weights in the caches, as they would alone.
pub fn measure(
    mut contenders: Vec<Box<dyn Contender>>,
    absent: Vec<String>,
    network: &Network,
    threads: usize,
    seconds: f64,
) -> Result<Table> {
    let expected = contenders[0].outputs()?;
    let scale = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    let mut differences = vec![];
    for contender in &mut contenders {
        if !contender.is_f32() {
            differences.push(None);
            continue;
        }
        let found = contender.outputs()?;
        ensure!(
            found.len() == expected.len(),
            "{} has {} outputs, not {}",
            contender.name(),
            found.len(),
            expected.len()
        );
        let worst = expected.iter().zip(&found).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        ensure!(worst / scale < TOLERANCE, "{}: the outputs differ by {worst} of {scale}", contender.name());
        differences.push(Some(worst));
    }
    let mut times: Vec<Vec<Option<Time>>> = vec![vec![]; contenders.len()];
    let mut warm_up = |contender: &mut Box<dyn Contender>| -> Result<f64> {
        let mut least = f64::INFINITY;
        for _ in 0..5 {
            least = least.min(contender.run()?.wall);
        }
        Ok(least)
    };
    let least = contenders.iter_mut().map(&mut warm_up).collect::<Result<Vec<f64>>>()?;
    let processes: Vec<u32> = contenders.iter().filter_map(|contender| contender.process()).collect();
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed().as_secs_f64() < seconds || round < 20 {
        order.shuffle(&mut rng);
        times.iter_mut().for_each(|t| t.push(None));
        for &i in &order {
            if least[i] > SLOW * least[0] && round % 10 != 0 {
                continue;
            }
            wait_for_quiet(&processes)?;
            contenders[i].run()?;
            times[i][round] = Some(contenders[i].run()?);
        }
        round += 1;
    }
    let rows = contenders.iter().zip(times).zip(differences);
    let rows =
        rows.map(|((contender, times), difference)| Row { name: contender.name().to_owned(), times, difference });
    Ok(Table {
        name: network.name.clone(),
        network: network.describe(),
        threads,
        largest: scale,
        rows: rows.collect(),
        absent,
    })
}
