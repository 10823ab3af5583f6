//! Frames from image to boxes and mask as the node has them: of several cameras, and in several encodings.

use std::sync::Arc;

use anyhow::ensure;
use peregrine_core::ImageView;
use peregrine_engine::cuda::Driver;
use peregrine_pipeline::{GpuOptions, GpuWait, Pipeline, PipelineOptions};
use peregrine_student::Student;

use crate::images::{bayer_rggb8, nv12, photo};
use crate::measure::interleaved;

/// Cameras whose images wait at the same time.
const CAMERAS: usize = 4;

/// What was measured: percentiles in microseconds by name, and ratios of medians of the same interleaved run.
#[derive(Default)]
pub struct Figures {
    pub times: Vec<(String, [f64; 4])>,
    pub ratios: Vec<(String, f64)>,
}

impl Figures {
    fn add(&mut self, names: &[String], times: Vec<[f64; 4]>) {
        for (name, time) in names.iter().zip(&times).skip(1) {
            self.ratios.push((format!("{name}, to {}", names[0]), time[0] / times[0][0]));
        }
        self.times.extend(names.iter().cloned().zip(times));
    }
}

/// All of them, waiting in either way.
pub fn measure(driver: &Arc<dyn Driver>, student: &Student, frames: usize) -> anyhow::Result<Figures> {
    let mut figures = Figures::default();
    for wait in [GpuWait::Block, GpuWait::Spin] {
        let options =
            PipelineOptions { gpu: GpuOptions { wait, ..GpuOptions::default() }, ..PipelineOptions::default() };
        let pipeline = || Pipeline::on_cuda(driver, student, &options, false);
        cameras(&mut pipeline()?, frames, &format!("{wait:?}"), &mut figures)?;
        // Each takes several times as long, and there are three of them.
        encodings(&mut pipeline()?, frames / 4, &format!("{wait:?}"), &mut figures)?;
    }
    Ok(figures)
}

/// Until the results of all are there: one camera, four at once, and four one after the other.
fn cameras(pipeline: &mut Pipeline, frames: usize, wait: &str, figures: &mut Figures) -> anyhow::Result<()> {
    let photo = photo(640, 480)?;
    let image = ImageView::new("rgb8", 640, 480, 3 * 640, &photo)?;
    for camera in 0..CAMERAS {
        pipeline.process_from(camera, &image, 0)?;
    }
    let names = ["1 camera", "4 cameras at once", "4 cameras one after the other"];
    let names = names.map(|name| format!("640x480 to boxes and mask, {name}, {wait}"));
    let times = interleaved(frames, names.len(), |kind| match kind {
        0 => Ok(pipeline.process_from(0, &image, 0).map(drop)?),
        1 => {
            let begun: [_; CAMERAS] = std::array::from_fn(|camera| pipeline.begin(camera, &image));
            ensure!(begun.iter().all(Option::is_some), "an image was not begun");
            let mut each = begun.into_iter().enumerate();
            Ok(each.try_for_each(|(camera, begun)| pipeline.finish(camera, &image, begun, 0).map(drop))?)
        }
        _ => Ok((0..CAMERAS).try_for_each(|camera| pipeline.process_from(camera, &image, 0).map(drop))?),
    })?;
    figures.add(&names, times);
    Ok(())
}

/// Images of 1920×1080 in three encodings, as of a camera each.
fn encodings(pipeline: &mut Pipeline, frames: usize, wait: &str, figures: &mut Figures) -> anyhow::Result<()> {
    const WIDTH: u32 = 1920;
    const HEIGHT: u32 = 1080;
    let photo = photo(WIDTH, HEIGHT)?;
    let (nv12, bayer) = (nv12(&photo), bayer_rggb8(&photo));
    let images = [
        ImageView::new("rgb8", WIDTH, HEIGHT, 3 * WIDTH, &photo)?,
        ImageView::new("nv12", WIDTH, HEIGHT, WIDTH, &nv12)?,
        ImageView::new("bayer_rggb8", WIDTH, HEIGHT, WIDTH, &bayer)?,
    ];
    let names =
        images.each_ref().map(|image| format!("1920x1080 to boxes and mask, {}, {wait}", image.encoding().ros_name()));
    let times =
        interleaved(frames, images.len(), |kind| Ok(pipeline.process_from(kind, &images[kind], 0).map(drop)?))?;
    figures.add(&names, times);
    Ok(())
}
