//! The transforms of patches, tiles and gradients: along one axis, then along the other.

use std::array::from_fn;

use peregrine_engine::Shape;

use super::super::vectors::vectorised;
use super::super::Geometry;
use super::sides::{gradient_side, map, parts, patch_side, split, tile_side, PATCH, TILE};
use super::tiles::{columns, Part, Tiles};

/// `Bᵀ d B` of each patch: `[36, channels, tiles]`.
pub fn transform_patches(g: &Geometry, tiles: &Tiles, band: &[Part], input: &[f32], to: &mut [f32], work: &mut [f32]) {
    let (channels, n) = (g.input.channels, columns(band, tiles));
    let mut first = 0;
    for part in band {
        // Four lines of inputs to a row of tiles, and those of the row below.
        let line = (part.rows.len() + 1) * tiles.pitch;
        let len = part.rows.len() * tiles.pitch;
        for channel in 0..channels {
            let plane = &input[(part.image * channels + channel) * g.input.pixels()..][..g.input.pixels()];
            let (pixels, rest) = work.split_at_mut(TILE * TILE * line);
            let pad = (g.pad_top, g.pad_left);
            spread(plane, g.input, pad, part.rows.start, part.rows.len() + 1, tiles.pitch, pixels);
            let (phases, rest) = rest.split_at_mut(TILE * (TILE * line + 1));
            let across = &mut rest[..PATCH * TILE * line];
            vectorised!({
                let steps = TILE * line;
                let [a, b, c, d] = split(phases, steps + 1);
                for (s, pixel) in pixels.chunks_exact(TILE).enumerate() {
                    (a[s], b[s], c[s], d[s]) = (pixel[0], pixel[1], pixel[2], pixel[3]);
                }
                (a[steps], b[steps]) = (0.0, 0.0);
                map([&*a, &*b, &*c, &*d, &a[1..], &b[1..]], split(across, steps), patch_side);
                for (x, down) in across.chunks_exact(steps).enumerate() {
                    let row = |y: usize| &down[y % TILE * line + y / TILE * tiles.pitch..];
                    let planes = &mut to[x * PATCH * channels * n..][..PATCH * channels * n];
                    let at = channel * n + first;
                    map(from_fn(row), parts(planes, channels * n, at..at + len), patch_side);
                }
            });
        }
        first += len;
    }
}

/// `A y Aᵀ` of each tile of gradients: `[36, channels, tiles]`.
pub fn transform_gradients(shape: Shape, tiles: &Tiles, band: &[Part], from: &[f32], to: &mut [f32], work: &mut [f32]) {
    let (channels, n) = (shape.channels, columns(band, tiles));
    let mut first = 0;
    for part in band {
        let len = part.rows.len() * tiles.pitch;
        for channel in 0..channels {
            let plane = &from[(part.image * channels + channel) * shape.pixels()..][..shape.pixels()];
            let (pixels, rest) = work.split_at_mut(TILE * TILE * len);
            spread(plane, shape, (0, 0), part.rows.start, part.rows.len(), tiles.pitch, pixels);
            let (phases, rest) = rest.split_at_mut(TILE * TILE * len);
            let across = &mut rest[..PATCH * TILE * len];
            vectorised!({
                let steps = TILE * len;
                let [a, b, c, d] = split(phases, steps);
                for (s, pixel) in pixels.chunks_exact(TILE).enumerate() {
                    (a[s], b[s], c[s], d[s]) = (pixel[0], pixel[1], pixel[2], pixel[3]);
                }
                map([&*a, &*b, &*c, &*d], split(across, steps), gradient_side);
                for (x, down) in across.chunks_exact(steps).enumerate() {
                    let planes = &mut to[x * PATCH * channels * n..][..PATCH * channels * n];
                    let at = channel * n + first;
                    map(from_fn(|y| &down[y * len..]), parts(planes, channels * n, at..at + len), gradient_side);
                }
            });
        }
        first += len;
    }
}

/// `Aᵀ m A` of each tile, into the images.
pub fn put_tiles(
    shape: Shape,
    tiles: &Tiles,
    band: &[Part],
    products: &[f32],
    output: &mut [f32],
    keep: bool,
    work: &mut [f32],
) {
    let (channels, n) = (shape.channels, columns(band, tiles));
    let mut first = 0;
    for part in band {
        let len = part.rows.len() * tiles.pitch;
        for channel in 0..channels {
            let plane = &mut output[(part.image * channels + channel) * shape.pixels()..][..shape.pixels()];
            let (down, rest) = work.split_at_mut(TILE * PATCH * len);
            let (across, pixels) = rest.split_at_mut(TILE * len);
            let pixels = &mut pixels[..TILE * len];
            vectorised!({
                for x in 0..PATCH {
                    let from = from_fn(|y| &products[((PATCH * x + y) * channels + channel) * n + first..]);
                    let mut lines = down.chunks_exact_mut(len).skip(x).step_by(PATCH);
                    map(from, from_fn(|_| lines.next().expect("four of each")), tile_side);
                }
                for (y, down) in down.chunks_exact(PATCH * len).enumerate() {
                    map(from_fn(|x| &down[x * len..]), split(across, len), tile_side);
                    let [a, b, c, d] = split(across, len);
                    for (s, pixel) in pixels.chunks_exact_mut(TILE).enumerate() {
                        pixel.copy_from_slice(&[a[s], b[s], c[s], d[s]]);
                    }
                    for (row, line) in part.rows.clone().zip(pixels.chunks_exact(TILE * tiles.pitch)) {
                        let Some(into) = plane.chunks_exact_mut(shape.width).nth(TILE * row + y) else { continue };
                        if keep {
                            into.iter_mut().zip(line).for_each(|(into, value)| *into += value);
                        } else {
                            into.copy_from_slice(&line[..shape.width]);
                        }
                    }
                }
            });
        }
        first += len;
    }
}

/// The pixels of `rows` rows of tiles from `first` on, with zeros around the plane: `[4, rows, 4 · pitch]`, each line of
/// a tile apart.
fn spread(
    plane: &[f32],
    shape: Shape,
    (top, left): (usize, usize),
    first: usize,
    rows: usize,
    pitch: usize,
    to: &mut [f32],
) {
    let width = shape.width.min(TILE * pitch - left);
    for (i, line) in to.chunks_exact_mut(TILE * pitch).enumerate() {
        let (y, row) = (i / rows, i % rows);
        match (TILE * (first + row) + y).checked_sub(top).filter(|&y| y < shape.height) {
            None => line.fill(0.0),
            Some(y) => {
                line[..left].fill(0.0);
                line[left..][..width].copy_from_slice(&plane[y * shape.width..][..width]);
                line[left + width..].fill(0.0);
            }
        }
    }
}
