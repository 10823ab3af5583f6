//! Which source rows and columns an output row or column is made of.

/// Most samples of an output pixel along one axis.
pub const MAX_SAMPLES: usize = 4;

/// One, as a weight of rows: 255 · `ROW_ONE` fits 16 bits.
pub const ROW_ONE: u32 = 1 << 8;

/// One, as a weight of columns: 255 · `ROW_ONE` · `COLUMN_ONE` fits 31 bits, which convert to `f32` in one instruction.
pub const COLUMN_ONE: u32 = 1 << 15;

/// A source row or column, and its share of an output row or column.
#[derive(Debug, Clone, Copy)]
pub struct Tap {
    pub index: u32,
    pub weight: u32,
}

/// The taps of every output position along one axis; their weights add up to `one` at each.
#[derive(Debug, Clone)]
pub struct Axis {
    pub per_position: usize,
    pub taps: Vec<Tap>,
}

impl Axis {
    /// Two taps where `source` positions shrink to `output` by no more than two, else up to [`MAX_SAMPLES`].
    pub fn new(source: usize, output: usize, one: u32) -> Self {
        let step = source as f64 / output as f64;
        if step <= 2.0 {
            let taps = (0..output).flat_map(|i| bilinear_taps((i as f64 + 0.5) * step - 0.5, source, one)).collect();
            return Self { per_position: 2, taps };
        }
        let samples = ((step / 2.0).ceil() as usize).clamp(2, MAX_SAMPLES);
        let taps = (0..output).flat_map(|i| box_taps(i, samples, source, output, one)).collect();
        Self { per_position: samples, taps }
    }

    pub fn taps_of(&self, position: usize) -> &[Tap] {
        &self.taps[position * self.per_position..][..self.per_position]
    }

    pub fn first_source(&self, position: usize) -> usize {
        self.taps_of(position)[0].index as usize
    }

    pub fn last_source(&self, position: usize) -> usize {
        self.taps_of(position)[self.per_position - 1].index as usize
    }
}

/// The two pixels around `at` (in pixel centres), the border repeated.
fn bilinear_taps(at: f64, source: usize, one: u32) -> [Tap; 2] {
    let at = at.clamp(0.0, (source - 1) as f64);
    let index = at as u32;
    let second = ((at - at.floor()) * one as f64).round() as u32;
    [Tap { index, weight: one - second }, Tap { index: (index + 1).min(source as u32 - 1), weight: second }]
}

/// `samples` pixels of equal weight, spread evenly over what output position `i` covers. In whole numbers, since many
/// samples fall on the very border of two pixels.
fn box_taps(i: usize, samples: usize, source: usize, output: usize, one: u32) -> impl Iterator<Item = Tap> {
    let share = move |n: usize| (n as u32 * one + samples as u32 / 2) / samples as u32;
    (0..samples).map(move |n| {
        let index = (2 * (i * samples + n) + 1) * source / (2 * samples * output);
        Tap { index: index as u32, weight: share(n + 1) - share(n) }
    })
}
