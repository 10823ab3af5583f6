//! Interrupts of devices, and which CPUs they stop.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::check::{Check, Topic};
use crate::sysfs::{list, Root};

const INTERRUPTS: Topic = Topic {
    name: "interrupts",
    why: "an interrupt and the work that follows it come before every thread, real-time ones included, on its CPU",
};

const BALANCE: Topic = Topic {
    name: "irqbalance",
    why: "it moves interrupts between CPUs every ten seconds, so that now and then they land on the frame's",
};

/// CPUs from which on interrupts can be kept off some of them.
const ENOUGH_CPUS: usize = 4;

/// The interrupt of a device.
struct Interrupt {
    number: u32,
    /// Since boot, on each CPU.
    counts: Vec<u64>,
    device: String,
    /// The CPUs that it stops.
    cpus: BTreeSet<u32>,
}

pub fn checks(root: &Root) -> Vec<Check> {
    let set = |file: &str| root.line(file).and_then(|cpus| list::parse(&cpus)).unwrap_or_default();
    let isolated = set("sys/devices/system/cpu/isolated");
    let online = set("sys/devices/system/cpu/online");
    vec![affinity(&devices(root), &isolated, &online), balance(root.runs("irqbalance"), &isolated, &online)]
}

/// The interrupts of devices that have come since boot; timers, and what each CPU has of its own, are none.
fn devices(root: &Root) -> Vec<Interrupt> {
    let text = root.text("proc/interrupts").unwrap_or_default();
    let mut lines = text.lines();
    let columns = lines.next().unwrap_or_default().split_whitespace().filter(|word| word.starts_with("CPU")).count();
    let interrupt = |line: &str| {
        let (number, rest) = line.split_once(':')?;
        let number: u32 = number.trim().parse().ok()?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let counts = words.get(..columns)?.iter().map(|word| word.parse().ok()).collect::<Option<Vec<u64>>>()?;
        let device = words.last().filter(|_| words.len() > columns)?.to_string();
        let affinity = ["effective_affinity_list", "smp_affinity_list"];
        let cpus = affinity.into_iter().find_map(|file| root.line(&format!("proc/irq/{number}/{file}")))?;
        let interrupt = Interrupt { number, counts, device, cpus: list::parse(&cpus)? };
        let own = ["timer", "pmu"].iter().any(|part| interrupt.device.contains(part));
        (!own && interrupt.total() > 0).then_some(interrupt)
    };
    lines.filter_map(interrupt).collect()
}

impl Interrupt {
    fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    fn name(&self) -> String {
        format!("{} ({})", self.number, self.device)
    }
}

fn affinity(found: &[Interrupt], isolated: &BTreeSet<u32>, online: &BTreeSet<u32>) -> Check {
    let Some(busiest) = found.iter().max_by_key(|interrupt| interrupt.total()) else {
        return INTERRUPTS.good("not reported");
    };
    let mut disturbing: Vec<_> = found.iter().filter(|i| !i.cpus.is_disjoint(isolated)).collect();
    disturbing.sort_by_key(|interrupt| Reverse(interrupt.total()));
    if let Some(first) = disturbing.first() {
        let names: Vec<_> = disturbing.iter().take(4).map(|interrupt| interrupt.name()).collect();
        let more = if disturbing.len() > 4 { format!(" and {} more", disturbing.len() - 4) } else { String::new() };
        let others = list::write(&(online - isolated));
        return INTERRUPTS.doubtful(
            format!("on isolated CPUs: {}{more}", names.join(", ")),
            format!("echo {others} | sudo tee /proc/irq/{}/smp_affinity_list, and so for each", first.number),
        );
    }
    let cpus = list::write(&busiest.cpus);
    let elsewhere = if isolated.is_empty() { "" } else { "; none on isolated CPUs" };
    INTERRUPTS.good(format!("most come from {} on CPU {cpus}{elsewhere}", busiest.name()))
}

fn balance(runs: bool, isolated: &BTreeSet<u32>, online: &BTreeSet<u32>) -> Check {
    match runs {
        false => BALANCE.good("does not run"),
        true if !isolated.is_empty() => BALANCE.good("runs, and leaves isolated CPUs alone"),
        true if online.len() < ENOUGH_CPUS => BALANCE.good("runs, on too few CPUs to keep any free"),
        true => BALANCE.doubtful(
            "runs, and may move interrupts to any CPU",
            "sudo systemctl disable --now irqbalance, or isolate CPUs, which it leaves alone",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;
    use crate::sysfs::trees::Tree;

    #[test]
    fn an_interrupt_on_an_isolated_cpu_is_named_with_the_cpus_to_move_it_to() {
        let orin = Tree::recorded("jetson-orin");
        let found = checks(&orin.root()).remove(0);
        assert_eq!((found.health, found.finding.as_str()), (Health::Doubtful, "on isolated CPUs: 128 (eth0)"));
        assert!(found.remedy.starts_with("echo 0-5 | sudo tee /proc/irq/128/"), "{}", found.remedy);
        orin.write("proc/irq/128/effective_affinity_list", b"1");
        let found = checks(&orin.root()).remove(0);
        assert_eq!(found.finding, "most come from 60 (host1x_syncpt) on CPU 0; none on isolated CPUs");
    }

    #[test]
    fn irqbalance_matters_where_cpus_could_be_kept_free() {
        let health = |isolated: &[u32], cpus: u32| {
            balance(true, &isolated.iter().copied().collect(), &(0..cpus).collect()).health
        };
        assert_eq!([health(&[], 8), health(&[6], 8), health(&[], 2)], [Health::Doubtful, Health::Good, Health::Good]);
    }
}
