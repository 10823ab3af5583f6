//! What the tables of kernels are made of, in f32 and in integers: functions compiled for one
//! instruction set, by the number of pixels that each computes at once.

/// Kernels for 1, 2, … pixels of a dense convolution's panel of `blocks` output blocks; `T`
/// describes a tile.
pub struct PanelKernels<T: 'static> {
    pub blocks: usize,
    /// For inputs whose pixels lie one block apart: stride 1.
    pub stride_1: &'static [unsafe fn(&T)],
    pub any_stride: &'static [unsafe fn(&T)],
}

/// Kernels for 1, 2, … pixels of one kernel size and stride of a depthwise convolution; 0 stands
/// for any.
pub struct DepthwiseKernels<T: 'static> {
    pub kernel: usize,
    pub stride: usize,
    pub tiles: &'static [unsafe fn(&T)],
}

impl<T> DepthwiseKernels<T> {
    /// The first of a table that fits a kernel size and stride; the last of a table fits all.
    pub fn choose(table: &'static [Self], kernel: usize, stride: usize) -> &'static Self {
        let fits = |d: &&Self| d.kernel == 0 || (d.kernel, d.stride) == (kernel, stride);
        table.iter().find(fits).expect("the last fits all")
    }
}

/// Splits `n` pixels, of which there is at least one, into the fewest runs of at most `max`, as evenly as
/// possible: `(first, length)` of each.
#[inline]
pub fn split_evenly(n: usize, max: usize) -> impl Iterator<Item = (usize, usize)> {
    // Divided once and not at each run: that takes as long as a short run.
    let runs = n.div_ceil(max);
    let (length, longer) = (n / runs, n % runs);
    (0..runs).map(move |i| (i * length + i.min(longer), length + usize::from(i < longer)))
}

/// A module of functions compiled for processor features, `["avx2,fma"]`, or for whatever the crate
/// is compiled for, `[]`. Generic parameters stand in brackets. Each is safe where its body is and
/// the processor has the features.
macro_rules! compiled_for {
    ($module:ident, $features:tt, $(fn $name:ident $generics:tt $arguments:tt $(-> $result:ty)? $body:block)*) => {
        mod $module {
            use super::*;

            $($crate::cpu::dispatch::compiled_for! {
                @function $features, $name $generics $arguments [$($result)?] $body
            })*
        }
    };
    (@function [$($features:literal)?], $name:ident [$($generics:tt)*] ($($argument:ident: $type:ty),*)
     [$($result:ty)?] $body:block) => {
        $(#[target_feature(enable = $features)])?
        pub(super) unsafe fn $name<$($generics)*>($($argument: $type),*) $(-> $result)? $body
    };
}
pub(crate) use compiled_for;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_their_pixels_in_order_and_evenly() {
        for n in 1..50_usize {
            for max in 1..14 {
                let runs: Vec<_> = split_evenly(n, max).collect();
                assert_eq!(runs.iter().fold(0, |at, &(first, len)| if at == first { at + len } else { usize::MAX }), n);
                let (min, most) = (runs.iter().map(|r| r.1).min().unwrap(), runs.iter().map(|r| r.1).max().unwrap());
                assert!(most <= max && most - min <= 1);
            }
        }
    }
}
