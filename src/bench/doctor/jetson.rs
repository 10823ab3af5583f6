//! NVIDIA's Jetson boards. No checks on another machine.

use super::check::{Check, Topic};
use crate::sysfs::jetson::{self, Board, Clock};
use crate::sysfs::{cpu, list, Root};

const BOARD: Topic = Topic { name: "board", why: "boards, releases and power modes differ severalfold in speed" };

const POWER_MODE: Topic =
    Topic { name: "power mode", why: "it caps the clocks of CPU, GPU and memory, and switches CPUs off" };

const CLOCKS: Topic = Topic {
    name: "jetson_clocks",
    why:
        "between frames the clocks of CPU and GPU fall, and the first milliseconds of the next frame run at the lowest",
};

const MEMORY_CLOCK: Topic =
    Topic { name: "memory clock", why: "CPU and GPU share one memory, which bounds most layers of a network" };

const SUPPLY: Topic = Topic {
    name: "supply",
    why: "when the supply's current or voltage passes a limit, the hardware halves the clocks at once",
};

pub fn checks(root: &Root) -> Vec<Check> {
    let Some(board) = jetson::board(root) else { return vec![] };
    vec![name(&board), power_mode(root), clocks(root), memory_clock(root), supply(root)]
}

fn name(board: &Board) -> Check {
    let release = board.release.as_ref().map_or(String::new(), |release| format!(", Jetson Linux {release}"));
    BOARD.good(format!("{}{release}", board.model))
}

fn power_mode(root: &Root) -> Check {
    let Some(mode) = jetson::power_mode(root) else {
        return POWER_MODE.doubtful("not reported by /var/lib/nvpmodel/status", "sudo nvpmodel -q tells it");
    };
    let cpus = |file: &str| list::parse(&root.line(&format!("sys/devices/system/cpu/{file}"))?).map(|cpus| cpus.len());
    let cpus = match cpus("online").zip(cpus("present")) {
        Some((online, present)) => format!(", {online} of {present} CPUs"),
        None => String::new(),
    };
    let name = mode.name.clone().unwrap_or_else(|| "unnamed in /etc/nvpmodel.conf".into());
    let finding = format!("{name} (mode {}){cpus}", mode.id);
    if mode.is_unlimited() {
        return POWER_MODE.good(finding);
    }
    let fastest = jetson::power_modes(root).into_iter().find(|mode| mode.is_unlimited());
    let remedy = match fastest.and_then(|mode| Some((mode.id, mode.name?))) {
        Some((id, name)) => {
            format!("sudo nvpmodel -m {id} ({name}), or measure in the mode that the vehicle drives in")
        }
        None => "measure in the mode that the vehicle drives in; sudo nvpmodel -p --verbose lists the others".into(),
    };
    POWER_MODE.doubtful(finding, remedy)
}

fn clocks(root: &Root) -> Check {
    let policies = cpu::clock_policies(root);
    let gpu = jetson::gpu_clock(root);
    let ranges = |locked: bool| {
        let cpu = policies.iter().filter(|policy| policy.is_locked() == locked);
        let cpu = cpu.map(|policy| range("CPU", policy.lowest as f64, policy.highest as f64));
        let gpu = gpu.iter().filter(|clock| clock.is_locked() == locked);
        cpu.chain(gpu.map(|clock| range("GPU", clock.lowest, clock.highest))).collect::<Vec<_>>()
    };
    let (free, locked) = (ranges(false), ranges(true));
    match (free.is_empty(), locked.is_empty()) {
        (false, _) => CLOCKS.doubtful(format!("free clocks: {}", free.join(", ")), "sudo jetson_clocks"),
        (true, false) => CLOCKS.good(format!("locked: {}", locked.join(", "))),
        (true, true) => CLOCKS.doubtful("clocks are not reported", "sudo jetson_clocks --show tells them"),
    }
}

fn range(of: &str, lowest: f64, highest: f64) -> String {
    if lowest >= highest {
        return format!("{of} at {highest:.0} MHz");
    }
    format!("{of} {lowest:.0} to {highest:.0} MHz")
}

fn memory_clock(root: &Root) -> Check {
    let cap = jetson::memory_cap_mhz(root).map_or(String::new(), |mhz| format!(", capped at {mhz:.0} MHz"));
    match jetson::memory_clock(root) {
        None if cap.is_empty() => MEMORY_CLOCK.good("not reported; root sees it"),
        None => MEMORY_CLOCK.good(format!("root sees it{cap}")),
        Some(Clock { now, highest, .. }) if now < highest => {
            MEMORY_CLOCK.doubtful(format!("{now:.0} of {highest:.0} MHz{cap}"), "sudo jetson_clocks")
        }
        Some(clock) => {
            let locked = if clock.is_locked() { ", locked" } else { "" };
            MEMORY_CLOCK.good(format!("{:.0} MHz{locked}{cap}", clock.now))
        }
    }
}

fn supply(root: &Root) -> Check {
    match jetson::over_current_events(root) {
        None => SUPPLY.good("events are not reported"),
        Some(0) => SUPPLY.good("no over-current or under-voltage since boot"),
        Some(count) => SUPPLY.doubtful(
            format!("over-current or under-voltage {count} times since boot"),
            "use a supply and cable of the board's full power, or a lower power mode (sudo nvpmodel -m)",
        ),
    }
}
