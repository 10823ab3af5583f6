//! The one way in which Peregrine writes HTML and plots, for the reports of the benchmark and of
//! distillation: a [`Page`] that needs no other file, [`Chart`]s as SVG, and pictures with boxes
//! drawn on them.
//!
//! Text is escaped by `maud`, charts are drawn by `plotters`; neither needs a font or a library of
//! the system.

#![warn(missing_docs)]

mod axis;
mod chart;
pub mod colour;
mod page;
pub mod picture;

pub use axis::Axis;
pub use chart::{Chart, Svg};
pub use colour::Colour;
pub use page::Page;

/// Why a report could not be made. The message names the file or the chart.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The file could not be written.
    #[error(transparent)]
    File(#[from] peregrine_core::files::FileError),
    /// A chart could not be drawn.
    #[error("chart \"{chart}\": {reason}")]
    Chart {
        /// Its title.
        chart: String,
        /// What does not fit.
        reason: String,
    },
    /// A picture could not be encoded as JPEG.
    #[error("picture \"{caption}\": {source}")]
    Picture {
        /// The text beneath it.
        caption: String,
        /// Of the encoder.
        source: image::ImageError,
    },
}
