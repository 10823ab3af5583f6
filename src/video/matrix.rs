//! Which weights make luma of red, green and blue; and pictures of other weights brought to BT.601's,
//! which all that follows expects.

/// The weights of red and blue in luma; green has the rest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Matrix {
    red: f64,
    blue: f64,
}

/// ITU-R BT.601: what streams that say nothing are taken for, as ffmpeg takes them.
const BT601: Matrix = Matrix { red: 0.299, blue: 0.114 };

/// Bits behind the point of [`Conversion`]'s factors.
const POINT: u32 = 14;

impl Matrix {
    /// By the number that the stream has (H.264, table E-5); `None` for what is not made of such
    /// weights.
    pub fn numbered(number: i64) -> Option<Self> {
        match number {
            // BT.709, of most cameras of high definition.
            1 => Some(Self { red: 0.2126, blue: 0.0722 }),
            // Not specified; FCC (within 0.4 % of it); BT.470 BG; SMPTE 170M.
            2 | 4..=6 => Some(BT601),
            // SMPTE 240M.
            7 => Some(Self { red: 0.212, blue: 0.087 }),
            // BT.2020 with constant luminance is another thing.
            9 => Some(Self { red: 0.2627, blue: 0.0593 }),
            _ => None,
        }
    }

    /// What brings its pictures to BT.601; `None` if they are already.
    pub fn conversion(self, full_range: bool) -> Option<Conversion> {
        (self != BT601).then(|| Conversion::between(self, BT601, full_range))
    }

    /// Luma and the two differences of colours, each divided by its range, of red, green and blue.
    fn of_rgb(self, [r, g, b]: [f64; 3]) -> [f64; 3] {
        let y = self.red * r + (1.0 - self.red - self.blue) * g + self.blue * b;
        [y, (b - y) / (2.0 * (1.0 - self.blue)), (r - y) / (2.0 * (1.0 - self.red))]
    }

    /// The other way.
    fn to_rgb(self, [y, u, v]: [f64; 3]) -> [f64; 3] {
        let (r, b) = (y + 2.0 * (1.0 - self.red) * v, y + 2.0 * (1.0 - self.blue) * u);
        [r, (y - self.red * r - self.blue * b) / (1.0 - self.red - self.blue), b]
    }
}

/// From the luma and chroma of one matrix to those of another: linear, and luma goes into luma alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversion {
    /// Of the old U and V: what is added to Y, the new U, the new V.
    factors: [[i32; 2]; 3],
}

impl Conversion {
    fn between(from: Matrix, to: Matrix, full_range: bool) -> Self {
        // Limited luma has 219 levels where chroma has 224 (BT.601, 2.5.1).
        let luma = if full_range { 1.0 } else { 219.0 / 224.0 };
        let column = |yuv| to.of_rgb(from.to_rgb(yuv));
        let (u, v) = (column([0.0, 1.0, 0.0]), column([0.0, 0.0, 1.0]));
        let fixed = |value: f64| (value * f64::from(1 << POINT)).round() as i32;
        let row = |at: usize, scale| [fixed(u[at] * scale), fixed(v[at] * scale)];
        Self { factors: [row(0, luma), row(1, 1.0), row(2, 1.0)] }
    }

    /// Converts a picture in I420 of even sides, `width` values of luma in a row.
    pub fn apply(self, data: &mut [u8], width: usize, height: usize) {
        let (luma, chroma) = data.split_at_mut(width * height);
        let (us, vs) = chroma.split_at_mut(width * height / 4);
        let half = width / 2;
        let rows = us.chunks_exact_mut(half).zip(vs.chunks_exact_mut(half));
        for (pair, (us, vs)) in luma.chunks_exact_mut(2 * width).zip(rows) {
            let (above, below) = pair.split_at_mut(width);
            let pairs = above.chunks_exact_mut(2).zip(below.chunks_exact_mut(2));
            for ((above, below), (u, v)) in pairs.zip(us.iter_mut().zip(vs)) {
                let (du, dv) = (i32::from(*u) - 128, i32::from(*v) - 128);
                let [y, new_u, new_v] = self.factors.map(|[a, b]| (a * du + b * dv + (1 << (POINT - 1))) >> POINT);
                for value in above.iter_mut().chain(below) {
                    *value = (i32::from(*value) + y).clamp(0, 255) as u8;
                }
                *u = (new_u + 128).clamp(0, 255) as u8;
                *v = (new_v + 128).clamp(0, 255) as u8;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversion_keeps_red_green_and_blue() {
        for (number, full) in [(1, false), (1, true), (7, false), (9, false)] {
            let (from, luma, chroma, black) = (
                Matrix::numbered(number).unwrap(),
                if full { 255.0 } else { 219.0 },
                if full { 255.0 } else { 224.0 },
                if full { 0.0 } else { 16.0 },
            );
            let levels = |[y, u, v]: [f64; 3]| [y * luma + black, u * chroma + 128.0, v * chroma + 128.0];
            let conversion = from.conversion(full).unwrap();
            for rgb in [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.2, 0.4, 0.9], [0.5; 3], [0.0, 0.6, 0.6]] {
                let [y, u, v] = levels(from.of_rgb(rgb)).map(|level| level.round() as u8);
                let mut data = [y, y, y, y, u, v];
                conversion.apply(&mut data, 2, 2);
                let expected = levels(BT601.of_rgb(rgb));
                for (found, expected) in [data[0], data[4], data[5]].into_iter().zip(expected) {
                    assert!((f64::from(found) - expected).abs() <= 1.5, "{number}, {rgb:?}: {data:?}, {expected}");
                }
            }
        }
    }

    #[test]
    fn what_says_nothing_is_left_alone() {
        assert_eq!(Matrix::numbered(2).unwrap().conversion(false), None);
        assert_eq!(Matrix::numbered(8), None, "YCgCo");
        assert_eq!(Matrix::numbered(0), None, "RGB");
    }
}
