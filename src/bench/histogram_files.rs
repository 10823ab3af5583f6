//! The latency distribution in HdrHistogram's formats: `.hgrm`, the percentile text that its
//! plotters read, and the interval log (version 1.3, histograms in the compressed V2 encoding).

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::Histogram;

use super::record::{BenchRun, FrameRecord};
use super::report::distributions;

/// Steps per half-distance to 100 %, as in HdrHistogram's own output.
const STEPS_PER_HALF_DISTANCE: u32 = 5;

/// Nanoseconds in a millisecond, the unit of both files.
const MS: f64 = 1e6;

/// Percentiles of the latency from the scheduled instant, in milliseconds. Frames without a result
/// are excluded; a comment at the end gives their number.
pub fn hgrm(run: &BenchRun) -> String {
    let all = distributions(run);
    let (_, latency) = &all[0];
    let h = latency.histogram();
    let mut out = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for value in h.iter_quantiles(STEPS_PER_HALF_DISTANCE) {
        total += value.count_since_last_iteration();
        let (ms, quantile) = (value.value_iterated_to() as f64 / MS, value.quantile_iterated_to());
        let _ = if quantile < 1.0 {
            writeln!(out, "{ms:12.6} {quantile:.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(out, "{ms:12.6} {quantile:.12} {total:10}")
        };
    }
    let (mean, deviation, max) = (h.mean() / MS, h.stdev() / MS, latency_max(run) as f64 / MS);
    let _ = writeln!(out, "#[Mean    = {mean:12.6}, StdDeviation   = {deviation:12.6}]");
    let _ = writeln!(out, "#[Max     = {max:12.6}, Total count    = {:12}]", h.len());
    let _ = writeln!(out, "#[Buckets = {:12}, SubBuckets     = {:12}]", h.buckets(), h.distinct_values());
    let lost = latency.without_result();
    if lost > 0 {
        let _ = writeln!(out, "#[Frames without a result, not counted above = {lost}]");
    }
    out
}

fn latency_max(run: &BenchRun) -> u64 {
    run.records.iter().filter_map(FrameRecord::latency).max().unwrap_or(0)
}

/// An interval log with a histogram for each second in which frames were due: untagged, the latency
/// from the scheduled instant; tagged with its name, each stage.
pub fn log(run: &BenchRun) -> String {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail, and all values are in the histogram's range.
    let _ = write_log(&mut bytes, run);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn write_log(bytes: &mut Vec<u8>, run: &BenchRun) -> Result<(), Box<dyn std::error::Error>> {
    const SECOND: u64 = 1_000_000_000;
    let (mut serializer, start) = (V2DeflateSerializer::new(), run.start());
    let mut writer = IntervalLogWriterBuilder::new()
        .add_comment("[peregrine latency_bench; values in nanoseconds, maxima in milliseconds]")
        .with_base_time(UNIX_EPOCH)
        .with_max_value_divisor(MS)
        .begin_log_with(bytes, &mut serializer)?;
    let mut records: Vec<_> = run.records.iter().collect();
    records.sort_by_key(|record| record.scheduled);
    for part in records.chunk_by(|a, b| (a.scheduled - start) / SECOND == (b.scheduled - start) / SECOND) {
        let second = Duration::from_secs((part[0].scheduled - start) / SECOND);
        let mut write = |tag: Option<&str>, of: &dyn Fn(&FrameRecord) -> Option<u64>| {
            let mut histogram = Histogram::<u64>::new_with_bounds(1_000, 2_000, 3)?;
            histogram.auto(true);
            for value in part.iter().filter_map(|record| of(record)) {
                histogram.record(value)?;
            }
            writer.write_histogram(&histogram, second, Duration::from_secs(1), tag.and_then(Tag::new))?;
            Ok::<_, Box<dyn std::error::Error>>(())
        };
        write(None, &FrameRecord::latency)?;
        for &stage in run.layer.stages() {
            write(Some(stage.name()), &|record| record.stage(stage))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::prelude::*;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    use hdrhistogram::serialization::Deserializer;

    use super::*;
    use crate::simulation::{profile, simulate};

    fn run() -> BenchRun {
        simulate(&profile(250), |frame| Some([1, if frame == 50 { 40 } else { 5 }, 1]))
    }

    #[test]
    fn the_percentiles_rise_to_the_maximum() {
        let text = hgrm(&run());
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|v| v.parse().unwrap()).collect())
            .collect();
        assert!(rows.is_sorted_by(|a, b| a[0] <= b[0] && a[1] <= b[1] && a[2] <= b[2]), "{text}");
        let last = rows.last().unwrap();
        // 42 ms, in a bucket of 1 µs. The 3 frames that were superseded have no result.
        assert!((last[0] - 42.0).abs() < 0.002 && last[1] == 1.0 && last[2] == 247.0, "{text}");
        assert!(text.contains("#[Max     =    42.000000, Total count    =          247]"), "{text}");
        assert!(text.contains("not counted above = 3]"), "{text}");
    }

    #[test]
    fn hdrhistogram_reads_the_log() {
        let text = log(&run());
        let entries: Vec<_> = IntervalLogIterator::new(text.as_bytes()).map(|e| e.unwrap()).collect();
        let mut counted = std::collections::BTreeMap::new();
        for entry in entries {
            let LogEntry::Interval(interval) = entry else { continue };
            let tag = interval.tag().map_or("", |tag| tag.as_str()).to_owned();
            let histogram: Histogram<u64> = Deserializer::new()
                .deserialize(&mut &BASE64_STANDARD.decode(interval.encoded_histogram()).unwrap()[..])
                .unwrap();
            *counted.entry(tag).or_insert(0) += histogram.len();
        }
        let expected = [
            ("", 247),
            ("arrival", 247),
            ("decode", 247),
            ("inference", 247),
            ("preprocess", 247),
            ("track", 247),
            ("wait", 247),
        ];
        assert_eq!(counted.iter().map(|(tag, n)| (tag.as_str(), *n)).collect::<Vec<_>>(), expected);
    }
}
