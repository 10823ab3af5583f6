//! Copying an image to pinned memory, past the caches.
//!
//! What an ordinary copy leaves in a cache the device has to fetch from there: on an H200's host
//! (Sapphire Rapids) a copy of 900 KiB and its upload then take 80 µs, and 70 with stores that go
//! straight to memory (bench/RESULTS-gpu.md).

/// Copies `from` to `to`; [`finish`] must be called before the device reads it.
///
/// # Panics
/// When their lengths differ.
pub(super) fn copy(to: &mut [u8], from: &[u8]) {
    assert_eq!(to.len(), from.len());
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") {
        // SAFETY: the processor has AVX.
        return unsafe { stream(to, from) };
    }
    to.copy_from_slice(from);
}

/// Orders all copies before what follows.
pub(super) fn finish() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx")]
fn stream(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m256i, _mm256_loadu_si256, _mm256_stream_si256};

    const WORD: usize = size_of::<__m256i>();
    let head = to.as_ptr().align_offset(WORD).min(to.len());
    let (first, rest) = to.split_at_mut(head);
    first.copy_from_slice(&from[..head]);
    let mut words = rest.chunks_exact_mut(WORD);
    let mut values = from[head..].chunks_exact(WORD);
    for (to, from) in words.by_ref().zip(values.by_ref()) {
        // SAFETY: either is a word long, and `to` is aligned: it begins whole words behind the
        // head.
        unsafe { _mm256_stream_si256(to.as_mut_ptr().cast(), _mm256_loadu_si256(from.as_ptr().cast())) };
    }
    words.into_remainder().copy_from_slice(values.remainder());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_copy_is_the_original_wherever_it_begins_and_ends(
            from in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..64, behind in 0usize..64,
        ) {
            let mut memory = vec![7; at + from.len() + behind];
            super::copy(&mut memory[at..at + from.len()], &from);
            super::finish();
            prop_assert!(memory[..at].iter().chain(&memory[at + from.len()..]).all(|&b| b == 7));
            prop_assert_eq!(&memory[at..at + from.len()], &from[..]);
        }
    }
}
