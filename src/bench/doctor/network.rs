//! What the middleware needs of the network's buffers and of shared memory.

use super::check::{Check, Topic};
use crate::sysfs::Root;

const SOCKETS: Topic = Topic {
    name: "DDS buffers",
    why: "an image from another computer is a burst of packets, and what the socket cannot hold is lost with the image",
};

const FRAGMENTS: Topic = Topic {
    name: "IP fragments",
    why: "one lost packet leaves the rest of its image in the kernel's memory, until whole images no longer fit",
};

const SHARED_MEMORY: Topic = Topic {
    name: "DDS memory",
    why: "Fast DDS by default holds less than one 640x480 image in shared memory, and loses a third of the images",
};

/// A 1080p image in rgb8 is 6 MiB.
const ENOUGH_BUFFER: u64 = 8 << 20;

/// Eight such images, with room for what is lost.
const ENOUGH_FRAGMENTS: u64 = 64 << 20;

pub fn checks(root: &Root) -> Vec<Check> {
    let net = |file: &str| root.count(&format!("proc/sys/net/{file}"));
    let ros = std::env::var_os("ROS_DISTRO").is_some();
    vec![
        sockets(net("core/rmem_max"), net("core/rmem_default")),
        fragments(net("ipv4/ipfrag_high_thresh"), net("ipv4/ipfrag_time")),
        shared_memory(ros, profile_is_set()),
    ]
}

fn sockets(most: Option<u64>, default: Option<u64>) -> Check {
    let Some(most) = most else { return SOCKETS.good("not reported") };
    let default = default.map_or(String::new(), |bytes| format!(", by default {} KiB", bytes >> 10));
    let finding = format!("sockets buffer at most {} KiB{default}", most >> 10);
    if most >= ENOUGH_BUFFER {
        return SOCKETS.good(finding);
    }
    SOCKETS.doubtful(
        finding,
        "sudo sysctl -w net.core.rmem_max=33554432, and net.core.rmem_default=33554432 where the middleware does not \
         ask for it",
    )
}

fn fragments(memory: Option<u64>, seconds: Option<u64>) -> Check {
    let (Some(memory), Some(seconds)) = (memory, seconds) else { return FRAGMENTS.good("not reported") };
    let finding = format!("{} MiB, kept for {seconds} s", memory >> 20);
    if memory >= ENOUGH_FRAGMENTS || seconds <= 3 {
        return FRAGMENTS.good(finding);
    }
    FRAGMENTS.doubtful(finding, "sudo sysctl -w net.ipv4.ipfrag_high_thresh=134217728 net.ipv4.ipfrag_time=3")
}

fn profile_is_set() -> bool {
    let variables = ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"];
    let other = std::env::var("RMW_IMPLEMENTATION").is_ok_and(|name| !name.contains("fastrtps"));
    other || variables.iter().any(|name| std::env::var_os(name).is_some())
}

fn shared_memory(ros: bool, profile: bool) -> Check {
    match (ros, profile) {
        (false, _) => SHARED_MEMORY.good("not applicable: no ROS 2 environment"),
        (true, true) => SHARED_MEMORY.good("a middleware profile is set"),
        (true, false) => SHARED_MEMORY.doubtful(
            "no middleware profile is set",
            "export FASTRTPS_DEFAULT_PROFILES_FILE=launch/fastdds.xml, above all for the camera driver",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn small_buffers_are_doubtful_and_unknown_ones_are_not() {
        assert_eq!(sockets(Some(212_992), Some(212_992)).health, Health::Doubtful);
        assert_eq!((sockets(Some(32 << 20), None).health, sockets(None, None).health), (Health::Good, Health::Good));
        assert_eq!(fragments(Some(4 << 20), Some(30)).health, Health::Doubtful);
        assert_eq!(fragments(Some(4 << 20), Some(3)).health, Health::Good);
        assert_eq!(
            (shared_memory(true, false).health, shared_memory(true, true).health),
            (Health::Doubtful, Health::Good)
        );
    }
}
