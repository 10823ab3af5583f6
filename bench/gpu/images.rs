//! Images to measure with.

/// `width`×`height` of a road, so that there is something to suppress.
pub fn photo(width: u32, height: u32) -> anyhow::Result<image::RgbImage> {
    let photo = image::load_from_memory(include_bytes!("../../models/frames/highway-00.jpg"))?;
    Ok(photo.resize_exact(width, height, image::imageops::FilterType::Triangle).to_rgb8())
}

/// The same bytes as `bayer_rggb8`: of each pixel the value that its place in the mosaic has.
pub fn bayer_rggb8(photo: &image::RgbImage) -> Vec<u8> {
    let channel = |x: u32, y: u32| ((x % 2) + (y % 2)) as usize;
    photo.enumerate_pixels().map(|(x, y, pixel)| pixel[channel(x, y)]).collect()
}

/// As `nv12`, in the limited range of BT.601; both sides must be even.
pub fn nv12(photo: &image::RgbImage) -> Vec<u8> {
    let value = |pixel: &image::Rgb<u8>, [r, g, b]: [f32; 3], zero: f32| {
        (zero + r * f32::from(pixel[0]) + g * f32::from(pixel[1]) + b * f32::from(pixel[2])).round() as u8
    };
    let luma = photo.pixels().map(|pixel| value(pixel, [0.257, 0.504, 0.098], 16.0));
    // Of each square of four, the first.
    let corners = photo.enumerate_pixels().filter(|(x, y, _)| x % 2 == 0 && y % 2 == 0);
    let chroma = corners.flat_map(|(_, _, pixel)| {
        [value(pixel, [-0.148, -0.291, 0.439], 128.0), value(pixel, [0.439, -0.368, -0.071], 128.0)]
    });
    luma.chain(chroma).collect()
}
