//! Loops compiled for the vector instructions of the processor that they run on.
//!
//! A program for all processors of an architecture may use no more than its oldest has (on x86-64
//! SSE2: four values at once, product and sum apart). What runs within `vectorised!` is compiled
//! again for AVX2 and AVX-512, and one of the three is taken at run time.

use std::cell::RefCell;

/// Values that a sum keeps side by side, so that additions need not wait for each other.
const LANES: usize = 32;

/// Computes an expression, compiled for this processor. What it calls has to be `#[inline(always)]`: all else is
/// compiled for the oldest one, where [`multiply_add`] is the call of a function.
macro_rules! vectorised {
    ($body:expr) => {
        crate::net::vectors::dispatch(
            #[inline(always)]
            || $body,
        )
    };
}
pub(crate) use vectorised;

/// Runs `f` as `vectorised!` does. It takes `FnMut` and not `FnOnce`: a closure is called as the latter by a
/// function in between, which is not inlined.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
pub fn dispatch<R>(f: impl FnMut() -> R) -> R {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn avx512<R>(mut f: impl FnMut() -> R) -> R {
        f()
    }
    #[target_feature(enable = "avx2,fma")]
    fn avx2<R>(mut f: impl FnMut() -> R) -> R {
        f()
    }
    fn oldest<R>(mut f: impl FnMut() -> R) -> R {
        f()
    }
    let has_avx512 = std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512bw")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512vl");
    match fuses() {
        // SAFETY: this processor has each of the features that the function is compiled for.
        true if has_avx512 => unsafe { avx512(f) },
        // SAFETY: as above.
        true => unsafe { avx2(f) },
        false => oldest(f),
    }
}

/// Runs `f`: elsewhere every processor has what the program is compiled for.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
pub fn dispatch<R>(mut f: impl FnMut() -> R) -> R {
    f()
}

/// Whether a product and its addition are one instruction, within `vectorised!`.
pub fn fuses() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64");
}

/// `a·b + c`: as one instruction if `FUSED`, which [`fuses`] tells.
#[inline(always)]
pub fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED {
        a.mul_add(b, c)
    } else {
        a * b + c
    }
}

/// Σ a.
#[inline(always)]
pub fn sum(a: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let chunks = a.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().sum();
    for chunk in chunks {
        for lane in 0..LANES {
            sums[lane] += chunk[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

/// Σ a·b.
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest: f32 = a_chunks.remainder().iter().zip(b_chunks.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    sums.iter().sum::<f32>() + rest
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Hands `f` as many values of scratch memory of this thread, which keeps it; they hold anything.
///
/// # Panics
/// When `f` asks for scratch memory in turn.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        f(&mut scratch[..len])
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::values;
    use super::*;

    #[test]
    fn sums_and_products_are_those_of_f64() {
        for n in [0, 1, 31, 32, 33, 1000] {
            let (a, b) = (values(n, 1), values(n, 2));
            let exact = |of: &dyn Fn(usize) -> f64| (0..n).map(of).sum::<f64>();
            let (plain, product) = (exact(&|i| f64::from(a[i])), exact(&|i| f64::from(a[i]) * f64::from(b[i])));
            let (s, d) = vectorised!((sum(&a), dot(&a, &b)));
            assert!((f64::from(s) - plain).abs() < 1e-4 && (f64::from(d) - product).abs() < 1e-4, "{n}");
        }
    }
}
