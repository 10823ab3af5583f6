//! `sensor_msgs/CameraInfo`.

use peregrine_geometry::{Camera, CameraInfo};

const MODELS: [&str; 5] = ["plumb_bob", "rational_polynomial", "equidistant", "", "fisheye"];

/// Fields in the order of the message, numbers as they are in memory.
#[derive(Default)]
struct Fields(Vec<u8>);

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let n = self.0.len().min(N);
        bytes[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        bytes
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.bytes())
    }
}

/// A camera of any calibration: projected to, and back.
pub fn info(data: &[u8]) {
    let mut r = Reader(data);
    let [rectified, model, coefficients] = r.bytes();
    let info = CameraInfo {
        width: r.u32(),
        height: r.u32(),
        binning: [r.u32(), r.u32()],
        roi_offset: [r.u32(), r.u32()],
        roi_size: [r.u32(), r.u32()],
        k: std::array::from_fn(|_| r.f64()),
        p: std::array::from_fn(|_| r.f64()),
        distortion_model: MODELS[usize::from(model) % MODELS.len()].into(),
        d: (0..coefficients % 16).map(|_| r.f64()).collect(),
    };
    let Ok(camera) = Camera::new(&info, rectified % 2 == 1) else { return };
    let (width, height) = camera.size();
    let camera = if rectified & 2 != 0 { camera.resized(width.div_ceil(2), height.div_ceil(2)) } else { camera };
    for (x, y) in [(0.0, 0.0), (f64::from(width), f64::from(height)), (r.f64(), r.f64())] {
        if let Some(bearing) = camera.bearing(Camera::pixel_of(x, y)) {
            camera.project_with_derivative(&bearing);
        }
    }
}

/// One of each model.
pub fn seeds() -> Vec<Vec<u8>> {
    let counts = [5, 8, 4, 0, 12];
    let seed = |(model, &coefficients): (usize, &u8)| {
        let mut fields = Fields(vec![0, model as u8, coefficients]);
        [640u32, 480, 0, 0, 0, 0, 0, 0].iter().for_each(|v| fields.0.extend(v.to_le_bytes()));
        let (k, p) =
            ([500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0], [500.0, 0.0, 320.0, 0.0, 0.0, 500.0, 240.0]);
        k.iter().chain(&p).chain(&[0.0, 0.0, 0.0, 1.0, 0.0]).for_each(|v: &f64| fields.0.extend(v.to_le_bytes()));
        (0..coefficients).for_each(|i| fields.0.extend((0.1 / f64::from(i + 1)).to_le_bytes()));
        fields.0
    };
    counts.iter().enumerate().map(seed).collect()
}
