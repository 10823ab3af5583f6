//! A camera as `sensor_msgs/CameraInfo` describes it: points before it to pixels, and pixels to bearings.

use nalgebra::{Matrix2, Matrix2x3, Vector2, Vector3};

use super::distortion::Distortion;

/// The fields of a `sensor_msgs/CameraInfo` that are used.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CameraInfo {
    /// Of the image at full resolution, in pixels.
    pub width: u32,
    pub height: u32,
    /// `plumb_bob`, `rational_polynomial` or `equidistant`; empty where `d` is.
    pub distortion_model: String,
    pub d: Vec<f64>,
    /// Row-major intrinsics of the raw image.
    pub k: [f64; 9],
    /// Row-major projection of the rectified image.
    pub p: [f64; 12],
    /// Pixels of the full image for one of the image that is sent; 0 means 1.
    pub binning: [u32; 2],
    /// Where the image that is sent begins in the full one, in pixels of the latter, before binning.
    pub roi_offset: [u32; 2],
    /// Width and height of that part; 0 means all from the offset on.
    pub roi_size: [u32; 2],
}

/// Why a camera cannot be used: the fault in its `CameraInfo`.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CameraError {
    #[error("CameraInfo.{field} is {value}; {expected} (is the camera calibrated?)")]
    Intrinsic { field: &'static str, value: f64, expected: &'static str },
    #[error("CameraInfo.{field}[{index}] is {value}; coefficients must be finite")]
    Coefficient { field: &'static str, index: usize, value: f64 },
    #[error("CameraInfo.distortion_model is '{0}'; it must be plumb_bob, rational_polynomial or equidistant")]
    Model(String),
    #[error("CameraInfo.d has {found} values; {model} has {expected}")]
    Count { model: &'static str, expected: &'static str, found: usize },
    #[error("CameraInfo is for images of {width}x{height}; both must be 1 to 65535")]
    Size { width: u32, height: u32 },
    #[error("CameraInfo.roi ends at {end} of {of} pixels of the {side} (binned by {binning}); it must be in the image, and a pixel at least")]
    Region { side: &'static str, end: u64, of: u32, binning: u32 },
}

/// A calibrated camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Camera {
    /// Of the images that are sent, in pixels.
    size: (u32, u32),
    /// Pixels for a unit of the image plane at distance 1.
    focal: Vector2<f64>,
    /// The pixel on the axis.
    centre: Vector2<f64>,
    /// K's shear, almost always zero.
    skew: f64,
    distortion: Distortion,
}

impl Camera {
    /// The camera behind the raw image; with `rectified`, the one that `image_rect` looks as if it came from, which has
    /// the projection `p` and no distortion.
    ///
    /// # Errors
    /// Names the first field at fault.
    pub fn new(info: &CameraInfo, rectified: bool) -> Result<Self, CameraError> {
        let (width, height) = (info.width, info.height);
        if ![width, height].iter().all(|side| (1..=65_535).contains(side)) {
            return Err(CameraError::Size { width, height });
        }
        let of_k =
            |row: usize, column: usize| if rectified { info.p[4 * row + column] } else { info.k[3 * row + column] };
        let names = if rectified {
            ["p[0] (fx)", "p[5] (fy)", "p[2] (cx)", "p[6] (cy)", "p[1] (skew)"]
        } else {
            ["k[0] (fx)", "k[4] (fy)", "k[2] (cx)", "k[5] (cy)", "k[1] (skew)"]
        };
        let values = [of_k(0, 0), of_k(1, 1), of_k(0, 2), of_k(1, 2), of_k(0, 1)];
        for (i, (&value, field)) in values.iter().zip(names).enumerate() {
            let focal = i < 2;
            if !value.is_finite() || (focal && value <= 0.0) {
                let expected = if focal { "it must be above zero" } else { "it must be finite" };
                return Err(CameraError::Intrinsic { field, value, expected });
            }
        }
        let [fx, fy, cx, cy, skew] = values;
        let size = [region("width", info, 0, width)?, region("height", info, 1, height)?];
        let bins = info.binning.map(|bins| f64::from(bins.max(1)));
        let offset = info.roi_offset.map(f64::from);
        // The centre of a bin's first pixel lies half a bin less half a pixel before the bin's own.
        let binned = |at: f64, axis: usize| (at - offset[axis] + 0.5) / bins[axis] - 0.5;
        Ok(Self {
            size: size.into(),
            focal: Vector2::new(fx / bins[0], fy / bins[1]),
            centre: Vector2::new(binned(cx, 0), binned(cy, 1)),
            skew: skew / bins[0],
            distortion: if rectified { Distortion::None } else { distortion(info)? },
        })
    }

    /// Width and height of the images that are sent, in pixels: of the region of interest, binned.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// The same camera for images that were resized to `width` × `height` pixels after they were taken.
    pub fn resized(&self, width: u32, height: u32) -> Self {
        let scale = Vector2::new(f64::from(width) / f64::from(self.size.0), f64::from(height) / f64::from(self.size.1));
        let centre = (self.centre + Vector2::repeat(0.5)).component_mul(&scale) - Vector2::repeat(0.5);
        Self {
            size: (width, height),
            focal: self.focal.component_mul(&scale),
            centre,
            skew: self.skew * scale[0],
            distortion: self.distortion,
        }
    }

    /// The pixel at a point of a box, which counts from the corner of the top-left pixel and not from its centre.
    pub fn pixel_of(x: f64, y: f64) -> Vector2<f64> {
        Vector2::new(x - 0.5, y - 0.5)
    }

    /// The pixel at which a point of the optical frame is seen. None behind the camera.
    pub fn project(&self, point: &Vector3<f64>) -> Option<Vector2<f64>> {
        self.project_with_derivative(point).map(|(pixel, _)| pixel)
    }

    /// The same, and the derivative of the pixel by the point.
    pub fn project_with_derivative(&self, point: &Vector3<f64>) -> Option<(Vector2<f64>, Matrix2x3<f64>)> {
        let (on_plane, by) = self.distortion.distort([point.x, point.y, point.z])?;
        let intrinsics = Matrix2::new(self.focal[0], self.skew, 0.0, self.focal[1]);
        let pixel = intrinsics * on_plane + self.centre;
        let derivative = intrinsics * Matrix2x3::from_columns(&by);
        (pixel.iter().all(|v| v.is_finite())).then_some((pixel, derivative))
    }

    /// The direction, of length 1 in the optical frame, in which `pixel` looks. `None` beyond the lens model's range.
    pub fn bearing(&self, pixel: Vector2<f64>) -> Option<Vector3<f64>> {
        let y = (pixel[1] - self.centre[1]) / self.focal[1];
        let x = (pixel[0] - self.centre[0] - self.skew * y) / self.focal[0];
        self.distortion.undistort(Vector2::new(x, y)).map(Vector3::from)
    }
}

/// Pixels of one side of the image that is sent, of `full` that the sensor has.
fn region(side: &'static str, info: &CameraInfo, axis: usize, full: u32) -> Result<u32, CameraError> {
    let (offset, binning) = (info.roi_offset[axis], info.binning[axis].max(1));
    let size = match info.roi_size[axis] {
        0 => full.saturating_sub(offset),
        size => size,
    };
    let end = u64::from(offset) + u64::from(size);
    match size / binning {
        pixels if pixels > 0 && end <= u64::from(full) => Ok(pixels),
        _ => Err(CameraError::Region { side, end, of: full, binning }),
    }
}

/// The lens of the raw image.
fn distortion(info: &CameraInfo) -> Result<Distortion, CameraError> {
    let d = &info.d;
    if let Some((index, &value)) = d.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(CameraError::Coefficient { field: "d", index, value });
    }
    let wrong = |model, expected| CameraError::Count { model, expected, found: d.len() };
    match info.distortion_model.as_str() {
        _ if d.iter().all(|&v| v == 0.0) && info.distortion_model != "equidistant" => Ok(Distortion::None),
        "plumb_bob" => match d[..] {
            [k1, k2, p1, p2] => Ok(Distortion::Rational { k: [k1, k2, 0.0, 0.0, 0.0, 0.0], p: [p1, p2] }),
            [k1, k2, p1, p2, k3] => Ok(Distortion::Rational { k: [k1, k2, k3, 0.0, 0.0, 0.0], p: [p1, p2] }),
            _ => Err(wrong("plumb_bob", "5 (k1 k2 p1 p2 k3)")),
        },
        "rational_polynomial" => match d[..] {
            // Thin prism and tilt, which some drivers append, are part of OpenCV's model and not of ROS's.
            [k1, k2, p1, p2, k3, k4, k5, k6, ref rest @ ..] if rest.iter().all(|&v| v == 0.0) => {
                Ok(Distortion::Rational { k: [k1, k2, k3, k4, k5, k6], p: [p1, p2] })
            }
            _ => Err(wrong("rational_polynomial", "8 (k1 k2 p1 p2 k3 k4 k5 k6)")),
        },
        "equidistant" | "fisheye" => match d[..] {
            [k1, k2, k3, k4] => Ok(Distortion::Equidistant { k: [k1, k2, k3, k4] }),
            _ => Err(wrong("equidistant", "4 (k1 k2 k3 k4)")),
        },
        other => Err(CameraError::Model(other.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn info(model: &str, d: &[f64]) -> CameraInfo {
        CameraInfo {
            width: 1280,
            height: 720,
            distortion_model: model.into(),
            d: d.to_vec(),
            k: [900.0, 0.0, 640.5, 0.0, 910.0, 355.25, 0.0, 0.0, 1.0],
            p: [800.0, 0.0, 630.0, 0.0, 0.0, 800.0, 350.0, 0.0, 0.0, 0.0, 1.0, 0.0],
            ..CameraInfo::default()
        }
    }

    /// A camera with each of the models, of coefficients as calibrations yield them.
    fn cameras() -> Vec<Camera> {
        [
            info("", &[]),
            info("plumb_bob", &[-0.28, 0.07, 0.0008, -0.0003, 0.012]),
            info("rational_polynomial", &[1.2, -0.4, 0.0005, 0.0002, 0.03, 1.5, -0.2, 0.06]),
            info("equidistant", &[-0.03, 0.008, -0.004, 0.0007]),
        ]
        .iter()
        .map(|i| Camera::new(i, false).unwrap())
        .collect()
    }

    proptest! {
        #[test]
        fn a_pixels_bearing_projects_to_the_pixel(x in 0.0..1280.0f64, y in 0.0..720.0f64) {
            for camera in cameras() {
                let pixel = Vector2::new(x, y);
                let bearing = camera.bearing(pixel).unwrap();
                prop_assert!((bearing.norm() - 1.0).abs() < 1e-12);
                let back = camera.project(&(bearing * 7.5)).unwrap();
                prop_assert!((back - pixel).amax() < 1e-7, "{camera:?}: {pixel} came back as {back}");
            }
        }

        #[test]
        fn a_points_pixel_looks_at_the_point(x in -0.6..0.6f64, y in -0.35..0.35f64, z in 0.5..80.0f64) {
            for camera in cameras() {
                let point = Vector3::new(x, y, 1.0) * z;
                let bearing = camera.bearing(camera.project(&point).unwrap()).unwrap();
                prop_assert!((bearing - point.normalize()).amax() < 1e-9, "{camera:?}: {point} became {bearing}");
            }
        }

        #[test]
        fn the_derivative_is_the_finite_difference(x in -0.6..0.6f64, y in -0.35..0.35f64, z in 0.5..20.0f64) {
            for camera in cameras() {
                let point = Vector3::new(x, y, 1.0) * z;
                let (_, derivative) = camera.project_with_derivative(&point).unwrap();
                for axis in 0..3 {
                    let mut step = Vector3::zeros();
                    step[axis] = 1e-5 * z;
                    let at = |p: Vector3<f64>| camera.project(&p).unwrap();
                    let difference = (at(point + step) - at(point - step)) / (2e-5 * z);
                    let error = (derivative.column(axis) - difference).amax();
                    prop_assert!(error < 1e-6 * (1.0 + derivative.amax()), "{camera:?}, axis {axis}: {error}");
                }
            }
        }

        #[test]
        fn no_pixel_however_far_is_a_panic_or_a_false_bearing(x in -1e5..1e5f64, y in -1e5..1e5f64) {
            for camera in cameras() {
                if let Some(bearing) = camera.bearing(Vector2::new(x, y)) {
                    let back = camera.project(&bearing);
                    let off = back.map(|b| (b - Vector2::new(x, y)).amax());
                    prop_assert!(off.is_some_and(|o| o < 1e-4), "{camera:?}: {x}, {y} came back as {back:?}");
                }
            }
        }
    }

    #[test]
    fn a_fisheye_sees_to_its_side() {
        let mut wide = info("equidistant", &[0.0; 4]);
        wide.k[0] = 300.0;
        wide.k[4] = 300.0;
        let camera = Camera::new(&wide, false).unwrap();
        // 90 degrees to the right is θ = π/2.
        let pixel = camera.project(&Vector3::new(1.0, 0.0, 0.0)).unwrap();
        assert!((pixel[0] - (640.5 + 300.0 * std::f64::consts::FRAC_PI_2)).abs() < 1e-9);
        assert!((camera.bearing(pixel).unwrap() - Vector3::new(1.0, 0.0, 0.0)).amax() < 1e-12);
    }

    #[test]
    fn on_the_axis_the_bearing_is_ahead() {
        for camera in cameras() {
            let bearing = camera.bearing(Vector2::new(640.5, 355.25)).unwrap();
            assert!((bearing - Vector3::z()).amax() < 1e-12);
            assert_eq!(camera.project(&Vector3::z()), Some(Vector2::new(640.5, 355.25)));
        }
    }

    #[test]
    fn intrinsics_that_are_zero_or_no_number_are_refused_by_name() {
        let refused = |change: fn(&mut CameraInfo), rectified: bool| {
            let mut info = info("plumb_bob", &[0.1, 0.0, 0.0, 0.0, 0.0]);
            change(&mut info);
            Camera::new(&info, rectified).unwrap_err().to_string()
        };
        let sentence = refused(|i| i.k = [0.0; 9], false);
        assert_eq!(sentence, "CameraInfo.k[0] (fx) is 0; it must be above zero (is the camera calibrated?)");
        assert!(refused(|i| i.k[4] = f64::NAN, false).contains("k[4] (fy) is NaN"));
        assert!(refused(|i| i.k[2] = f64::INFINITY, false).contains("k[2] (cx) is inf"));
        assert!(refused(|i| i.p[5] = -1.0, true).contains("p[5] (fy) is -1"));
        assert!(refused(|i| i.d[1] = f64::NAN, false).contains("d[1] is NaN"));
        assert!(refused(|i| i.d.truncate(3), false).contains("d has 3 values; plumb_bob has 5"));
        assert!(refused(|i| i.distortion_model = "ftheta".into(), false).contains("'ftheta'"));
        assert!(refused(|i| i.height = 0, false).contains("1280x0"));
    }

    #[test]
    fn the_rectified_image_has_its_own_projection_and_no_distortion() {
        let camera = Camera::new(&info("plumb_bob", &[-0.3, 0.1, 0.0, 0.0, 0.0]), true).unwrap();
        assert_eq!(camera.project(&Vector3::new(1.0, 0.5, 2.0)), Some(Vector2::new(1030.0, 550.0)));
    }

    /// What is at the corner of the full image's pixels (640, 360) is at the corner of (320, 180) of one binned by two.
    #[test]
    fn binning_and_resizing_keep_corners_where_they_are() {
        let full = Camera::new(&info("plumb_bob", &[-0.28, 0.07, 0.0, 0.0, 0.0]), false).unwrap();
        let mut binned = info("plumb_bob", &[-0.28, 0.07, 0.0, 0.0, 0.0]);
        binned.binning = [2, 2];
        let binned = Camera::new(&binned, false).unwrap();
        assert_eq!((binned.size(), binned), ((640, 360), full.resized(640, 360)));
        let bearing = full.bearing(Camera::pixel_of(1000.0, 500.0)).unwrap();
        let half = binned.bearing(Camera::pixel_of(500.0, 250.0)).unwrap();
        assert!((bearing - half).amax() < 1e-12);
    }

    #[test]
    fn a_region_of_interest_moves_the_centre() {
        let mut cut = info("", &[]);
        cut.roi_offset = [100, 50];
        let (whole, cut) = (Camera::new(&info("", &[]), false).unwrap(), Camera::new(&cut, false).unwrap());
        assert_eq!(whole.bearing(Vector2::new(300.0, 200.0)), cut.bearing(Vector2::new(200.0, 150.0)));
    }

    /// The image that is sent has the region's size, so nothing is scaled, and what is seen is where it is.
    #[test]
    fn a_region_of_interest_keeps_its_scale_also_when_it_is_binned() {
        let whole = Camera::new(&info("plumb_bob", &[-0.28, 0.07, 0.0, 0.0, 0.0]), false).unwrap();
        let mut cut = info("plumb_bob", &[-0.28, 0.07, 0.0, 0.0, 0.0]);
        (cut.roi_offset, cut.roi_size) = ([100, 50], [640, 480]);
        let bearing = whole.bearing(Camera::pixel_of(700.0, 410.0)).unwrap();
        for (binning, size, at) in [([0, 1], (640, 480), (600.0, 360.0)), ([2, 4], (320, 120), (300.0, 90.0))] {
            cut.binning = binning;
            let camera = Camera::new(&cut, false).unwrap();
            assert_eq!(camera.size(), size);
            let seen = camera.resized(size.0, size.1).bearing(Camera::pixel_of(at.0, at.1)).unwrap();
            assert!((seen - bearing).amax() < 1e-12, "binned by {binning:?}: {seen} for {bearing}");
        }
    }

    #[test]
    fn a_region_of_interest_that_is_not_in_the_image_is_refused() {
        for (offset, size, binning) in
            [([1280, 0], [0, 0], [0, 0]), ([1000, 0], [281, 9], [1, 1]), ([0, 0], [8, 3], [4, 4])]
        {
            let mut cut = info("", &[]);
            (cut.roi_offset, cut.roi_size, cut.binning) = (offset, size, binning);
            let sentence = Camera::new(&cut, false).unwrap_err().to_string();
            assert!(sentence.starts_with("CameraInfo.roi ends at"), "{sentence}");
        }
    }
}
