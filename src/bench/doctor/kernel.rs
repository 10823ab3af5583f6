//! The kernel: its preemption, the share of real-time threads, and CPUs that it leaves alone.

use std::collections::BTreeSet;

use super::check::{Check, Topic};
use crate::machine::realtime_kernel;
use crate::sysfs::{jetson, list, Root};

const KERNEL: Topic =
    Topic { name: "kernel", why: "without PREEMPT_RT the kernel can delay a woken thread by milliseconds" };

const RT_THROTTLING: Topic = Topic {
    name: "RT throttling",
    why: "real-time threads that compute for longer than their share of a second are stopped for the rest of it, in \
          the middle of a frame",
};

const ISOLATION: Topic = Topic {
    name: "isolation",
    why: "on shared CPUs, other programs, interrupts and the kernel's timers take time from a frame",
};

pub fn checks(root: &Root) -> Vec<Check> {
    vec![preemption(root), rt_throttling(root), isolation(root)]
}

fn preemption(root: &Root) -> Check {
    if realtime_kernel(root) {
        return KERNEL.good("PREEMPT_RT");
    }
    let remedy = match jetson::board(root) {
        Some(_) => "install Jetson Linux's real-time kernel packages (nvidia-l4t-rt-kernel, from NVIDIA's repository)",
        None => {
            "sudo apt-get install linux-image-rt-amd64 (Debian), or `sudo pro enable realtime-kernel` (Ubuntu), and \
             reboot"
        }
    };
    KERNEL.doubtful("without PREEMPT_RT", remedy)
}

fn rt_throttling(root: &Root) -> Check {
    let of = |file: &str| root.number(&format!("proc/sys/kernel/{file}"));
    let (runtime, period) = (of("sched_rt_runtime_us"), of("sched_rt_period_us"));
    let remedy = "sudo sysctl -w kernel.sched_rt_runtime_us=-1 (leave a CPU to other programs then, or a thread that \
                  spins stops the machine)";
    match (runtime, period) {
        (Some(runtime), _) if runtime < 0 => RT_THROTTLING.good("off"),
        (Some(runtime), Some(period)) if runtime < period => RT_THROTTLING.doubtful(
            format!("real-time threads have {:.0} of each {:.0} ms", runtime as f64 / 1e3, period as f64 / 1e3),
            remedy,
        ),
        (Some(_), _) => RT_THROTTLING.good("real-time threads have the whole period"),
        (None, _) => RT_THROTTLING.good("not reported"),
    }
}

/// What keeps the kernel off CPUs, each with a list of them.
struct Isolated {
    isolated: BTreeSet<u32>,
    without_tick: BTreeSet<u32>,
    without_callbacks: BTreeSet<u32>,
}

impl Isolated {
    fn read(root: &Root) -> Self {
        let file = |name: &str| root.line(&format!("sys/devices/system/cpu/{name}")).unwrap_or_default();
        let arguments = root.line("proc/cmdline").unwrap_or_default();
        let argument = |key: &str| arguments.split_whitespace().find_map(|word| word.strip_prefix(key)).unwrap_or("");
        let cpus = |text: &str| list::parse(text).unwrap_or_default();
        let without_tick = cpus(&file("nohz_full"));
        // `nohz_full` takes the callbacks away as well.
        let without_callbacks = &cpus(argument("rcu_nocbs=")) | &without_tick;
        Self { isolated: cpus(&file("isolated")), without_tick, without_callbacks }
    }
}

/// Those of the kernel's command line, for a place where it is written.
fn command_line(root: &Root, arguments: &str) -> String {
    let place = match jetson::board(root) {
        Some(_) => "APPEND in /boot/extlinux/extlinux.conf",
        None => "GRUB_CMDLINE_LINUX in /etc/default/grub (then sudo update-grub)",
    };
    format!("add {arguments} to {place}, and reboot")
}

fn isolation(root: &Root) -> Check {
    let found = Isolated::read(root);
    let online = root.line("sys/devices/system/cpu/online").and_then(|cpus| list::parse(&cpus)).unwrap_or_default();
    if found.isolated.is_empty() {
        let Some(last) = online.last().filter(|_| online.len() >= 4) else {
            return ISOLATION.good("no isolated CPUs, and too few to isolate any");
        };
        let cpus = format!("{}-{last}", last - 1);
        let arguments = format!("isolcpus={cpus} nohz_full={cpus} rcu_nocbs={cpus}");
        let remedy = format!("{}; then run under `taskset -c {cpus}`", command_line(root, &arguments));
        return ISOLATION.doubtful("no isolated CPUs", remedy);
    }
    let cpus = list::write(&found.isolated);
    let allowed = allowed_cpus(root);
    if allowed.as_ref().is_some_and(|allowed| allowed.is_disjoint(&found.isolated)) {
        return ISOLATION.doubtful(
            format!("CPUs {cpus} are isolated, and this program is not on them"),
            format!("run it and the node under `taskset -c {cpus}`"),
        );
    }
    let lacks = |of: &BTreeSet<u32>| !found.isolated.is_subset(of);
    let missing: Vec<_> = [("nohz_full", lacks(&found.without_tick)), ("rcu_nocbs", lacks(&found.without_callbacks))]
        .into_iter()
        .filter(|(_, lacks)| *lacks)
        .map(|(name, _)| format!("{name}={cpus}"))
        .collect();
    if missing.is_empty() {
        return ISOLATION.good(format!("CPUs {cpus} are isolated, without ticks and callbacks"));
    }
    let missing = missing.join(" ");
    ISOLATION.doubtful(
        format!("CPUs {cpus} are isolated, but without {missing}: timers and callbacks of the kernel run on them"),
        command_line(root, &missing),
    )
}

/// The CPUs that this process may use.
fn allowed_cpus(root: &Root) -> Option<BTreeSet<u32>> {
    let status = root.text("proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    list::parse(line.trim())
}
