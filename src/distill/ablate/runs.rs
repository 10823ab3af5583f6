//! Trains the table's cells: one `distill student` process per row and seed, several in parallel.
//!
//! Separate processes, so that a failing one does not affect the others.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{ensure, Context};
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;
use peregrine_student::manifest::Manifest;
use peregrine_student::package::MANIFEST_FILE;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::config::Ablation;
use crate::log::show;

const POLL: Duration = Duration::from_millis(500);
/// Name of the package's folder in a run's folder.
const STUDENT: &str = "student";

/// One row with one seed.
#[derive(Debug)]
pub struct Cell {
    /// Index of the row.
    pub row: usize,
    pub seed: u64,
    /// The run's folder, with the package in `student`.
    pub folder: PathBuf,
    made_by: MadeBy,
    /// The packages of other rows that it depends on.
    origins: Vec<PathBuf>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// How a cell's package is made.
#[derive(Debug)]
enum MadeBy {
    /// By `distill student`: the configuration as it writes it, and its steps.
    Training(String, u64),
    /// By this command.
    Command(Vec<String>),
}

/// Provenance of a package that depends on others, stored in its run's folder.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Provenance {
    /// Of a derived row; the configuration of a training is in its folder.
    command: Vec<String>,
    /// SHA-256 of each origin's weights, from its manifest.
    origins: Vec<String>,
}

/// File name of a cell's [`Provenance`].
const PROVENANCE_FILE: &str = "made_of.json";

fn manifest(package: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(package.join(MANIFEST_FILE)).ok()?).ok()
}

impl Cell {
    /// Path of its package.
    pub fn package(&self) -> PathBuf {
        self.folder.join(STUDENT)
    }

    /// Whether its package exists, and was made by this configuration or command from the current
    /// origins.
    pub fn finished(&self) -> bool {
        let Some(manifest) = manifest(&self.package()) else { return false };
        match &self.made_by {
            MadeBy::Training(config, steps) => {
                manifest.training.steps == *steps
                    && fs::read_to_string(self.folder.join("config.toml")).is_ok_and(|found| found == *config)
                    && !self.is_outdated()
            }
            MadeBy::Command(_) => self.stored_provenance().is_some() && !self.is_outdated(),
        }
    }

    /// Whether it was made or started from other origins than the current ones. A training without
    /// a stored provenance is not outdated: it was started by a version that stored none.
    fn is_outdated(&self) -> bool {
        self.stored_provenance().is_some_and(|stored| self.provenance().is_none_or(|current| current != stored))
    }

    fn stored_provenance(&self) -> Option<Provenance> {
        serde_json::from_slice(&fs::read(self.folder.join(PROVENANCE_FILE)).ok()?).ok()
    }

    /// The provenance if it were made now; `None` while an origin does not exist.
    fn provenance(&self) -> Option<Provenance> {
        let command = match &self.made_by {
            MadeBy::Training(..) => Vec::new(),
            MadeBy::Command(command) => command.clone(),
        };
        let origins =
            self.origins.iter().map(|package| Some(manifest(package)?.weights.sha256)).collect::<Option<_>>()?;
        Some(Provenance { command, origins })
    }

    fn store_provenance(&self, provenance: Option<&Provenance>) -> anyhow::Result<()> {
        Ok(write_atomically(&self.folder.join(PROVENANCE_FILE), &serde_json::to_vec_pretty(&provenance)?)?)
    }

    fn is_trained(&self) -> bool {
        matches!(self.made_by, MadeBy::Training(..))
    }

    /// Steps of its training.
    fn steps(&self) -> u64 {
        match self.made_by {
            MadeBy::Training(_, steps) => steps,
            MadeBy::Command(..) => 0,
        }
    }

    fn name(&self) -> String {
        let mut parts = self.folder.iter().rev().take(2).map(|p| p.to_string_lossy());
        let seed = parts.next().unwrap_or_default();
        format!("{}/{seed}", parts.next().unwrap_or_default())
    }

    /// Current step and loss, from the last line of its log.
    fn progress(&self) -> (u64, f64) {
        let Ok(log) = fs::read_to_string(self.folder.join("log.jsonl")) else { return (0, f64::NAN) };
        let lines = log.lines().rev().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        let figures = |l: serde_json::Value| Some((l["step"].as_u64()?, l["loss"].as_f64()?));
        lines.filter_map(figures).next().unwrap_or((0, f64::NAN))
    }
}

/// The table's cells, ordered by seed, so that every row has a result early; their configurations
/// are written to `out`/configs.
///
/// # Errors
/// When a configuration is invalid or a file cannot be written.
pub fn cells(ablation: &Ablation, out: &Path) -> anyhow::Result<Vec<Cell>> {
    let configs = out.join("configs");
    fs::create_dir_all(&configs).with_context(|| configs.display().to_string())?;
    let mut cells = Vec::new();
    for &seed in &ablation.seeds {
        let folder = |row: &str| out.join("runs").join(row).join(seed.to_string());
        let package = |row: &str| folder(row).join(STUDENT).to_string_lossy().into_owned();
        for (index, row) in ablation.rows.iter().enumerate() {
            let folder = folder(&row.name);
            let made_by = match &row.derive {
                Some(derive) => {
                    let (student, out) = (package(&derive.from), package(&row.name));
                    let fill = |a: &String| a.replace("{student}", &student).replace("{out}", &out);
                    MadeBy::Command(derive.command.iter().map(fill).collect())
                }
                None => {
                    let config = ablation.student(row, seed, &package)?;
                    let text = toml::to_string(&config)?;
                    write_atomically(&config_path(out, &row.name, seed), text.as_bytes())?;
                    MadeBy::Training(text, config.steps)
                }
            };
            let origins = row.origins().into_iter().map(|name| package(name).into()).collect();
            cells.push(Cell { row: index, seed, folder, made_by, origins, failure: None });
        }
    }
    Ok(cells)
}

fn config_path(out: &Path, row: &str, seed: u64) -> PathBuf {
    out.join("configs").join(format!("{row}-{seed}.toml"))
}

/// Trains the rows selected by `wanted`, `jobs` in parallel, and runs the derived ones whose origin
/// is finished, in as many rounds as the dependencies need; failures are stored in the cells.
///
/// # Errors
/// When a process cannot be started.
pub fn make(
    ablation: &Ablation,
    cells: &mut [Cell],
    wanted: &dyn Fn(&str) -> bool,
    (jobs, threads): (usize, Option<usize>),
) -> anyhow::Result<()> {
    let selected = |c: &Cell| c.is_trained() && wanted(&ablation.rows[c.row].name);
    let count = cells.iter().filter(|c| selected(c)).count();
    info!("{} of {count} runs are already finished", cells.iter().filter(|c| selected(c) && c.finished()).count());
    loop {
        let finished: HashSet<_> = cells.iter().filter(|c| c.finished()).map(|c| (c.row, c.seed)).collect();
        let is_there = |row: &str, seed| {
            ablation.rows.iter().position(|r| r.name == row).is_some_and(|row| finished.contains(&(row, seed)))
        };
        let due = |c: &Cell| {
            let origins = ablation.rows[c.row].origins();
            selected(c) && !c.finished() && c.failure.is_none() && origins.iter().all(|row| is_there(row, c.seed))
        };
        let due: Vec<_> = cells.iter_mut().filter(|c| due(c)).collect();
        let begun = due.len();
        train(due, jobs, threads)?;
        if begun + derive(ablation, cells)? == 0 {
            return Ok(());
        }
    }
}

/// Trains these, `jobs` in parallel.
fn train(cells: Vec<&mut Cell>, jobs: usize, threads: Option<usize>) -> anyhow::Result<()> {
    let mut waiting: VecDeque<_> = cells.into();
    let mut done = 0;
    let style = "{bar:30} {pos}/{len} steps, elapsed {elapsed}, ETA {eta}; {msg}";
    let total = waiting.iter().map(|c| c.steps()).sum();
    let bar = show(ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?));
    let mut running: Vec<(Child, &mut Cell)> = Vec::new();
    // Steps of previous runs must not count towards the ETA.
    bar.set_position(waiting.iter().map(|c| c.progress().0).sum());
    bar.reset_eta();
    while !running.is_empty() || !waiting.is_empty() {
        while running.len() < jobs {
            let Some(cell) = waiting.pop_front() else { break };
            running.push((start(cell, threads)?, cell));
        }
        sleep(POLL);
        let mut still = Vec::new();
        for (mut child, cell) in running {
            match child.try_wait().context("cannot wait for a training process")? {
                None => still.push((child, cell)),
                Some(status) => {
                    done += cell.steps();
                    if !status.success() || !cell.finished() {
                        let error = error_of(&cell.folder.join("output.txt"));
                        cell.failure =
                            Some(format!("{}: {error} (see {}/output.txt)", cell.name(), cell.folder.display()));
                        warn!("{}", cell.failure.clone().unwrap_or_default());
                    }
                }
            }
        }
        running = still;
        let at = |c: &Cell| {
            let (step, loss) = c.progress();
            format!("{} step {step} loss {loss:.2}", c.name())
        };
        let ahead: u64 = running.iter().map(|r| &r.1).chain(&waiting).map(|c| c.progress().0).sum();
        bar.set_position(done + ahead);
        bar.set_message(running.iter().map(|r| at(r.1)).collect::<Vec<_>>().join(", "));
    }
    bar.finish_and_clear();
    Ok(())
}

fn start(cell: &Cell, threads: Option<usize>) -> anyhow::Result<Child> {
    fs::create_dir_all(&cell.folder).with_context(|| cell.folder.display().to_string())?;
    let (row, seed) = (cell.folder.parent().and_then(Path::file_name), cell.seed);
    let out = cell.folder.ancestors().nth(3).context("a run's folder is OUT/runs/ROW/SEED")?;
    let mut command = this_program()?;
    command.arg("student").arg(config_path(out, &row.unwrap_or_default().to_string_lossy(), seed));
    command.arg("--run").arg(&cell.folder);
    if !cell.origins.is_empty() {
        if cell.is_outdated() {
            command.arg("--fresh");
        }
        cell.store_provenance(cell.provenance().as_ref())?;
    }
    if let Some(threads) = threads {
        command.args(["--threads", &threads.to_string()]);
    }
    let output = File::create(cell.folder.join("output.txt")).with_context(|| cell.folder.display().to_string())?;
    command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
    command.spawn().context("cannot start a training")
}

/// Makes the packages of derived rows whose origin is finished; returns the number of attempts.
fn derive(ablation: &Ablation, cells: &mut [Cell]) -> anyhow::Result<usize> {
    let mut tried = 0;
    for i in 0..cells.len() {
        let Some(derive) = &ablation.rows[cells[i].row].derive else { continue };
        let origin = cells.iter().find(|c| ablation.rows[c.row].name == derive.from && c.seed == cells[i].seed);
        if !origin.is_some_and(Cell::finished) {
            continue;
        }
        if cells[i].finished() || cells[i].failure.is_some() {
            continue;
        }
        tried += 1;
        fs::create_dir_all(&cells[i].folder).with_context(|| cells[i].folder.display().to_string())?;
        let MadeBy::Command(arguments) = &cells[i].made_by else { continue };
        // While it is being made, its provenance is unknown.
        cells[i].store_provenance(None)?;
        let provenance = cells[i].provenance();
        let output = cells[i].folder.join("output.txt");
        let file = File::create(&output).with_context(|| output.display().to_string())?;
        let mut command = this_program()?;
        command.args(arguments).stdin(Stdio::null());
        let status = command.stdout(file.try_clone()?).stderr(file).status().context("cannot start a command")?;
        if status.success() {
            cells[i].store_provenance(provenance.as_ref())?;
        }
        if !cells[i].finished() {
            cells[i].failure = Some(format!("{}: {}", cells[i].name(), error_of(&output)));
        }
    }
    Ok(tried)
}

/// A child process of this program, without a backtrace after its error. It dies with this process,
/// even if that is killed: an orphan would hold the lock on its run's folder.
fn this_program() -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env("RUST_BACKTRACE", "0").env_remove("RUST_LIB_BACKTRACE");
    #[cfg(target_os = "linux")]
    // SAFETY: prctl and getppid are async-signal-safe and nothing else happens between fork and
    // exec.
    unsafe {
        let parent = std::process::id();
        std::os::unix::process::CommandExt::pre_exec(&mut command, move || {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // If the parent died before that, no signal will come.
            if libc::getppid().unsigned_abs() == parent {
                return Ok(());
            }
            Err(std::io::Error::from_raw_os_error(libc::ESRCH))
        });
    }
    Ok(command)
}

/// Runs `distill` with `arguments`.
///
/// # Errors
/// When it fails, with the last line of its stderr.
pub fn distill(arguments: &[&std::ffi::OsStr]) -> anyhow::Result<()> {
    let output = this_program()?.args(arguments).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim().lines().last().unwrap_or("it failed without a message"));
    Ok(())
}

/// The error of a process and its causes in one line; without one the last line that is not a
/// progress bar.
fn error_of(path: &Path) -> String {
    let text = fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
    let lines = |text: &str| text.split(['\n', '\r']).map(|l| l.trim().to_owned()).collect::<Vec<_>>();
    let said = match text.rsplit_once("Error: ") {
        Some((_, error)) => lines(error),
        None => lines(text.trim_end()).pop().into_iter().collect(),
    };
    let said: Vec<_> = said.into_iter().filter(|l| !l.is_empty() && l != "Caused by:").collect();
    if said.is_empty() {
        return "it ended without a message".into();
    }
    said.join(": ")
}
