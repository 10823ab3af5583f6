//! How a process learns that it is one of several, and joins them.

use anyhow::bail;

use super::Ranks;

/// Variables in which those that start processes tell how many they have started: OpenMPI's mpirun
/// (also in Kubernetes' MPIJob), MPICH's, and Slurm's srun. An inner one comes before an outer one.
const SIZES: [&str; 3] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];

/// The variable that announces several processes, and their number.
fn announced(variable: impl Fn(&str) -> Option<String>) -> Option<(&'static str, usize)> {
    let number = |name: &'static str| Some((name, variable(name)?.parse().ok()?));
    SIZES.into_iter().find_map(number).filter(|&(_, size)| size > 1)
}

/// Variables in which they tell a process its number among those on its machine.
const LOCAL: [&str; 3] = ["OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"];

/// The GPU of this process, by its number among those that it sees: of several processes on a machine each
/// has one of its own.
pub fn gpu() -> u32 {
    gpu_by(|name| std::env::var(name).ok())
}

fn gpu_by(variable: impl Fn(&str) -> Option<String>) -> u32 {
    // Slurm's --gpus-per-task, for instance, shows each process its own alone.
    if variable("CUDA_VISIBLE_DEVICES").is_some_and(|seen| !seen.is_empty() && !seen.contains(',')) {
        return 0;
    }
    LOCAL.into_iter().find_map(|name| variable(name)?.parse().ok()).unwrap_or(0)
}

/// Joins the other ranks that were started with this process; alone if there are none.
///
/// # Errors
/// When several were announced, but cannot be connected; names the remedy.
pub fn join() -> anyhow::Result<Ranks> {
    match announced(|name| std::env::var(name).ok()) {
        None => Ok(Ranks::alone()),
        Some((variable, size)) => connect(variable, size),
    }
}

#[cfg(not(feature = "mpi"))]
fn connect(variable: &str, size: usize) -> anyhow::Result<Ranks> {
    bail!(
        "{size} ranks were started ({variable}), but this distill was built without MPI, and each would train alone: \
         build it with --features mpi (docs/cluster.md), or start one process"
    )
}

#[cfg(feature = "mpi")]
fn connect(variable: &str, size: usize) -> anyhow::Result<Ranks> {
    use std::sync::Arc;

    use super::mpi::Mpi;
    use super::Transport;

    let of_srun = variable == SIZES[2];
    if of_srun && std::env::var_os("PMIX_RANK").is_none() {
        bail!("{size} ranks were started by srun without MPI: start them with srun --mpi=pmix, or with mpirun");
    }
    let mpi = Mpi::start()?;
    let found = mpi.size();
    if found != size {
        bail!(
            "{size} ranks were announced ({variable}), but MPI connects {found}: start them with the mpirun of the MPI \
             that distill was built with, or with srun --mpi=pmix"
        );
    }
    Ok(Ranks::new(Arc::new(mpi)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_processes_are_announced_by_who_started_them() {
        let with = |variables: &'static [(&str, &str)]| {
            announced(move |name| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
        };
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("OMPI_COMM_WORLD_SIZE", "1")]), None);
        assert_eq!(with(&[("SLURM_STEP_NUM_TASKS", "4")]), Some(("SLURM_STEP_NUM_TASKS", 4)));
        // mpirun within an allocation: its daemons are Slurm's tasks, one on each machine.
        let both = with(&[("OMPI_COMM_WORLD_SIZE", "8"), ("SLURM_STEP_NUM_TASKS", "2")]);
        assert_eq!(both, Some(("OMPI_COMM_WORLD_SIZE", 8)));
    }

    #[test]
    fn each_process_on_a_machine_has_a_gpu_of_its_own() {
        let with = |variables: &'static [(&str, &str)]| {
            gpu_by(move |name| variables.iter().find(|v| v.0 == name).map(|v| v.1.to_owned()))
        };
        assert_eq!(with(&[]), 0);
        assert_eq!(with(&[("OMPI_COMM_WORLD_LOCAL_RANK", "3")]), 3);
        assert_eq!(with(&[("SLURM_LOCALID", "1"), ("CUDA_VISIBLE_DEVICES", "4,5")]), 1);
        // Shown one of its own by the launcher.
        assert_eq!(with(&[("SLURM_LOCALID", "1"), ("CUDA_VISIBLE_DEVICES", "5")]), 0);
    }

    #[test]
    #[cfg(not(feature = "mpi"))]
    fn without_mpi_several_processes_are_refused_with_the_remedy() {
        let error = connect("OMPI_COMM_WORLD_SIZE", 2).unwrap_err().to_string();
        assert!(["2 ranks", "OMPI_COMM_WORLD_SIZE", "--features mpi"].iter().all(|w| error.contains(w)), "{error}");
    }
}
