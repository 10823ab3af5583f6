//! Memory, swap and huge pages.

use std::collections::HashMap;

use super::check::{Check, Topic};
use crate::sysfs::Root;

const MEMORY: Topic =
    Topic { name: "memory", why: "with little left the kernel drops and rereads code, or kills the largest program" };

const SWAP: Topic = Topic { name: "swap", why: "a page fault from swap takes milliseconds in the middle of a frame" };

const HUGE_PAGES: Topic = Topic {
    name: "huge pages",
    why: "the kernel stops a thread that touches new memory until it has put a huge page together",
};

const RESERVED_PAGES: Topic =
    Topic { name: "reserved pages", why: "reserved huge pages are missing to all programs that do not ask for them" };

/// MiB without which nothing is measured.
const LEAST_MIB: u64 = 256;

const TRANSPARENT: &str = "sys/kernel/mm/transparent_hugepage";

pub fn checks(root: &Root) -> Vec<Check> {
    let info = information(root);
    vec![
        memory(info.get("MemAvailable").map(|kib| kib >> 10)),
        swap(&info, root),
        transparent(chosen(root, "enabled"), chosen(root, "defrag")),
        reserved(&info),
    ]
}

/// `/proc/meminfo`: KiB, but for the numbers of huge pages.
fn information(root: &Root) -> HashMap<String, u64> {
    let text = root.text("proc/meminfo").unwrap_or_default();
    let field = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(field).collect()
}

fn memory(available_mib: Option<u64>) -> Check {
    let Some(mib) = available_mib else { return MEMORY.good("not reported") };
    let finding = format!("{mib} MiB available");
    if mib < LEAST_MIB {
        return MEMORY.bad(finding, format!("stop other programs until {LEAST_MIB} MiB are free (see `top -o %MEM`)"));
    }
    MEMORY.good(finding)
}

fn swap(info: &HashMap<String, u64>, root: &Root) -> Check {
    let (Some(total), Some(free)) = (info.get("SwapTotal"), info.get("SwapFree")) else {
        return SWAP.good("not reported");
    };
    let used = total.saturating_sub(*free) >> 10;
    let zram = root.text("proc/swaps").is_some_and(|swaps| swaps.contains("zram"));
    match (total >> 10, used) {
        (0, _) => SWAP.good("none"),
        (mib, 0) => SWAP.good(format!("{mib} MiB, none in use")),
        (_, mib) if zram => SWAP.doubtful(
            format!("{mib} MiB in use, compressed in memory"),
            "sudo swapoff -a (on Jetson for good: sudo systemctl disable nvzramconfig)",
        ),
        (_, mib) => SWAP.doubtful(
            format!("{mib} MiB in use"),
            "sudo swapoff -a, or stop the programs that use so much memory; the node's lock_memory keeps its own",
        ),
    }
}

/// The choice in a file such as `always [madvise] never`.
fn chosen(root: &Root, file: &str) -> Option<String> {
    let line = root.line(&format!("{TRANSPARENT}/{file}"))?;
    line.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']').map(str::to_owned))
}

fn transparent(enabled: Option<String>, defrag: Option<String>) -> Check {
    let Some(enabled) = enabled else { return HUGE_PAGES.good("transparent ones are not reported") };
    let finding = match &defrag {
        Some(defrag) => format!("transparent: {enabled}, compaction: {defrag}"),
        None => format!("transparent: {enabled}"),
    };
    if enabled == "always" {
        return HUGE_PAGES.doubtful(finding, format!("echo madvise | sudo tee /{TRANSPARENT}/enabled"));
    }
    HUGE_PAGES.good(finding)
}

fn reserved(info: &HashMap<String, u64>) -> Check {
    let of = |name: &str| info.get(name).copied().unwrap_or(0);
    let mib = |pages: u64| pages.saturating_mul(of("Hugepagesize")) >> 10;
    let (total, free) = (mib(of("HugePages_Total")), mib(of("HugePages_Free")));
    match (total, of("MemTotal") >> 10) {
        (0, _) => RESERVED_PAGES.good("none"),
        (total, all) if free > all / 10 => RESERVED_PAGES.doubtful(
            format!("{total} of {all} MiB are reserved, {free} MiB of them unused"),
            "sudo sysctl -w vm.nr_hugepages=0",
        ),
        (total, _) => RESERVED_PAGES.good(format!("{total} MiB, {free} MiB of them unused")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn too_little_memory_is_bad_and_unknown_memory_is_not() {
        assert_eq!((memory(Some(100)).health, memory(Some(9000)).health), (Health::Bad, Health::Good));
        assert_eq!(memory(None).health, Health::Good);
    }
}
