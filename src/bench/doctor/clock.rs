//! The system's clock: where time comes from, and what keeps it together with other machines'.

use super::check::{Check, Topic};
use crate::sysfs::Root;
use crate::system::KernelClock;

const SOURCE: Topic =
    Topic { name: "clock source", why: "every time stamp of a frame is a read of it: some take microseconds" };

const SYNCHRONISATION: Topic = Topic {
    name: "clock sync",
    why: "stamps of cameras and of other computers count against the deadline as if both clocks were one",
};

/// Clocks that programs read without asking the kernel.
const FAST_SOURCES: [&str; 5] = ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page", "xen"];

/// Programs that set the system's clock, by their name in `/proc/PID/comm` (at most 15 characters).
const SETTERS: [(&str, &str); 5] = [
    ("chronyd", "chronyd"),
    ("phc2sys", "phc2sys"),
    ("ntpd", "ntpd"),
    ("openntpd", "openntpd"),
    ("systemd-timesyn", "systemd-timesyncd"),
];

pub fn checks(root: &Root, kernel: Option<KernelClock>) -> Vec<Check> {
    vec![source(root), synchronisation(root, kernel)]
}

fn source(root: &Root) -> Check {
    let of = |which: &str| root.line(&format!("sys/devices/system/clocksource/clocksource0/{which}_clocksource"));
    match of("current") {
        None => SOURCE.good("not reported"),
        Some(current) if FAST_SOURCES.contains(&current.as_str()) => SOURCE.good(current),
        Some(current) => SOURCE.doubtful(
            current,
            "look in `sudo dmesg` for why the kernel left the processor's counter (TSC); a newer firmware often mends \
             it, or tsc=reliable on the kernel's command line where the counter is sound",
        ),
    }
}

fn synchronisation(root: &Root, kernel: Option<KernelClock>) -> Check {
    let setters: Vec<_> = SETTERS.iter().filter(|(comm, _)| root.runs(comm)).map(|(_, name)| *name).collect();
    let ptp4l = root.runs("ptp4l");
    let state = kernel.map_or(String::new(), |clock| format!("; {}", clock.sentence()));
    let is_unsynchronised = kernel.is_some_and(|clock| !clock.synchronised);
    match setters[..] {
        [] if ptp4l => SYNCHRONISATION.doubtful(
            "ptp4l keeps the network card's clock, and nothing brings it to the system's",
            "sudo phc2sys -a -r (linuxptp), beside ptp4l",
        ),
        // As in a container, which does not see the programs of its host.
        [] if kernel.is_some_and(|clock| clock.synchronised) => {
            SYNCHRONISATION.good(format!("by a program that is not seen from here{state}"))
        }
        [] => SYNCHRONISATION.doubtful(
            format!("nothing sets the clock{state}"),
            "sudo apt-get install chrony; for cameras with PTP linuxptp (ptp4l and phc2sys)",
        ),
        // timemaster runs several on purpose, and chronyd alone sets the clock.
        [_, _, ..] if !root.runs("timemaster") => SYNCHRONISATION.doubtful(
            format!("{} all set the clock, against each other{state}", setters.join(", ")),
            "keep one of them and disable the others (sudo systemctl disable --now …)",
        ),
        _ if is_unsynchronised && !is_synchronised_by_timesyncd(root, &setters) => SYNCHRONISATION.doubtful(
            format!("{} has not found the time yet{state}", setters.join(", ")),
            "see why: `chronyc sources` (its configuration needs rtcsync), `timedatectl timesync-status`, or `pmc -u \
             -b 0 'GET CURRENT_DATA_SET'`",
        ),
        _ if ptp4l && !setters.contains(&"phc2sys") => SYNCHRONISATION.doubtful(
            format!("ptp4l keeps the network card's clock, but the system's follows {}{state}", setters.join(", ")),
            "sudo phc2sys -a -r instead, or make the card's clock a source of chrony (refclock PHC /dev/ptp0)",
        ),
        _ => SYNCHRONISATION.good(format!("by {}{state}", setters.join(", "))),
    }
}

/// Its file says it earlier than the kernel does.
fn is_synchronised_by_timesyncd(root: &Root, setters: &[&str]) -> bool {
    setters == ["systemd-timesyncd"] && root.text("run/systemd/timesync/synchronized").is_some()
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;
    use crate::sysfs::trees::Tree;

    const FOUND: KernelClock = KernelClock { synchronised: true, correction_us: 12.0, error_us: 180.0 };
    const LOST: KernelClock = KernelClock { synchronised: false, correction_us: 0.0, error_us: 16e6 };

    fn with(programs: &[&str], kernel: KernelClock) -> (Health, String) {
        let tree = Tree::of(&[("proc/1/comm", "systemd"), ("proc/self/comm", "chronyd")]);
        programs.iter().zip(100..).for_each(|(name, pid)| tree.write(&format!("proc/{pid}/comm"), name.as_bytes()));
        let found = synchronisation(&tree.root(), Some(kernel));
        (found.health, found.finding)
    }

    #[test]
    fn the_programs_that_set_the_clock_are_told_apart() {
        use Health::{Doubtful, Good};
        for (programs, kernel, health, expected) in [
            (&["chronyd"][..], FOUND, Good, "by chronyd; 12 µs are still to be corrected, estimated error 180 µs"),
            (&["ptp4l", "phc2sys"], FOUND, Good, "by phc2sys"),
            (&["systemd-timesyn"], FOUND, Good, "by systemd-timesyncd"),
            (&["timemaster", "chronyd", "ptp4l", "phc2sys"], FOUND, Good, "by chronyd, phc2sys"),
            (&[], FOUND, Good, "not seen from here"),
            (&[], LOST, Doubtful, "nothing sets the clock; the kernel's clock is not synchronised"),
            (&["chronyd"], LOST, Doubtful, "has not found the time"),
            (&["ptp4l"], FOUND, Doubtful, "nothing brings it to the system's"),
            (&["ptp4l", "chronyd"], FOUND, Doubtful, "the system's follows chronyd"),
            (&["chronyd", "systemd-timesyn"], FOUND, Doubtful, "against each other"),
        ] {
            let found = with(programs, kernel);
            assert!(found.0 == health && found.1.contains(expected), "{programs:?}: {found:?}");
        }
    }

    #[test]
    fn a_slow_clock_source_is_doubtful() {
        assert_eq!(source(&Tree::recorded("laptop-x86").root()).health, Health::Doubtful);
        assert_eq!(source(&Tree::recorded("jetson-orin").root()).finding, "arch_sys_counter");
    }
}
