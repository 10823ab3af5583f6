//! Where the values of a tensor lie.

/// Values in memory by strides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The first value's address.
    pub start: u64,
    /// The memory that it is a part of.
    pub span: std::ops::Range<u64>,
    pub sizes: Vec<usize>,
    /// In values.
    pub strides: Vec<usize>,
}

/// Of values one after the other.
fn strides(sizes: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; sizes.len()];
    for axis in (1..sizes.len()).rev() {
        strides[axis - 1] = strides[axis] * sizes[axis].max(1);
    }
    strides
}

impl Access {
    /// One value after the other.
    pub fn plain(span: std::ops::Range<u64>, sizes: &[usize]) -> Self {
        Self { start: span.start, span, sizes: sizes.to_vec(), strides: strides(sizes) }
    }

    /// Whether values lie one after the other; axes of size 1 do not matter.
    pub fn is_plain(&self) -> bool {
        let plain = strides(&self.sizes);
        (0..self.sizes.len()).all(|axis| self.sizes[axis] == 1 || self.strides[axis] == plain[axis])
    }

    /// Of a plain one, the same values with another shape.
    pub fn with_shape(&self, sizes: &[usize]) -> Self {
        debug_assert!(self.is_plain());
        Self { sizes: sizes.to_vec(), strides: strides(sizes), ..self.clone() }
    }

    pub fn permuted(&self, axes: &[usize]) -> Self {
        let of = |values: &[usize]| axes.iter().map(|&axis| values[axis]).collect();
        Self { sizes: of(&self.sizes), strides: of(&self.strides), ..self.clone() }
    }

    /// `length` of an axis from `start` on.
    pub fn narrowed(&self, axis: usize, start: usize, length: usize) -> Self {
        let mut narrowed = self.clone();
        narrowed.sizes[axis] = length;
        narrowed.start += 4 * (start * self.strides[axis]) as u64;
        narrowed
    }

    /// Sizes of 1 repeated, up to `sizes`.
    pub fn expanded(&self, sizes: &[usize]) -> Self {
        let stride = |axis: usize| if self.sizes[axis] == sizes[axis] { self.strides[axis] } else { 0 };
        Self { sizes: sizes.to_vec(), strides: (0..sizes.len()).map(stride).collect(), ..self.clone() }
    }
}

/// The axes of `sizes`, at most four, with the strides of each of several tensors of that shape: those
/// that every tensor walks through in one go are one.
///
/// # Panics
/// When more than four are left: the losses' tensors have at most four.
pub fn four_axes(sizes: &[usize], of: &[&[usize]]) -> ([usize; 4], Vec<[usize; 4]>) {
    let mut kept: Vec<usize> = Vec::new();
    let mut merged = Vec::new();
    for axis in (0..sizes.len()).filter(|&axis| sizes[axis] != 1) {
        let joins = |last: &usize| of.iter().all(|strides| strides[*last] == strides[axis] * sizes[axis]);
        match kept.last() {
            Some(last) if joins(last) => {
                *kept.last_mut().expect("it was just seen") = axis;
                *merged.last_mut().expect("as many as are kept") *= sizes[axis];
            }
            _ => {
                kept.push(axis);
                merged.push(sizes[axis]);
            }
        }
    }
    assert!(kept.len() <= 4, "{sizes:?} has more than four axes");
    let first = 4 - kept.len();
    let mut four = [1; 4];
    four[first..].copy_from_slice(&merged);
    let strides = of.iter().map(|strides| {
        let mut four = [0; 4];
        kept.iter().enumerate().for_each(|(i, &axis)| four[first + i] = strides[axis]);
        four
    });
    (four, strides.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_that_all_walk_through_are_one() {
        let plain = [30, 10, 5, 1];
        assert_eq!(four_axes(&[2, 3, 2, 5], &[&plain]), ([1, 1, 1, 60], vec![[0, 0, 0, 1]]));
        // The second is repeated along the second axis.
        let (sizes, strides) = four_axes(&[2, 3, 2, 5], &[&plain, &[10, 0, 5, 1]]);
        assert_eq!((sizes, strides), ([1, 2, 3, 10], vec![[0, 30, 10, 1], [0, 10, 0, 1]]));
        assert_eq!(four_axes(&[1, 4], &[&[4, 1], &[0, 0]]), ([1, 1, 1, 4], vec![[0, 0, 0, 1], [0; 4]]));
    }
}
