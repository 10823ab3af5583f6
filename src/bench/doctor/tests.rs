//! The checks of whole machines, from recorded trees; and of damaged ones.

use proptest::prelude::*;

use super::*;
use crate::sysfs::trees::{Tree, RECORDED};
use crate::system::KernelClock;

const CLOCK: KernelClock = KernelClock { synchronised: true, correction_us: 3.0, error_us: 40.0 };

fn examine(tree: &Tree) -> Vec<Check> {
    of_files(&tree.root(), Some(CLOCK))
}

/// The finding of each check that is not good, by name.
fn doubts(machine: &str) -> Vec<(&'static str, String)> {
    let checks = examine(&Tree::recorded(machine)).into_iter();
    // That depends on the environment and not on files.
    let checks = checks.filter(|check| check.health != Health::Good && check.name != "DDS memory");
    checks.map(|check| (check.name, check.finding)).collect()
}

fn expect(machine: &str, expected: &[(&'static str, &str)]) {
    let expected: Vec<_> = expected.iter().map(|(name, finding)| (*name, (*finding).to_owned())).collect();
    assert_eq!(doubts(machine), expected);
}

#[test]
fn a_laptop_is_doubted_for_all_that_spoils_its_latency() {
    expect(
        "laptop-x86",
        &[
            ("governor", "powersave: 400 to 4200 MHz, rises only under load"),
            ("idle states", "deepest: C10, exit latency 230 µs"),
            ("hyper-threads", "on"),
            ("heat", "CPUs were throttled 124 times since boot"),
            ("swap", "432 MiB in use"),
            ("huge pages", "transparent: always, compaction: madvise"),
            ("reserved pages", "6144 of 15705 MiB are reserved, 6144 MiB of them unused"),
            ("kernel", "without PREEMPT_RT"),
            ("RT throttling", "real-time threads have 950 of each 1000 ms"),
            ("isolation", "no isolated CPUs"),
            ("irqbalance", "runs, and may move interrupts to any CPU"),
            ("clock source", "hpet"),
            ("DDS buffers", "sockets buffer at most 208 KiB, by default 208 KiB"),
            ("IP fragments", "4 MiB, kept for 30 s"),
        ],
    );
}

#[test]
fn a_virtual_machine_is_doubted_for_its_kernel_and_buffers() {
    expect(
        "virtual-x86",
        &[
            ("kernel", "without PREEMPT_RT"),
            ("RT throttling", "real-time threads have 950 of each 1000 ms"),
            ("DDS buffers", "sockets buffer at most 4096 KiB, by default 208 KiB"),
            ("IP fragments", "4 MiB, kept for 30 s"),
        ],
    );
}

#[test]
fn a_jetson_is_doubted_for_its_power_mode_clocks_and_supply() {
    expect(
        "jetson-orin",
        &[
            ("power mode", "MODE_30W (mode 2), 8 of 12 CPUs"),
            ("jetson_clocks", "free clocks: CPU 729 to 1728 MHz, GPU 306 to 625 MHz"),
            ("supply", "over-current or under-voltage 2 times since boot"),
            ("governor", "schedutil: 729 to 1728 MHz, rises only under load"),
            ("idle states", "deepest: c7, exit latency 5000 µs"),
            ("huge pages", "transparent: always, compaction: madvise"),
            ("kernel", "without PREEMPT_RT"),
            (
                "isolation",
                "CPUs 6-7 are isolated, but without nohz_full=6-7 rcu_nocbs=6-7: timers and callbacks of the kernel \
                 run on them",
            ),
            ("interrupts", "on isolated CPUs: 128 (eth0)"),
            (
                "clock sync",
                "ptp4l keeps the network card's clock, but the system's follows chronyd; 3 µs are still to \
                            be corrected, estimated error 40 µs",
            ),
        ],
    );
    let checks = examine(&Tree::recorded("jetson-orin"));
    let remedy = |name| checks.iter().find(|check| check.name == name).map(|check| check.remedy.as_str());
    assert_eq!(remedy("jetson_clocks"), Some("sudo jetson_clocks"));
    assert!(remedy("power mode").is_some_and(|text| text.starts_with("sudo nvpmodel -m 0 (MAXN)")));
    assert!(remedy("isolation").is_some_and(|text| text.contains("/boot/extlinux/extlinux.conf")));
    let heat = checks.iter().find(|check| check.name == "heat").map(|check| check.finding.as_str());
    assert_eq!(heat, Some("cpu-thermal at 54 °C, limit 99 °C"));
}

#[test]
fn a_jetson_that_is_set_up_for_a_vehicle_is_good() {
    let orin = Tree::recorded("jetson-orin");
    orin.write("var/lib/nvpmodel/status", b"pmode:0000 fmode:quiet");
    orin.write("sys/class/devfreq/17000000.gpu/min_freq", b"624750000");
    orin.write("sys/class/hwmon/hwmon3/oc3_event_cnt", b"0");
    orin.write("sys/kernel/realtime", b"1");
    orin.write("sys/kernel/mm/transparent_hugepage/enabled", b"always [madvise] never");
    orin.write("sys/devices/system/cpu/nohz_full", b"6-7");
    orin.write("proc/irq/128/effective_affinity_list", b"0");
    orin.write("proc/self/status", b"Name:\tlatency_bench\nCpus_allowed_list:\t6-7\n");
    orin.write("proc/732/comm", b"phc2sys");
    orin.remove("proc/720/comm");
    for cpu in 0..8 {
        orin.write(&format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_min_freq"), b"1728000");
        orin.write(&format!("sys/devices/system/cpu/cpu{cpu}/cpuidle/state1/disable"), b"1");
    }
    let checks = examine(&orin);
    let doubts: Vec<_> = checks.iter().filter(|c| c.health != Health::Good && c.name != "DDS memory").collect();
    assert!(doubts.is_empty(), "{doubts:#?}");
}

#[test]
fn a_heated_or_slowed_machine_is_doubted() {
    let orin = Tree::recorded("jetson-orin");
    let heat = || examine(&orin).into_iter().find(|check| check.name == "heat").unwrap();
    orin.write("sys/class/thermal/thermal_zone8/temp", b"93000");
    assert_eq!((heat().health, heat().finding.as_str()), (Health::Doubtful, "tj-thermal at 93 °C, limit 99 °C"));
    orin.write("sys/class/thermal/cooling_device4/cur_state", b"1");
    assert_eq!(heat().finding, "clocks are lowered at this moment by cpu-throttle-alert");
}

#[test]
fn a_process_off_the_isolated_cpus_is_told_to_go_there() {
    let orin = Tree::recorded("jetson-orin");
    orin.write("proc/self/status", b"Cpus_allowed_list:\t0-5\n");
    let found = examine(&orin).into_iter().find(|check| check.name == "isolation").unwrap();
    assert!(found.finding.ends_with("this program is not on them"), "{found:?}");
    assert!(found.remedy.ends_with("`taskset -c 6-7`"), "{found:?}");
}

/// Whether each check of the three machines stays sound: a finding, a reason, and a remedy where it is not good.
fn sound(checks: &[Check]) {
    for check in checks {
        assert!(!check.finding.is_empty() && !check.why.is_empty() && !check.why.ends_with('.'), "{check:?}");
        assert_eq!(check.health == Health::Good, check.remedy.is_empty(), "{check:?}");
    }
}

#[test]
fn every_check_has_a_reason_and_every_doubt_a_remedy() {
    RECORDED.iter().for_each(|machine| sound(&examine(&Tree::recorded(machine))));
    sound(&of_files(&Root::system(), system::kernel_clock()));
}

#[test]
fn an_empty_tree_and_every_missing_file_leave_the_other_checks() {
    let nothing = of_files(&Tree::of(&[]).root(), None);
    sound(&nothing);
    assert!(nothing.iter().all(|check| check.health != Health::Bad), "{nothing:?}");
    for machine in RECORDED {
        let tree = Tree::recorded(machine);
        let count = examine(&tree).len();
        for path in tree.paths() {
            tree.remove(&path);
            let found = examine(&tree);
            sound(&found);
            assert!(found.len() + 5 >= count, "{machine} without {path}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn files_of_garbage_are_neither_a_panic_nor_a_check_without_remedy(
        machine in prop::sample::select(&RECORDED[..]),
        choice in any::<prop::sample::Index>(),
        garbage in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..200),
            "[-0-9a-z:,. \n<=>]{0,80}".prop_map(String::into_bytes),
            Just(b"18446744073709551615".to_vec()),
            Just(b"-9223372036854775808".to_vec()),
            Just(b"0-4294967295".to_vec()),
        ],
    ) {
        let tree = Tree::recorded(machine);
        let paths = tree.paths();
        tree.write(&paths[choice.index(paths.len())], &garbage);
        sound(&examine(&tree));
    }
}

#[test]
fn the_files_of_an_examination_are_a_tree_with_the_same_findings() {
    for machine in RECORDED {
        let root = Tree::recorded(machine);
        let root = (root.root().keeping(), root);
        let first = of_files(&root.0, Some(CLOCK));
        let files = root.0.into_files();
        let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        assert_eq!(examine(&Tree::of(&files)), first, "{machine}");
    }
}

#[test]
fn the_text_gives_reason_and_remedy_below_a_doubt() {
    let checks = vec![
        check::Topic { name: "governor", why: "the clock falls" }.doubtful("powersave", "sudo cpupower"),
        check::Topic { name: "swap", why: "it is slow" }.good("none"),
    ];
    let (machine, files) = (Fingerprint::read(), BTreeMap::new());
    let found = Examination { schema_version: SCHEMA_VERSION, fit: false, machine, checks, files }.with(None);
    let lines: Vec<String> = found.text().lines().map(|line| line.trim().to_owned()).collect();
    assert_eq!(
        lines,
        [
            "doubtful  governor      powersave",
            "why: the clock falls",
            "-> sudo cpupower",
            "good      swap          none"
        ]
    );
    let json: serde_json::Value = serde_json::from_str(&found.json()).unwrap();
    assert_eq!((&json["fit"], &json["checks"][0]["health"]), (&true.into(), &"doubtful".into()));
    assert_eq!(json["checks"][1]["remedy"], "");
}
