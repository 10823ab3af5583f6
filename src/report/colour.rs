//! The palette of all reports. Its colours can be told apart with a colour vision deficiency too
//! (Okabe & Ito 2008).

use plotters::style::RGBColor;

/// Red, green and blue, 0 to 255 each.
pub type Colour = image::Rgb<u8>;

/// Black.
pub const BLACK: Colour = image::Rgb([0, 0, 0]);
/// Orange.
pub const ORANGE: Colour = image::Rgb([230, 159, 0]);
/// Sky blue.
pub const SKY_BLUE: Colour = image::Rgb([86, 180, 233]);
/// Bluish green: better, passed, labelled.
pub const GREEN: Colour = image::Rgb([0, 158, 115]);
/// Yellow.
pub const YELLOW: Colour = image::Rgb([240, 228, 66]);
/// Blue.
pub const BLUE: Colour = image::Rgb([0, 114, 178]);
/// Vermilion: worse, missed, wrong.
pub const RED: Colour = image::Rgb([213, 94, 0]);
/// Reddish purple.
pub const PURPLE: Colour = image::Rgb([204, 121, 167]);
/// Grey, legible on white and on black: neither better nor worse.
pub const GREY: Colour = image::Rgb([128, 128, 128]);

/// `#rrggbb`, as CSS writes it.
pub(crate) fn css(colour: Colour) -> String {
    let [red, green, blue] = colour.0;
    format!("#{red:02x}{green:02x}{blue:02x}")
}

pub(crate) fn plotted(colour: Colour) -> RGBColor {
    let [red, green, blue] = colour.0;
    RGBColor(red, green, blue)
}
