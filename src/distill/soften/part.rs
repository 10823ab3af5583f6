//! One part of the images, so that several machines can soften at once: part I of N has every Nth
//! shard. Parts are written to folders of their own and joined by [`merge`](super::merge).

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where a scheduler says which of its jobs this is, and the variable with the first job's number:
/// Slurm, Kubernetes (an indexed Job), HyperQueue.
const JOB_NUMBERS: [(&str, Option<&str>); 3] =
    [("SLURM_ARRAY_TASK_ID", Some("SLURM_ARRAY_TASK_MIN")), ("JOB_COMPLETION_INDEX", None), ("HQ_TASK_ID", None)];

/// Which part of the shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// From 0 on.
    pub index: usize,
    pub of: usize,
}

impl Part {
    /// Whether the shard with this number, counted over all data sets, is of this part.
    pub fn has(self, number: usize) -> bool {
        number % self.of == self.index
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text, |variable| std::env::var(variable).ok())
    }
}

fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Part, String> {
    let form = || format!("{text:?}: give I/N, such as 0/8 to 7/8, or auto/N for the number that a scheduler gives");
    let (index, of) = text.split_once('/').ok_or_else(form)?;
    let of: usize = of.parse().map_err(|_| form())?;
    let index = if index == "auto" { job_number(variable)? } else { index.parse().map_err(|_| form())? };
    if of == 0 || index >= of {
        return Err(format!("there is no part {index} of {of}: parts are numbered from 0 to N - 1"));
    }
    Ok(Part { index, of })
}

fn job_number(variable: impl Fn(&str) -> Option<String>) -> Result<usize, String> {
    let number = |name: &str| -> Result<Option<usize>, String> {
        let parse = |text: String| text.parse().map_err(|_| format!("{name}={text:?} is no job's number"));
        variable(name).map(parse).transpose()
    };
    for (job, first) in JOB_NUMBERS {
        if let Some(job) = number(job)? {
            let first = first.map_or(Ok(None), number)?.unwrap_or(0);
            return job.checked_sub(first).ok_or_else(|| format!("job {job} comes before the first, {first}"));
        }
    }
    let names: Vec<&str> = JOB_NUMBERS.iter().map(|(job, _)| *job).collect();
    Err(format!("auto: none of {} is set; give the part's number", names.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_given_or_comes_from_the_scheduler() {
        let with = |set: &'static [(&str, &str)]| {
            move |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned())
        };
        assert_eq!(parse("2/8", with(&[])), Ok(Part { index: 2, of: 8 }));
        assert_eq!(parse("auto/8", with(&[("JOB_COMPLETION_INDEX", "7")])).unwrap().index, 7);
        assert_eq!(parse("auto/8", with(&[("HQ_TASK_ID", "0")])).unwrap().index, 0);
        let slurm = &[("SLURM_ARRAY_TASK_ID", "5"), ("SLURM_ARRAY_TASK_MIN", "1")];
        assert_eq!(parse("auto/8", with(slurm)).unwrap().index, 4);
    }

    #[test]
    fn what_is_no_part_is_refused_with_the_form() {
        let refused = |text: &str, words: &str| {
            let error = parse(text, |name| (name == "HQ_TASK_ID").then(|| "many".into())).unwrap_err();
            assert!(error.contains(words), "{error}");
        };
        refused("3", "I/N");
        refused("a/b", "I/N");
        refused("8/8", "from 0 to N - 1");
        refused("0/0", "no part 0 of 0");
        refused("auto/2", "HQ_TASK_ID=\"many\"");
        assert!(parse("auto/2", |_| None).unwrap_err().contains("SLURM_ARRAY_TASK_ID"));
    }

    #[test]
    fn the_parts_have_each_shard_once() {
        for of in 1..6 {
            for number in 0..20 {
                assert_eq!((0..of).filter(|&index| Part { index, of }.has(number)).count(), 1);
            }
        }
    }
}
