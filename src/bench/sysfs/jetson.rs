//! NVIDIA's Jetson boards: model, power mode, clocks of GPU and memory, over-current events.
//!
//! Sources: Jetson Linux Developer Guide R36, "Platform Power and Performance", for Orin; the files that `nvpmodel`
//! and `jetson_clocks` of R35 and R36 read and write.

use serde::Serialize;

use super::Root;

/// Devices of the GPU below `/sys/class/devfreq`: Orin (R36, R35), Xavier, TX2, Nano, all by their address.
pub(super) const GPUS: [&str; 5] =
    ["17000000.gpu", "17000000.ga10b", "17000000.gv11b", "17000000.gp10b", "57000000.gpu"];

/// Memory clock of the boot processor's firmware; readable by root alone.
const EMC: &str = "sys/kernel/debug/bpmp/debug/clk/emc";

/// What tells one board and its set-up from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Board {
    /// Such as `NVIDIA Jetson AGX Orin Developer Kit`.
    pub model: String,
    /// Release of Jetson Linux, such as `R36.4.3`.
    pub release: Option<String>,
    /// Name of the power mode, or its number where the configuration does not name it.
    pub power_mode: Option<String>,
}

/// The board. `None` if this is no Jetson.
pub fn board(root: &Root) -> Option<Board> {
    let compatible = root.text("proc/device-tree/compatible").unwrap_or_default();
    let is_tegra = compatible.split('\0').any(|name| name.starts_with("nvidia,tegra"));
    let model = root.line("proc/device-tree/model").filter(|model| is_tegra || model.contains("Jetson"))?;
    let power_mode = power_mode(root).map(|mode| mode.name.unwrap_or(mode.id.to_string()));
    Some(Board { model: model.trim_end_matches('\0').to_owned(), release: release(root), power_mode })
}

/// From a line such as `# R36 (release), REVISION: 4.3, GCID: …`.
fn release(root: &Root) -> Option<String> {
    let line = root.line("etc/nv_tegra_release")?;
    let major = line.split_whitespace().find(|word| word.starts_with('R') && word[1..].parse::<u32>().is_ok())?;
    let revision = line.split("REVISION:").nth(1)?.split(',').next()?.trim();
    Some(format!("{major}.{revision}"))
}

/// A power mode of nvpmodel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerMode {
    pub id: u32,
    /// `None` if nvpmodel's configuration does not name it.
    pub name: Option<String>,
}

impl PowerMode {
    /// Whether it limits neither clocks nor the number of CPUs: `MAXN`, `MAXN_SUPER`.
    pub fn is_unlimited(&self) -> bool {
        self.name.as_ref().is_some_and(|name| name.starts_with("MAXN"))
    }
}

/// The present power mode.
pub fn power_mode(root: &Root) -> Option<PowerMode> {
    let status = root.line("var/lib/nvpmodel/status")?;
    let id = status.split_whitespace().find_map(|word| word.strip_prefix("pmode:"))?.parse().ok()?;
    let name = power_modes(root).into_iter().find(|mode| mode.id == id).and_then(|mode| mode.name);
    Some(PowerMode { id, name })
}

/// The modes of nvpmodel's configuration: lines such as `< POWER_MODEL ID=0 NAME=MAXN >`.
pub fn power_modes(root: &Root) -> Vec<PowerMode> {
    let text = root.text("etc/nvpmodel.conf").unwrap_or_default();
    let mode = |line: &str| {
        let words = line.trim().strip_prefix('<')?.trim().strip_prefix("POWER_MODEL ")?;
        let of = |key: &str| words.split_whitespace().find_map(|word| word.strip_prefix(key));
        Some(PowerMode { id: of("ID=")?.parse().ok()?, name: of("NAME=").map(str::to_owned) })
    };
    text.lines().filter_map(mode).collect()
}

/// A clock and the range in which it may be, MHz.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clock {
    pub now: f64,
    pub lowest: f64,
    pub highest: f64,
}

impl Clock {
    /// Whether it is held at the highest.
    pub fn is_locked(&self) -> bool {
        self.lowest >= self.highest
    }
}

/// The GPU's clock.
pub fn gpu_clock(root: &Root) -> Option<Clock> {
    let read = |name: &str| {
        let mhz = |file: &str| Some(root.count(&format!("sys/class/devfreq/{name}/{file}"))? as f64 / 1e6);
        Some(Clock { now: mhz("cur_freq")?, lowest: mhz("min_freq")?, highest: mhz("max_freq")? })
    };
    GPUS.into_iter().find_map(read)
}

/// The memory's clock. Only root can read it.
pub fn memory_clock(root: &Root) -> Option<Clock> {
    let mhz = |file: &str| Some(root.count(&format!("{EMC}/{file}"))? as f64 / 1e6);
    let (now, highest) = (mhz("rate")?, mhz("max_rate")?);
    let locked = root.count(&format!("{EMC}/mrq_rate_locked")) == Some(1);
    Some(Clock { now, lowest: if locked { now } else { mhz("min_rate").unwrap_or(0.0) }, highest })
}

/// The highest clock, MHz, that the power mode permits the memory. `None` without a cap.
pub fn memory_cap_mhz(root: &Root) -> Option<f64> {
    root.count("sys/kernel/nvpmodel_clk_cap/emc").filter(|&hz| hz > 0).map(|hz| hz as f64 / 1e6)
}

/// Times since boot that the power supply's voltage fell or its current rose beyond a limit, so that the hardware
/// lowered the clocks.
pub fn over_current_events(root: &Root) -> Option<u64> {
    let folder = "sys/class/hwmon";
    let monitors = root.numbered(folder, "hwmon").into_iter().map(|(_, name)| format!("{folder}/{name}"));
    let soctherm = monitors.filter(|monitor| root.line(&format!("{monitor}/name")).as_deref() == Some("soctherm_oc"));
    let counts = soctherm.flat_map(|monitor| (1..=3).map(move |i| format!("{monitor}/oc{i}_event_cnt")));
    counts.filter_map(|path| root.count(&path)).reduce(u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::super::trees::Tree;
    use super::*;

    #[test]
    fn an_orin_tells_its_model_release_and_power_mode() {
        let orin = Tree::recorded("jetson-orin");
        let expected = Board {
            model: "NVIDIA Jetson AGX Orin Developer Kit".into(),
            release: Some("R36.4.3".into()),
            power_mode: Some("MODE_30W".into()),
        };
        assert_eq!(board(&orin.root()), Some(expected));
        assert_eq!(power_modes(&orin.root()).len(), 4);
    }

    #[test]
    fn another_board_and_a_damaged_release_are_no_jetson() {
        let pi = Tree::of(&[
            ("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0"),
            ("proc/device-tree/compatible", "raspberrypi,5-model-b\0brcm,bcm2712\0"),
            ("etc/nv_tegra_release", "# Rxx"),
        ]);
        assert_eq!((board(&pi.root()), release(&pi.root())), (None, None));
    }

    #[test]
    fn clocks_caps_and_events_are_read() {
        let orin = Tree::recorded("jetson-orin");
        let root = orin.root();
        let gpu = gpu_clock(&root).unwrap();
        assert_eq!((gpu.now, gpu.lowest, gpu.highest, gpu.is_locked()), (306.0, 306.0, 624.75, false));
        assert_eq!((memory_cap_mhz(&root), over_current_events(&root)), (Some(3199.0), Some(2)));
        let locked = Tree::of(&[
            ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "3199000000"),
            ("sys/kernel/debug/bpmp/debug/clk/emc/max_rate", "3199000000"),
            ("sys/kernel/debug/bpmp/debug/clk/emc/mrq_rate_locked", "1"),
            ("sys/kernel/nvpmodel_clk_cap/emc", "0"),
        ]);
        let root = locked.root();
        assert!(memory_clock(&root).unwrap().is_locked() && memory_cap_mhz(&root).is_none());
    }
}
