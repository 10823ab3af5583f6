//! `distill ablate`: an ablation study over several seeds, with confidence intervals.
//!
//! - [`config`]: the declaration: rows that override a base configuration, and seeds.
//! - [`runs`]: trains every row with every seed, unless it is finished.
//! - [`metrics`]: accuracy on the evaluation sets, and latency.
//! - [`statistics`]: intervals and paired differences. - [`report`]: Markdown, HTML and JSON.

pub mod config;
pub mod metrics;
pub mod report;
pub mod runs;
pub mod statistics;

use std::path::PathBuf;

use anyhow::{ensure, Context};
use clap::Args;
use peregrine_core::files::write_atomically;

use crate::lock::lock;
use config::Ablation;

/// Ablation study: train variants of a student with several seeds each, and compare them in a
/// table.
///
/// Finished runs are kept and interrupted ones resumed; the training processes end with the
/// command. A row that depends on others is made again if those, or the command that derives it,
/// have changed. The folder receives runs/ROW/SEED (as of `distill student`), ABLATION.md,
/// ablation.html and ablation.json, in which unfinished rows are marked.
///
/// Example: distill ablate models/ablation.toml --out target/ablation
#[derive(Debug, Args)]
pub struct AblateArgs {
    /// The declaration, TOML: base, seeds, reference, evaluate, and a [[row]] for each variant.
    config: PathBuf,
    /// Folder for the runs and the table.
    #[arg(long, short)]
    out: PathBuf,
    /// Number of parallel trainings.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Threads for each training [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Train only this row, by name; may be given several times. The table shows all finished rows.
    #[arg(long = "row")]
    rows: Vec<String>,
    /// Only write the table of the finished runs.
    #[arg(long)]
    report_only: bool,
}

/// Runs the command.
///
/// # Errors
/// Names the invalid file or field; also, after the table is written, when a training failed.
pub fn run(args: &AblateArgs) -> anyhow::Result<()> {
    let ablation = Ablation::read(&args.config)?;
    for name in &args.rows {
        ensure!(ablation.rows.iter().any(|r| r.name == *name), "--row {name}: no such row in the table");
    }
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let _lock = (!args.report_only).then(|| lock(&args.out, "another `distill ablate`")).transpose()?;
    let mut cells = runs::cells(&ablation, &args.out)?;
    let wanted = |row: &str| !args.report_only && (args.rows.is_empty() || args.rows.iter().any(|r| r == row));
    runs::make(&ablation, &mut cells, &wanted, (args.jobs.max(1), args.threads))?;
    let results = metrics::evaluate(&ablation, &cells)?;
    let table = report::Table::new(&ablation, results);
    write_atomically(&args.out.join("ablation.json"), &serde_json::to_vec_pretty(&table)?)?;
    write_atomically(&args.out.join("ABLATION.md"), report::markdown(&table).as_bytes())?;
    report::page(&table)?.write(&args.out.join("ablation.html"))?;
    print!("{}", report::markdown(&table));
    let failed: Vec<String> = cells.iter().filter_map(|c| c.failure.clone()).collect();
    ensure!(failed.is_empty(), "{} of {} runs failed; the first: {}", failed.len(), cells.len(), failed[0]);
    Ok(())
}
