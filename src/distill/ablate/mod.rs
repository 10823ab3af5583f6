//! `distill ablate`: what each method is worth, as a table with intervals.
//!
//! - [`config`]: the table as declared: rows that change a base configuration, and seeds.
//! - [`runs`]: training every row with every seed, or finding it finished.
//! - [`judge`]: figures on the evaluation sets, and the packages' latency.
//! - [`statistics`]: intervals and paired differences. - [`report`]: Markdown, HTML and JSON.

pub mod config;
pub mod judge;
pub mod report;
pub mod runs;
pub mod statistics;

use std::path::PathBuf;

use anyhow::{ensure, Context};
use clap::Args;
use peregrine_core::files::write_atomically;

use crate::lock::lock;
use config::Ablation;

/// Train the same student in several ways, with several seeds each, and write the table that compares them.
///
/// Runs that are finished are kept, others begun or gone on with: started again after any interruption, the command
/// continues; the trainings that it has begun end with it. A row that is made from others is made again where those, or the
/// command that derives it, have changed. The folder receives runs/ROW/SEED (as of `distill student`), ABLATION.md,
/// ablation.html and ablation.json; rows without a finished run yet are listed as such. Example: distill ablate
/// models/ablation.toml --out target/ablation
#[derive(Debug, Args)]
pub struct AblateArgs {
    /// The table, TOML: base, seeds, reference, evaluate, and a [[row]] for each way to train.
    config: PathBuf,
    /// Folder of the runs and the table.
    #[arg(long, short)]
    out: PathBuf,
    /// Trainings at a time.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Threads for each training [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Only these rows (their names); the table holds whatever is finished.
    #[arg(long = "row")]
    rows: Vec<String>,
    /// Train nothing; write the table of what is finished.
    #[arg(long)]
    report_only: bool,
}

/// Runs the command.
///
/// # Errors
/// Names the file or field at fault; also, after the table is written, when a training failed.
pub fn run(args: &AblateArgs) -> anyhow::Result<()> {
    let ablation = Ablation::read(&args.config)?;
    for name in &args.rows {
        ensure!(ablation.rows.iter().any(|r| r.name == *name), "--row {name}: the table has no such row");
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let _only = (!args.report_only).then(|| lock(&args.out, "another `distill ablate`")).transpose()?;
    let mut cells = runs::cells(&ablation, &args.out)?;
    let wanted = |row: &str| !args.report_only && (args.rows.is_empty() || args.rows.iter().any(|r| r == row));
    runs::make(&ablation, &mut cells, &wanted, (args.jobs.max(1), args.threads))?;
    let results = judge::judge(&ablation, &cells)?;
    let table = report::Table::new(&ablation, results);
    write_atomically(&args.out.join("ablation.json"), &serde_json::to_vec_pretty(&table)?)?;
    write_atomically(&args.out.join("ABLATION.md"), report::markdown(&table).as_bytes())?;
    report::page(&table)?.write(&args.out.join("ablation.html"))?;
    print!("{}", report::markdown(&table));
    let failed: Vec<String> = cells.iter().filter_map(|c| c.failure.clone()).collect();
    ensure!(failed.is_empty(), "{} of {} runs failed; the first: {}", failed.len(), cells.len(), failed[0]);
    Ok(())
}
