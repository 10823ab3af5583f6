//! Steps of bytes without weights, each from one tensor to another, as
//! [`Requantization`](crate::quantization::Requantization) writes them down.

use std::ops::Range;

use super::super::bilinear::{row_beside, upsample_row};
use super::super::layout::ThreadMemory;
use super::layout::{ByteView, BLOCK};
use crate::plan::Work;
use crate::quantization::{activation_table, nearest_byte, product_factor, relative_factor, TensorScale};
use crate::Window;

/// One such step.
pub enum PlainAction {
    MaxPool(Window),
    /// The mean of each window's values within the map, and its factor to the output's scale.
    AveragePool(Window, f32),
    /// Likewise of each channel.
    GlobalAverage(f32),
    /// Each channel multiplied by its value in another tensor, and the product's factor.
    Scale(ByteView, f32),
    /// What becomes of each byte.
    Table(Box<[u8; 256]>),
    Bilinear,
}

impl PlainAction {
    /// What `work`, which is neither a convolution nor a sum nor a copy, does to a tensor of the scale
    /// `input`; `second` is where a second operand lies, and its scale.
    pub fn new(
        work: &Work,
        input: TensorScale,
        second: impl Fn() -> (ByteView, TensorScale),
        output: TensorScale,
    ) -> Self {
        match *work {
            Work::MaxPool(window) => Self::MaxPool(window),
            Work::AveragePool(window) => Self::AveragePool(window, relative_factor(input, Some(output))),
            Work::GlobalAverage => Self::GlobalAverage(relative_factor(input, Some(output))),
            Work::Scale => {
                let (factors, scale) = second();
                Self::Scale(factors, product_factor([input, scale], output))
            }
            Work::Activate(activation) => Self::Table(Box::new(activation_table(activation, input, output))),
            Work::Bilinear2x => Self::Bilinear,
            Work::Conv { .. } | Work::Add(_) | Work::Upsample2x | Work::Concat(_) | Work::Gather(_) => {
                unreachable!("is an action of its own")
            }
        }
    }

    /// A human-readable description.
    pub fn describe(&self) -> String {
        let of = |window: &Window| format!("{0}x{0}/{1}", window.kernel, window.stride);
        match self {
            Self::MaxPool(window) => format!("max {}, int8", of(window)),
            Self::AveragePool(window, _) => format!("mean {}, int8", of(window)),
            Self::GlobalAverage(_) => "mean of each channel, int8".into(),
            Self::Scale(..) => "scaled by channel, int8".into(),
            Self::Table(_) => "table, int8".into(),
            Self::Bilinear => "bilinear upsampling, int8".into(),
        }
    }

    /// Computes `rows` of the output's `blocks`.
    ///
    /// # Safety
    /// The views must lie within `memory`, and no other thread may write what this reads or touch
    /// what it writes.
    pub unsafe fn run(
        &self,
        memory: &ThreadMemory,
        input: &ByteView,
        output: &ByteView,
        blocks: Range<usize>,
        rows: Range<usize>,
    ) {
        for block in blocks {
            for y in rows.clone() {
                if matches!(self, Self::Bilinear) {
                    bilinear_row(&Block { memory, view: input, block }, output, y);
                    continue;
                }
                let out = output.at(memory, block, y).cast::<Pixel>();
                let input = Block { memory, view: input, block };
                for x in 0..output.shape.width {
                    out.add(x).write(self.pixel(&input, output, (y, x)));
                }
                output.fill_border(memory, block, y);
            }
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    #[inline(always)]
    unsafe fn pixel(&self, input: &Block, output: &ByteView, (y, x): (usize, usize)) -> Pixel {
        let shape = input.view.shape;
        match self {
            Self::MaxPool(window) => {
                let mut most = [0u8; BLOCK];
                input.over(window.span(y, shape.height), window.span(x, shape.width), |pixel| {
                    (0..BLOCK).for_each(|lane| most[lane] = most[lane].max(pixel[lane]));
                });
                most
            }
            Self::AveragePool(window, factor) => {
                input.mean(window.span(y, shape.height), window.span(x, shape.width), *factor, output)
            }
            Self::GlobalAverage(factor) => input.mean(0..shape.height, 0..shape.width, *factor, output),
            Self::Scale(factors, factor) => {
                let (pixel, zero) = (input.at(y, x), i32::from(input.view.zero));
                let factors_here = Block { view: factors, ..*input }.at(0, 0);
                std::array::from_fn(|lane| {
                    let a = i32::from(pixel[lane]) - zero;
                    let b = i32::from(factors_here[lane]) - i32::from(factors.zero);
                    nearest_byte((a * b) as f32 * factor + f32::from(output.zero))
                })
            }
            Self::Table(table) => input.at(y, x).map(|q| table[usize::from(q)]),
            Self::Bilinear => unreachable!("is computed by rows"),
        }
    }
}

/// Row `y` of a block of the bilinear upsampling by two: nine sixteenths of the pixel that one of the result lies in, three of
/// the neighbour on either axis and one of that across, to the nearest byte and to the even one of two as near.
///
/// # Safety
/// As for [`PlainAction::run`].
unsafe fn bilinear_row(input: &Block, output: &ByteView, y: usize) {
    let Block { memory, view, block } = *input;
    let (height, width) = (view.shape.height, view.shape.width);
    let rows = [y / 2, row_beside(y, height)].map(|y| view.at(memory, block, y).cast::<Pixel>().cast_const());
    // Four times the blend of two rows, at most 1020; sixteen times that of two columns, at most 4080.
    let column = |own: Pixel, other: Pixel| -> [u16; BLOCK] {
        std::array::from_fn(|lane| 3 * u16::from(own[lane]) + u16::from(other[lane]))
    };
    let blend = |own: [u16; BLOCK], other: [u16; BLOCK]| -> Pixel {
        std::array::from_fn(|lane| {
            let sum = 3 * own[lane] + other[lane];
            ((sum + 7 + (sum >> 4 & 1)) >> 4) as u8
        })
    };
    upsample_row(rows, width, output.at(memory, block, y).cast::<Pixel>(), column, blend);
    output.fill_border(memory, block, y);
}

type Pixel = [u8; BLOCK];

/// One block of a tensor.
#[derive(Clone, Copy)]
struct Block<'a> {
    memory: &'a ThreadMemory,
    view: &'a ByteView,
    block: usize,
}

impl Block<'_> {
    /// # Safety
    /// As for [`PlainAction::run`]; the pixel must be within the map.
    #[inline(always)]
    unsafe fn at(&self, y: usize, x: usize) -> Pixel {
        *self.view.at(self.memory, self.block, y).cast::<Pixel>().add(x)
    }

    /// # Safety
    /// As for [`PlainAction::run`]; the pixels must be within the map.
    #[inline(always)]
    unsafe fn over(&self, rows: Range<usize>, columns: Range<usize>, mut f: impl FnMut(Pixel)) {
        for y in rows {
            let row = self.view.at(self.memory, self.block, y).cast::<Pixel>();
            columns.clone().for_each(|x| f(*row.add(x)));
        }
    }

    /// # Safety
    /// As for [`PlainAction::run`]; the pixels must be within the map.
    #[inline(always)]
    unsafe fn mean(&self, rows: Range<usize>, columns: Range<usize>, factor: f32, output: &ByteView) -> Pixel {
        let mut sums = [0i32; BLOCK];
        let count = rows.len() * columns.len();
        self.over(rows, columns, |pixel| (0..BLOCK).for_each(|lane| sums[lane] += i32::from(pixel[lane])));
        let (share, zeros) = (1.0 / count as f32, count as i32 * i32::from(self.view.zero));
        sums.map(|sum| nearest_byte((sum - zeros) as f32 * share * factor + f32::from(output.zero)))
    }
}
