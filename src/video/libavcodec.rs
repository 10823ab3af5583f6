//! ffmpeg's libavcodec, loaded at run time: the few functions that decode a packet, and the places
//! of the few fields that are read. All of this crate that is unsafe is here.
//!
//! The fields lie at the same places in all of [`VERSIONS`], by `offsetof` with the headers of 58, 59
//! and 61; and this crate's tests were run with a library of each. Other versions are refused, since
//! damage is also told by the words of the log.

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_uint, c_void, CStr, OsString};
use std::marker::PhantomData;
use std::ops::RangeInclusive;
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use libloading::Library;

use super::complaint::Complaint;
use super::fault::{LibraryFault, LIBRARY};
use super::Codec;

#[cfg(not(target_pointer_width = "64"))]
compile_error!("the places of libavcodec's fields were looked up for 64-bit machines only");

/// Major versions that were looked at: ffmpeg 4.3 to 8.
pub const VERSIONS: RangeInclusive<u32> = 58..=62;

/// `AVERROR(EAGAIN)`: the decoder wants the next packet.
const AGAIN: c_int = -11;

/// `AV_EF_CRCCHECK`: where the encoder sends a hash of each picture (H.265, D.3.19), it is compared.
const CHECK_HASHES: i64 = 1;

/// `AVERROR_EOF`, which is `-MKTAG('E', 'O', 'F', ' ')`: no picture is held back any more.
const END: c_int = -i32::from_le_bytes(*b"EOF ");

/// The beginning of an `AVFrame`; the library makes it.
#[repr(C)]
struct AvFrame {
    data: [*const u8; 8],
    linesize: [c_int; 8],
    extended_data: *const c_void,
    width: c_int,
    height: c_int,
    nb_samples: c_int,
    format: c_int,
    /// A key frame's flag, the picture's type, the pixels' aspect ratio: in different order.
    different: [c_int; 4],
    pts: i64,
}

/// The beginning of an `AVPacket`; the library makes it.
#[repr(C)]
struct AvPacket {
    buf: *const c_void,
    pts: i64,
    dts: i64,
    data: *mut u8,
    size: c_int,
}

/// An `AVCodecContext`, of which nothing is read: options reach it by name.
enum AvContext {}

/// `void (*)(void*, int, const char*, va_list)`: a `va_list` is passed by address in the calling
/// conventions of x86-64 and AArch64, and never looked at here.
type LogCallback = unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *mut c_void);

macro_rules! functions {
    ($($name:ident($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// The library's functions, those of libavutil among them, which it brings along.
        struct Functions { $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?),* }

        impl Functions {
            /// # Safety
            /// The library is ffmpeg's libavcodec of one of [`VERSIONS`].
            unsafe fn find(library: &Library) -> Result<Self, LibraryFault> {
                // SAFETY: the types are those of the library's headers.
                Ok(Self { $($name: unsafe { *library.get(stringify!($name)).map_err(|_| LibraryFault::Function(stringify!($name)))? }),* })
            }
        }
    };
}

functions! {
    avcodec_find_decoder_by_name(*const c_char) -> *const c_void;
    avcodec_alloc_context3(*const c_void) -> *mut AvContext;
    avcodec_open2(*mut AvContext, *const c_void, *mut c_void) -> c_int;
    avcodec_send_packet(*mut AvContext, *const AvPacket) -> c_int;
    avcodec_receive_frame(*mut AvContext, *mut AvFrame) -> c_int;
    avcodec_flush_buffers(*mut AvContext);
    avcodec_free_context(*mut *mut AvContext);
    av_packet_alloc() -> *mut AvPacket;
    av_new_packet(*mut AvPacket, c_int) -> c_int;
    av_packet_unref(*mut AvPacket);
    av_packet_free(*mut *mut AvPacket);
    av_frame_alloc() -> *mut AvFrame;
    av_frame_free(*mut *mut AvFrame);
    av_opt_set_int(*mut AvContext, *const c_char, i64, c_int) -> c_int;
    av_opt_get_int(*mut AvContext, *const c_char, c_int, *mut i64) -> c_int;
    av_get_pix_fmt_name(c_int) -> *const c_char;
    av_log_set_callback(LogCallback);
}

/// The library, loaded by the first who asks and never unloaded.
fn functions() -> Result<&'static Functions, LibraryFault> {
    static LOADED: OnceLock<Result<Functions, LibraryFault>> = OnceLock::new();
    LOADED.get_or_init(load).as_ref().map_err(|fault| *fault)
}

fn load() -> Result<Functions, LibraryFault> {
    let named = std::env::var_os(LIBRARY);
    let missing = if named.is_some() { LibraryFault::Named } else { LibraryFault::NotInstalled };
    let installed = || VERSIONS.rev().map(|version| format!("libavcodec.so.{version}").into()).collect();
    let files: Vec<OsString> = named.map_or_else(installed, |file| vec![file]);
    // SAFETY: what libraries do when they are loaded is theirs to answer for; ffmpeg's do nothing.
    let library = files.iter().find_map(|file| unsafe { Library::new(file) }.ok()).ok_or(missing)?;
    // SAFETY: `unsigned avcodec_version(void)`, in every version.
    let version = unsafe { library.get::<unsafe extern "C" fn() -> c_uint>("avcodec_version").map(|of| of() >> 16) };
    let version = version.map_err(|_| LibraryFault::Function("avcodec_version"))?;
    if !VERSIONS.contains(&version) {
        return Err(LibraryFault::Version(version));
    }
    // SAFETY: it is, by its version.
    let functions = unsafe { Functions::find(&library)? };
    // SAFETY: the callback may be called by any thread at any time.
    unsafe { (functions.av_log_set_callback)(note) };
    // The functions are used for as long as the program runs.
    std::mem::forget(library);
    Ok(functions)
}

thread_local! {
    static COMPLAINT: Cell<Option<Complaint>> = const { Cell::new(None) };
}

/// Takes the place of the library's log, which would be written to the standard error.
///
/// # Safety
/// `format` is a string, as printf has it.
unsafe extern "C" fn note(_: *mut c_void, level: c_int, format: *const c_char, _: *mut c_void) {
    // SAFETY: the caller says so.
    let format = unsafe { CStr::from_ptr(format) }.to_bytes();
    // The first of them is the cause of the others.
    COMPLAINT.set(COMPLAINT.get().or_else(|| Complaint::of(level, format)));
}

/// A decoder, with the packet and the picture that it is given.
pub struct Decoder {
    functions: &'static Functions,
    context: NonNull<AvContext>,
    packet: NonNull<AvPacket>,
    frame: NonNull<AvFrame>,
}

// SAFETY: a context belongs to no thread, as long as one at a time uses it.
unsafe impl Send for Decoder {}

impl Decoder {
    /// For pictures of `max_pixels` pixels at most. It uses one thread, the caller's, and so waits
    /// for no later packet than the codec's own order of pictures asks for.
    pub fn open(codec: Codec, max_pixels: usize) -> Result<Self, LibraryFault> {
        let f = functions()?;
        let name = match codec {
            Codec::H264 => c"h264",
            Codec::H265 => c"hevc",
        };
        // SAFETY: the arguments are those that the headers ask for; what comes is checked. In an
        // error's case what was made is freed by `Drop`.
        unsafe {
            let found = (f.avcodec_find_decoder_by_name)(name.as_ptr());
            if found.is_null() {
                return Err(LibraryFault::Codec(codec));
            }
            let context = NonNull::new((f.avcodec_alloc_context3)(found)).ok_or(LibraryFault::Memory)?;
            let packet = NonNull::new((f.av_packet_alloc)()).ok_or(LibraryFault::Memory)?;
            let frame = NonNull::new((f.av_frame_alloc)()).ok_or(LibraryFault::Memory)?;
            let decoder = Self { functions: f, context, packet, frame };
            for (option, value) in [(c"threads", 1), (c"max_pixels", max_pixels as i64), (c"err_detect", CHECK_HASHES)]
            {
                if (f.av_opt_set_int)(context.as_ptr(), option.as_ptr(), value, 0) < 0 {
                    return Err(LibraryFault::Function("an option"));
                }
            }
            if (f.avcodec_open2)(context.as_ptr(), found, ptr::null_mut()) < 0 {
                return Err(LibraryFault::Memory);
            }
            Ok(decoder)
        }
    }

    /// Gives it a packet, whose picture will have the number `pts`. False where it is refused.
    pub fn send(&mut self, bytes: &[u8], pts: i64) -> bool {
        COMPLAINT.set(None);
        let f = self.functions;
        let Ok(size) = c_int::try_from(bytes.len()) else { return false };
        // SAFETY: the packet is the library's, and has room for `size` bytes once it is new; the
        // library takes a reference to them or copies them.
        unsafe {
            let packet = self.packet.as_ptr();
            if (f.av_new_packet)(packet, size) < 0 {
                return false;
            }
            ptr::copy_nonoverlapping(bytes.as_ptr(), (*packet).data, bytes.len());
            (*packet).pts = pts;
            let sent = (f.avcodec_send_packet)(self.context.as_ptr(), packet);
            (f.av_packet_unref)(packet);
            sent >= 0
        }
    }

    /// Tells it that no packet follows, so that the pictures that it holds back are ready. It takes
    /// none before [`flush`](Self::flush).
    pub fn finish(&mut self) {
        COMPLAINT.set(None);
        // SAFETY: the context is open, and no packet at all is what the stream's end is told by.
        unsafe { (self.functions.avcodec_send_packet)(self.context.as_ptr(), ptr::null()) };
    }

    /// The next picture that is ready; `None` until the next packet is sent.
    ///
    /// # Errors
    /// When the packet cannot be decoded.
    pub fn receive(&mut self) -> Result<Option<Frame<'_>>, ()> {
        // SAFETY: both are the library's; it lets go of the frame's last picture.
        match unsafe { (self.functions.avcodec_receive_frame)(self.context.as_ptr(), self.frame.as_ptr()) } {
            0.. => Ok(Some(Frame { decoder: self, at: PhantomData })),
            AGAIN | END => Ok(None),
            _ => Err(()),
        }
    }

    /// What the library has complained of since the last packet was sent.
    pub fn complaint(&self) -> Option<Complaint> {
        COMPLAINT.get()
    }

    /// Forgets all pictures, so that a key frame can come next.
    pub fn flush(&mut self) {
        // SAFETY: the context is open.
        unsafe { (self.functions.avcodec_flush_buffers)(self.context.as_ptr()) };
    }

    /// An option of the stream that the decoder has read from it; 0 if it has none.
    fn option(&self, name: &CStr) -> i64 {
        let mut value = 0;
        // SAFETY: the context is open, and the value is written to.
        unsafe { (self.functions.av_opt_get_int)(self.context.as_ptr(), name.as_ptr(), 0, &mut value) };
        value
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let f = self.functions;
        // SAFETY: the library made each of them, and nothing uses them any more.
        unsafe {
            (f.av_frame_free)(&mut self.frame.as_ptr());
            (f.av_packet_free)(&mut self.packet.as_ptr());
            (f.avcodec_free_context)(&mut self.context.as_ptr());
        }
    }
}

/// A picture, until the decoder is used again.
pub struct Frame<'a> {
    decoder: &'a Decoder,
    at: PhantomData<&'a mut Decoder>,
}

impl Frame<'_> {
    fn fields(&self) -> &AvFrame {
        // SAFETY: the library made it, filled it in, and leaves it alone while the decoder is
        // borrowed.
        unsafe { self.decoder.frame.as_ref() }
    }

    /// What the library has complained of since the last packet was sent.
    pub fn complaint(&self) -> Option<Complaint> {
        self.decoder.complaint()
    }

    /// The number of its packet.
    pub fn pts(&self) -> i64 {
        self.fields().pts
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        let AvFrame { width, height, .. } = *self.fields();
        (width.max(0) as usize, height.max(0) as usize)
    }

    /// ffmpeg's name of the layout of its pixels.
    pub fn pixel_format(&self) -> &'static str {
        // SAFETY: a string of a table in the library, which is never unloaded, or null.
        let name = unsafe {
            let name = (self.decoder.functions.av_get_pix_fmt_name)(self.fields().format);
            (!name.is_null()).then(|| CStr::from_ptr(name))
        };
        name.and_then(|name| name.to_str().ok()).unwrap_or("without a name")
    }

    /// Whether the stream says that its values are from 0 to 255 (`AVCOL_RANGE_JPEG`).
    pub fn is_full_range(&self) -> bool {
        self.decoder.option(c"color_range") == 2
    }

    /// The number of the matrix that made luma and chroma of red, green and blue (H.264, table E-5);
    /// 2 where the stream does not say.
    pub fn matrix(&self) -> i64 {
        self.decoder.option(c"colorspace")
    }

    /// Row `y`, which is below `rows`, of a plane of `rows` rows of `bytes` bytes; `None` if the
    /// picture has no such plane.
    ///
    /// # Safety
    /// The planes of [`pixel_format`](Self::pixel_format) and [`size`](Self::size) are of that many
    /// rows and bytes.
    pub unsafe fn row(&self, plane: usize, y: usize, bytes: usize) -> Option<&[u8]> {
        let AvFrame { data, linesize, .. } = self.fields();
        let step = usize::try_from(linesize[plane]).ok().filter(|&step| step >= bytes)?;
        if data[plane].is_null() {
            return None;
        }
        // SAFETY: the library's buffers hold all rows of a plane, `step` bytes apart.
        Some(unsafe { std::slice::from_raw_parts(data[plane].add(y * step), bytes) })
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn fields_lie_where_the_headers_of_all_versions_have_them() {
        assert_eq!(offset_of!(AvFrame, linesize), 64);
        assert_eq!((offset_of!(AvFrame, width), offset_of!(AvFrame, height)), (104, 108));
        assert_eq!((offset_of!(AvFrame, format), offset_of!(AvFrame, pts)), (116, 136));
        assert_eq!((offset_of!(AvPacket, pts), offset_of!(AvPacket, data), offset_of!(AvPacket, size)), (8, 24, 32));
    }
}
