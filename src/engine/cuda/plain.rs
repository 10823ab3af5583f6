//! Values that host and device share byte for byte, and the macro that declares them.

/// Plain values without padding, whose bytes may be copied to a device.
///
/// # Safety
/// Every byte of every value must be initialised, and every pattern of bytes must be a value.
pub unsafe trait Plain: Copy {
    fn bytes(&self) -> Vec<u8> {
        // SAFETY: the trait's condition.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast::<u8>(), size_of::<Self>()) }.to_vec()
    }

    /// Copies the value's bytes to the front of `to`.
    ///
    /// # Panics
    /// When they do not fit.
    fn write(&self, to: &mut [u8]) {
        assert!(to.len() >= size_of::<Self>());
        // SAFETY: the trait's condition, and room for it.
        unsafe { to.as_mut_ptr().cast::<Self>().write_unaligned(*self) }
    }

    /// The value whose bytes are at the front of `from`.
    ///
    /// # Panics
    /// When there are too few.
    fn read(from: &[u8]) -> Self {
        assert!(from.len() >= size_of::<Self>());
        // SAFETY: the trait's condition, and enough bytes.
        unsafe { from.as_ptr().cast::<Self>().read_unaligned() }
    }
}

/// A structure that kernels know as well.
pub trait Argument: Plain {
    /// Name and offset of each field that the kernels' structure has too.
    const FIELDS: &'static [(&'static str, usize)];
}

/// Declares structures with C's layout and without padding, and the table of their fields.
#[doc(hidden)]
#[macro_export]
macro_rules! kernel_arguments {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*, "there is a gap between two fields");

        // SAFETY: integers and floats alone, without a gap between or after them, as just asserted.
        unsafe impl $crate::cuda::plain::Plain for $name {}

        impl $crate::cuda::plain::Argument for $name {
            const FIELDS: &'static [(&'static str, usize)] =
                &[$((stringify!($field), ::std::mem::offset_of!($name, $field))),*];
        }
    )*};
}
