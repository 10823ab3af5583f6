//! Lists of CPUs as the kernel writes them, such as `0-3,8`.

use std::collections::BTreeSet;

/// CPUs that are believed: a larger number is a damaged file.
const MAX_CPU: u32 = 8191;

/// The CPUs of a list. `None` if it is none; the kernel writes an empty list as nothing or `(null)`.
pub fn parse(list: &str) -> Option<BTreeSet<u32>> {
    if matches!(list, "" | "(null)") {
        return Some(BTreeSet::new());
    }
    let mut cpus = BTreeSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// The list of CPUs.
pub fn write(cpus: &BTreeSet<u32>) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &cpu in cpus {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => parts.push((cpu, cpu)),
        }
    }
    let part = |&(first, last): &(u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    parts.iter().map(part).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_parsed(cpus in prop::collection::btree_set(0..300u32, 0..40)) {
            prop_assert_eq!(parse(&write(&cpus)), Some(cpus));
        }

        #[test]
        fn no_text_panics_or_takes_long(text in "[0-9,() a-z-]{0,40}") {
            prop_assert!(parse(&text).is_none_or(|cpus| cpus.len() <= MAX_CPU as usize + 1));
        }
    }

    #[test]
    fn lists_of_the_kernel_are_understood() {
        assert_eq!(parse("0-2,8"), Some([0, 1, 2, 8].into()));
        assert_eq!((parse("(null)"), parse("")), (Some([].into()), Some([].into())));
        assert_eq!((parse("3-1"), parse("0-4000000000"), parse("all")), (None, None, None));
        assert_eq!(write(&[0, 1, 2, 8, 10, 11].into()), "0-2,8,10-11");
    }
}
