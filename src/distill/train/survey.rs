//! The survey of a training's data: every image and mask is read and decoded once before the first
//! step, so that a damaged file stops the training at its start and not after hours. What was found
//! is kept in the run's [`FileIndex`]; from then on only files that have changed are read.

use std::path::{Path, PathBuf};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::sha256;
use rayon::prelude::*;

use crate::data::{load_image, DataError, Dataset, Sample};
use crate::file_index::{Entry, FileIndex, FileStamp};
use crate::log::show;

/// Files read between two writings of the index: a survey that is interrupted loses no more.
const SAVE_EVERY: usize = 4096;

/// The data sets, and what is known of their files.
pub struct Survey(pub Vec<SurveyedSet>);

/// A data set, and what is known of the files of each of its samples.
pub struct SurveyedSet {
    pub dataset: Dataset,
    pub files: Vec<SampleFiles>,
}

/// What is known of a sample's image and mask.
pub struct SampleFiles {
    pub image: Checked,
    pub mask: Option<Checked>,
}

/// What is known of a file.
pub struct Checked {
    pub sha256: String,
    pub decoded: Result<Decoded, DataError>,
}

/// What decoding a file has shown.
pub struct Decoded {
    /// Width and height in pixels.
    pub size: (u32, u32),
    /// The pixels of each segmentation class in a mask; empty for an image.
    pub pixels: Vec<u64>,
}

/// A file to be looked at.
struct Job<'a> {
    dataset: &'a Dataset,
    path: &'a Path,
    /// What a mask's bytes mean; `None` for an image.
    meaning: Option<&'a str>,
    /// Width and height by the header.
    size: (u32, u32),
}

impl Survey {
    /// Looks at every file of `datasets`, and decodes those that the index in `run`, the run's
    /// folder, does not know yet; all without a folder. A damaged file is an error of the file's.
    ///
    /// # Errors
    /// When a file cannot be read or the folder cannot be written to.
    pub fn make(datasets: Vec<Dataset>, run: Option<&Path>) -> anyhow::Result<Self> {
        let meanings: Vec<String> = datasets.iter().map(meaning).collect();
        let jobs: Vec<Job> = datasets
            .iter()
            .zip(&meanings)
            .flat_map(|(dataset, meaning)| dataset.samples.iter().flat_map(|sample| jobs(dataset, meaning, sample)))
            .collect();
        let mut checked = look_at(&jobs, run)?.into_iter();
        let mut next = || checked.next().expect("each file was looked at");
        let mut files = |sample: &Sample| SampleFiles { image: next(), mask: sample.mask.is_some().then(&mut next) };
        let mut set = |dataset: Dataset| {
            let files = dataset.samples.iter().map(&mut files).collect();
            SurveyedSet { dataset, files }
        };
        Ok(Self(datasets.into_iter().map(&mut set).collect()))
    }
}

/// A sample's image, then its mask.
fn jobs<'a>(dataset: &'a Dataset, meaning: &'a str, sample: &'a Sample) -> impl Iterator<Item = Job<'a>> {
    let job = move |path: &'a PathBuf, meaning| Job { dataset, path, meaning, size: sample.size };
    [job(&sample.image, None)].into_iter().chain(sample.mask.as_ref().map(|path| job(path, Some(meaning))))
}

/// What the bytes of a data set's masks are taken for: changes with `dataset.toml` and with the
/// student's classes.
fn meaning(dataset: &Dataset) -> String {
    let text = format!("{:?} {:?}", dataset.config.segmentation, dataset.mask_names());
    sha256(text.as_bytes())[..16].to_owned()
}

fn look_at(jobs: &[Job], run: Option<&Path>) -> anyhow::Result<Vec<Checked>> {
    let mut index = run.map(FileIndex::load).unwrap_or_default();
    let known: Vec<(FileStamp, Option<Checked>)> = jobs
        .par_iter()
        .map(|job| FileStamp::of(job.path).map(|stamp| (stamp, job.known(&index, stamp))))
        .collect::<anyhow::Result<_>>()?;
    let new: Vec<usize> = (0..jobs.len()).filter(|&i| known[i].1.is_none()).collect();
    let (stamps, mut found): (Vec<_>, Vec<_>) = known.into_iter().unzip();
    let progress = progress(new.len());
    for part in new.chunks(SAVE_EVERY) {
        let read = |&i: &usize| {
            let checked = jobs[i].read();
            progress.inc(1);
            checked
        };
        let checked = part.par_iter().map(read).collect::<anyhow::Result<Vec<_>>>()?;
        for (&i, checked) in part.iter().zip(checked) {
            if let Some(entry) = jobs[i].entry(stamps[i], &checked) {
                index.insert(jobs[i].path.to_owned(), entry);
            }
            found[i] = Some(checked);
        }
        run.map(|run| index.save(run)).transpose()?;
    }
    progress.finish_and_clear();
    Ok(found.into_iter().flatten().collect())
}

fn progress(files: usize) -> ProgressBar {
    if files == 0 {
        return ProgressBar::hidden();
    }
    tracing::info!("checking {files} images and masks; the next start checks only those that have changed");
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files checked, ETA {eta}");
    show(ProgressBar::new(files as u64).with_style(style.expect("the template is well-formed")))
}

impl Job<'_> {
    /// What the index knows of the file; `None` if it must be read.
    fn known(&self, index: &FileIndex, stamp: FileStamp) -> Option<Checked> {
        let entry = index.get(self.path, stamp)?;
        let fits = entry.size == Some(self.size) && entry.meaning.as_deref() == self.meaning;
        let decoded = Ok(Decoded { size: self.size, pixels: entry.pixels.clone().unwrap_or_default() });
        fits.then(|| Checked { sha256: entry.sha256.clone(), decoded })
    }

    fn read(&self) -> anyhow::Result<Checked> {
        let bytes = std::fs::read(self.path).with_context(|| self.path.display().to_string())?;
        Ok(Checked { sha256: sha256(&bytes), decoded: self.decode() })
    }

    fn decode(&self) -> Result<Decoded, DataError> {
        let decoded = match self.meaning {
            None => Decoded { size: load_image(self.path)?.dimensions(), pixels: Vec::new() },
            Some(_) => {
                let mask = self.dataset.load_mask(self.path)?;
                let mut pixels = vec![0; self.dataset.mask_names().len()];
                for &class in mask.as_raw() {
                    if let Some(count) = pixels.get_mut(usize::from(class)) {
                        *count += 1;
                    }
                }
                Decoded { size: mask.dimensions(), pixels }
            }
        };
        refuse_other_size(self.path, decoded.size, self.size)?;
        Ok(decoded)
    }

    /// What the index keeps; nothing of a damaged file, so that each start tries it again.
    fn entry(&self, stamp: FileStamp, checked: &Checked) -> Option<Entry> {
        let decoded = checked.decoded.as_ref().ok()?;
        Some(Entry {
            stamp,
            sha256: checked.sha256.clone(),
            size: Some(decoded.size),
            pixels: self.meaning.map(|_| decoded.pixels.clone()),
            meaning: self.meaning.map(str::to_owned),
        })
    }
}

/// Refuses a file that has changed its size since the data set was opened.
///
/// # Errors
/// Names the file.
pub(super) fn refuse_other_size(path: &Path, found: (u32, u32), expected: (u32, u32)) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    let why = format!("it has {found:?} pixels, but had {expected:?} when the training began");
    Err(DataError::Image { path: path.to_owned(), why })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use image::{GrayImage, RgbImage};

    use super::*;
    use crate::data::OpenOptions;
    use crate::file_index::INDEX_FILE;

    const CONFIG: &str = "name = 'tiny'\n[segmentation]\nclasses = ['sky', 'road']";

    /// Two images with masks, the left half of the first class and the right of the second.
    fn project(folder: &Path) {
        for part in ["images", "labels"] {
            fs::create_dir_all(folder.join(part)).unwrap();
        }
        fs::write(folder.join("dataset.toml"), CONFIG).unwrap();
        for name in ["a", "b"] {
            RgbImage::new(8, 4).save(folder.join(format!("images/{name}.png"))).unwrap();
            let mask = GrayImage::from_fn(8, 4, |x, _| image::Luma([u8::from(x >= 2)]));
            mask.save(folder.join(format!("labels/{name}.png"))).unwrap();
        }
    }

    fn datasets(folder: &Path, classes: &[&str]) -> Vec<Dataset> {
        let segmentation = classes.iter().map(|&class| class.to_owned()).collect();
        vec![Dataset::open_with(folder, &OpenOptions { segmentation, ..OpenOptions::default() }).unwrap()]
    }

    /// The files that a survey of `folder` has to read, by path.
    fn read(folder: &Path, classes: &[&str]) -> Vec<PathBuf> {
        let datasets = datasets(folder, classes);
        let index = FileIndex::load(folder);
        let meaning = meaning(&datasets[0]);
        let all = datasets[0].samples.iter().flat_map(|sample| jobs(&datasets[0], &meaning, sample));
        let new = all.filter(|job| job.known(&index, FileStamp::of(job.path).unwrap()).is_none());
        let read = new.map(|job| job.path.strip_prefix(folder).unwrap().to_owned()).collect();
        Survey::make(datasets.clone(), Some(folder)).unwrap();
        read
    }

    #[test]
    fn a_second_survey_reads_only_what_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        project(folder);
        let classes = ["sky", "road"];
        assert_eq!(read(folder, &classes).len(), 4);
        assert_eq!(read(folder, &classes), [""; 0].map(PathBuf::from), "nothing has changed");
        RgbImage::from_pixel(8, 4, image::Rgb([9, 200, 7])).save(folder.join("images/b.png")).unwrap();
        assert_eq!(read(folder, &classes), ["images/b.png"].map(PathBuf::from), "a changed image");
        GrayImage::from_pixel(8, 4, image::Luma([1])).save(folder.join("labels/a.png")).unwrap();
        assert_eq!(read(folder, &classes), ["labels/a.png"].map(PathBuf::from), "a changed mask");
        let masks = ["labels/a.png", "labels/b.png"].map(PathBuf::from);
        fs::write(folder.join("dataset.toml"), CONFIG.replace("'sky', 'road'", "'road', 'sky'")).unwrap();
        assert_eq!(read(folder, &classes), masks, "another dataset.toml");
        assert_eq!(read(folder, &["road"]), masks, "other classes of the student");
        fs::remove_file(folder.join(INDEX_FILE)).unwrap();
        assert_eq!(read(folder, &["road"]).len(), 4, "no index");
    }

    #[test]
    fn what_the_index_remembers_is_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        project(folder.path());
        let datasets = datasets(folder.path(), &["road", "sky", "tree"]);
        for _ in 0..2 {
            let survey = Survey::make(datasets.clone(), Some(folder.path())).unwrap();
            for (files, sample) in survey.0[0].files.iter().zip(&datasets[0].samples) {
                let (image, mask) = (&files.image, files.mask.as_ref().unwrap());
                assert_eq!(image.decoded.as_ref().unwrap().size, (8, 4));
                assert_eq!(mask.decoded.as_ref().unwrap().pixels, [24, 8, 0]);
                assert_eq!(image.sha256, sha256(&fs::read(&sample.image).unwrap()));
            }
        }
    }

    #[test]
    fn a_damaged_file_is_tried_again_at_each_start() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        project(folder);
        let path = folder.join("images/a.png");
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
        for _ in 0..2 {
            let survey = Survey::make(datasets(folder, &["sky"]), Some(folder)).unwrap();
            let files = &survey.0[0].files;
            let error = files[0].image.decoded.as_ref().err().unwrap().to_string();
            assert!(error.contains("a.png") && files[1].image.decoded.is_ok(), "{error}");
        }
    }
}
